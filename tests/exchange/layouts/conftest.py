"""Small data sets in the layouts of the field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture() -> Callable[..., None]:
    """Write an image of 40 x 30 pixels, or a mask."""

    def save(path: Path, array: np.ndarray | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if array is None:
            array = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(array).save(path)

    return save


@pytest.fixture
def annotate() -> Callable[..., None]:
    """Write outlines as ImageScope does: ``(left, top, right, bottom)`` of boxes, or lists of vertices."""

    def save(path: Path, *regions: Any, **attributes: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = ""
        for number, region in enumerate(regions, 1):
            corners = region
            if len(region) == 4 and not isinstance(region[0], tuple):
                left, top, right, bottom = region
                corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
            said = {"Id": number, "Type": 0, **(attributes if number == len(regions) else {})}
            header = " ".join(f'{key}="{value}"' for key, value in said.items())
            vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in corners)
            text += f"<Region {header}><Attributes/><Vertices>{vertices}</Vertices></Region>"
        path.write_text(
            '<Annotations MicronsPerPixel="0.252"><Annotation Id="1" Type="4"><Regions>'
            f"<RegionAttributeHeaders/>{text}</Regions></Annotation></Annotations>"
        )

    return save
