"""Colours that are not RGB in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from napari_genselfdiff.slides import open_slide


@pytest.mark.parametrize("mode", ["YCbCr", "LAB"])
def test_colours_of_other_spaces_are_converted(tmp_path: Path, picture: np.ndarray, mode: str) -> None:
    rgb = Image.fromarray(picture[:64, :64])
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.applyTransform(rgb, ImageCms.buildTransform(srgb, lab, "RGB", "LAB"))
    else:
        image = rgb.convert(mode)
    assert image is not None
    image.save(tmp_path / "a.tif", compression="tiff_adobe_deflate")
    read = open_slide(tmp_path / "a.tif").levels[0].compute()
    assert np.abs(read.astype(int) - picture[:64, :64]).mean() < 2
