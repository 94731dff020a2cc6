"""Plain image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.images import find_images, read_rgb


def test_images_are_found_in_order_and_read_as_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 5), 7, np.uint8)).save(tmp_path / "b.png")
    Image.fromarray(np.zeros((4, 5, 4), np.uint8)).save(tmp_path / "a.PNG")
    (tmp_path / "notes.txt").write_text("no image")
    assert [path.name for path in find_images([tmp_path])] == ["a.PNG", "b.png"]
    rgb = read_rgb(tmp_path / "b.png")
    assert (rgb.shape, rgb.dtype) == ((4, 5, 3), np.uint8)
    assert (rgb == 7).all()


def test_what_is_no_image_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image was found"):
        find_images([tmp_path])
    with pytest.raises(UserError, match="no such folder"):
        find_images([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="no such file"):
        read_rgb(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(b"damaged")
    with pytest.raises(UserError, match="could not be read"):
        read_rgb(tmp_path / "a.png")


def test_what_is_read_is_what_the_viewer_shows(tmp_path: Path) -> None:
    clear = np.zeros((4, 5, 4), np.uint8)
    clear[..., :3] = 100
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert (read_rgb(tmp_path / "clear.png") == 255).all()  # glass
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(np.full((4, 5), 3000, np.uint16)).save(tmp_path / name)
        with pytest.raises(UserError, match="more than 8 bits"):
            read_rgb(tmp_path / name)


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png"):
        Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / name)
    assert find_images([tmp_path]) == [tmp_path / "a.png"]
