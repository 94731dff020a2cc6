"""Slides that are made for a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.slides import makers


def _tissue(height: int, width: int) -> np.ndarray:
    """A smooth, colourful picture without symmetry, uint8 RGB."""
    rng = np.random.default_rng(7)
    small = rng.integers(40, 250, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="session")
def tissue() -> Callable[[int, int], np.ndarray]:
    """Return the function that makes a picture."""
    return _tissue


@pytest.fixture(scope="session")
def write_ome_zarr() -> Callable[..., Path]:
    """Return the function that writes an OME-Zarr."""
    return makers.write_ome_zarr


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    """2100 x 1300 pixels."""
    return _tissue(2100, 1300)


@pytest.fixture
def jpeg_pyramid(tmp_path: Path, picture: np.ndarray) -> Path:
    """A pyramidal, tiled, JPEG-compressed TIFF at 0.25 um/px, levels 1 and 4, with a label behind it."""
    path = tmp_path / "pyramid.tif"
    options: dict[str, Any] = {"tile": (256, 256), "compression": "jpeg", "photometric": "rgb"}
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture, resolution=(40000, 40000), resolutionunit="CENTIMETER", **options)
        writer.write(picture[::4, ::4], subfiletype=1, **options)
        writer.write(np.zeros((300, 500, 3), np.uint8), description="label", photometric="rgb")
    return path
