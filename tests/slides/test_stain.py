"""H&E is recognised, fluorescence and other stains are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage.data import immunohistochemistry

from napari_genselfdiff.slides import open_slide, slide_from_arrays
from napari_genselfdiff.slides.stain import looks_like_he


@pytest.mark.parametrize(
    ("pattern", "every"),
    [
        ("slides/*.svs", 1),
        ("slides/OS-1*", 1),
        ("nuinsseg/images/*.jpg", 45),
        ("monuseg/*/Tissue Images/*.tif", 6),
        ("glas/train_?.bmp", 2),
    ],
)
def test_he_is_recognised(data_dir: Path, pattern: str, every: int) -> None:
    files = sorted(data_dir.glob(pattern))[::every]
    assert files
    assert [path.name for path in files if not looks_like_he(open_slide(path))] == []


def test_fluorescence_and_brown_are_not_he(data_dir: Path) -> None:
    assert not looks_like_he(open_slide(data_dir / "slides" / "test3-DAPI-2-(387).ndpi"))
    assert not looks_like_he(slide_from_arrays(immunohistochemistry(), name="ihc"))


def test_glass_is_not_held_against_a_slide() -> None:
    assert looks_like_he(slide_from_arrays(np.full((300, 300, 3), 240, np.uint8), name="glass"))
