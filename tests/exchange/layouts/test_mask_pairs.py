"""Folders of images and masks, and what the masks' numbers mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.datasets import open_dataset
from napari_genselfdiff.exchange.labels import write_labels

Save = Callable[..., None]


def mask(*values: int, dtype: type = np.uint8) -> np.ndarray:
    array = np.zeros((30, 40), dtype)
    for index, value in enumerate(values):
        array[5 + 8 * index : 10 + 8 * index, 5:30] = value
    return array


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/a.jpg", "masks/a.png"),
        ("Images/a.bmp", "GT/a.bmp"),
        ("img/a.png", "labels/a_mask.tif"),
        ("a.png", "a_mask.png"),
        ("a.tif", "a_label.tiff"),
        ("a.jpg", "a_anno.jpg"),
        ("unpacked/images/a.jpeg", "unpacked/masks/a.jpg"),
    ],
)
def test_images_find_their_masks(tmp_path: Path, picture: Save, image: str, label: str) -> None:
    picture(tmp_path / image)
    picture(tmp_path / label, mask(255))
    (item,) = open_dataset(tmp_path)
    assert (item.name, item.group, item.mpp, item.instances) == ("a", "a", None, False)
    rgb, classes = item.load()
    assert rgb.shape == (30, 40, 3)
    np.testing.assert_array_equal(classes, mask(1))


def pair(tmp_path: Path, picture: Save, label: np.ndarray, name: str = "a.png") -> Path:
    picture(tmp_path / "images" / name)
    picture(tmp_path / "masks" / name, label)
    return tmp_path


def test_black_and_white_means_foreground_unless_another_mask_says_more(
    tmp_path: Path, picture: Save
) -> None:
    pair(tmp_path, picture, mask(255))
    pair(tmp_path, picture, mask(), "b.png")
    assert [item.load()[1].max() for item in open_dataset(tmp_path)] == [1, 0]
    pair(tmp_path, picture, mask(1, 2), "b.png")
    assert [item.load()[1].max() for item in open_dataset(tmp_path, instances=False)] == [255, 2]


def test_high_numbers_are_ids_and_low_ones_are_asked_for(tmp_path: Path, picture: Save) -> None:
    pair(tmp_path, picture, mask(1, 300, dtype=np.uint16))
    (item,) = open_dataset(tmp_path)
    assert item.instances
    np.testing.assert_array_equal(item.load()[1], mask(1, 300, dtype=np.uint16))
    with pytest.raises(UserError, match=r"up to 300, and classes end at 254.*a\.png"):
        open_dataset(tmp_path, instances=False)
    pair(tmp_path, picture, mask(1, 2, 3))
    with pytest.raises(UserError, match=r"up to 3, which can be .*a\.png, give --classes or --instances"):
        open_dataset(tmp_path)
    assert [open_dataset(tmp_path, instances=said)[0].instances for said in (True, False)] == [True, False]


def test_black_and_white_does_not_number_objects(tmp_path: Path, picture: Save) -> None:
    with pytest.raises(UserError, match="do not number the objects"):
        open_dataset(pair(tmp_path, picture, mask(255, 255)), instances=True)


def test_our_own_files_say_what_they_hold(tmp_path: Path, picture: Save) -> None:
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "masks").mkdir()
    write_labels(tmp_path / "masks" / "a.tif", mask(1), instances=mask(1, 2))
    assert open_dataset(tmp_path)[0].instances
    write_labels(tmp_path / "masks" / "a.tif", mask(255, 255))  # nothing is labelled in a part
    (item,) = open_dataset(tmp_path)
    assert (item.instances, item.load()[1].max()) == (False, 255)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "1"])
def test_grey_in_several_channels_and_bits(tmp_path: Path, picture: Save, mode: str) -> None:
    pair(tmp_path, picture, mask())
    Image.fromarray(mask(255)).convert(mode).save(tmp_path / "masks" / "a.png")
    np.testing.assert_array_equal(open_dataset(tmp_path)[0].load()[1], mask(1))


def test_colours_and_grey_jpegs_are_no_masks(tmp_path: Path, picture: Save) -> None:
    pair(tmp_path, picture, mask())
    picture(tmp_path / "masks" / "a.png")
    with pytest.raises(UserError, match=r"picture in colours.*a\.png"):
        open_dataset(tmp_path)
    (tmp_path / "masks" / "a.png").unlink()
    picture(tmp_path / "masks" / "a.jpg", mask(60, 120))
    with pytest.raises(UserError, match=r"JPEG does not keep numbers.*a\.jpg|a\.jpg.*PNG"):
        open_dataset(tmp_path)


def test_groups_and_resolutions_of_a_table(tmp_path: Path, picture: Save) -> None:
    pair(tmp_path, picture, mask(1))
    pair(tmp_path, picture, mask(1), "b.png")
    table = tmp_path / "dataset.csv"
    table.write_text("name,group,mpp\na,ann,0.5\nb,ann,\n")
    assert [(item.group, item.mpp) for item in open_dataset(tmp_path)] == [("ann", 0.5), ("ann", None)]
    assert {item.mpp for item in open_dataset(tmp_path, mpp=0.25)} == {0.25}
    table.write_text("name,group,mpp\na,ann,wide\nb,ann,\n")
    with pytest.raises(UserError, match=r"mpp of a is 'wide'.*dataset\.csv"):
        open_dataset(tmp_path)
    table.write_text("name,group\na,ann\n")
    with pytest.raises(UserError, match=r"1 of 2 images are not in the table \(b\)"):
        open_dataset(tmp_path)


def test_a_tiff_says_its_resolution(tmp_path: Path, picture: Save) -> None:
    pair(tmp_path, picture, mask(1))
    (tmp_path / "images" / "a.png").unlink()
    rgb = np.zeros((30, 40, 3), np.uint8)
    options = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "images" / "a.tif", rgb, photometric="rgb", **options)
    assert open_dataset(tmp_path)[0].mpp == pytest.approx(0.5)


def test_folders_of_masks_that_are_missing_or_several(tmp_path: Path, picture: Save) -> None:
    picture(tmp_path / "images" / "a.png")
    with pytest.raises(UserError, match="no folder of masks"):
        open_dataset(tmp_path, "pairs")
    picture(tmp_path / "masks" / "a.png", mask(1))
    picture(tmp_path / "labels" / "a.png", mask(1, 2, 3))
    with pytest.raises(UserError, match=r"several folders of masks \(labels, masks\).*--labels"):
        open_dataset(tmp_path)
    (item,) = open_dataset(tmp_path, labels=tmp_path / "masks")
    assert item.label == tmp_path / "masks" / "a.png"
    (tmp_path / "masks" / "a.png").unlink()
    with pytest.raises(UserError, match=r"1 of 1 images have no label \(a\.png\)"):
        open_dataset(tmp_path, labels=tmp_path / "masks")
