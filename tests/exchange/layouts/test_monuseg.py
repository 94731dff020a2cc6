"""MoNuSeg as it is unpacked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.datasets import open_dataset
from napari_genselfdiff.exchange.layouts.monuseg import patient_of
from napari_genselfdiff.exchange.rasters import read_labels_image

SLIDE = "TCGA-A7-A13E-01Z-00-DX1"
Save = Callable[..., None]


@pytest.fixture
def training(tmp_path: Path, picture: Save, annotate: Save) -> Path:
    """Two images of the training part."""
    folder = tmp_path / "MoNuSeg 2018 Training Data"
    for name in (SLIDE, "TCGA-B0-5698-01Z-00-DX1"):
        picture(folder / "Tissue Images" / f"{name}.tif")
        annotate(folder / "Annotations" / f"{name}.xml", (2, 2, 9, 9), (20, 10, 30, 20))
    return folder


def test_images_with_ids_patients_and_resolution(training: Path) -> None:
    first, second = open_dataset(training)
    assert (first.name, first.group, first.mpp, first.instances) == (SLIDE, "TCGA-A7-A13E", 0.25, True)
    assert second.group == "TCGA-B0-5698"
    rgb, ids = first.load()
    assert (rgb.shape, rgb.dtype, ids.shape, ids.dtype) == ((30, 40, 3), np.uint8, (30, 40), np.int32)
    assert (ids[5, 5], ids[15, 25], ids[0, 0]) == (1, 2, 0)


def test_the_folder_above_will_do_and_options_count(training: Path) -> None:
    (item, _) = open_dataset(training.parent, mpp=0.5, instances=False)
    assert (item.mpp, item.instances) == (0.5, False)
    assert np.unique(item.load()[1]).tolist() == [0, 1]


def test_the_test_part_has_both_in_one_folder(tmp_path: Path, picture: Save, annotate: Save) -> None:
    picture(tmp_path / "MoNuSegTestData" / f"{SLIDE}.tif")
    annotate(tmp_path / "MoNuSegTestData" / f"{SLIDE}.xml", (2, 2, 9, 9))
    (item,) = open_dataset(tmp_path)
    assert (item.name, item.load()[1].max()) == (SLIDE, 1)


def test_a_mask_stands_in_for_missing_xml(training: Path, picture: Save) -> None:
    (training / "Annotations" / f"{SLIDE}.xml").unlink()
    with pytest.raises(UserError, match=rf"1 of 2 images have no annotation \({SLIDE}\.tif\).*Annotations"):
        open_dataset(training)
    ids = np.zeros((30, 40), np.uint16)
    ids[4:8, 4:8] = 700
    picture(training.parent / "instances" / f"{SLIDE}.png", ids)
    first, second = open_dataset(training.parent)
    np.testing.assert_array_equal(first.load()[1], ids)
    assert second.label.suffix == ".xml"


def test_masks_take_the_place_of_xml_where_they_are_named(training: Path, picture: Save) -> None:
    for image in (training / "Tissue Images").iterdir():
        picture(training / "mine" / f"{image.stem}.png", np.full((30, 40), 3, np.uint8))
    assert [item.load()[1].max() for item in open_dataset(training, labels=training / "mine")] == [3, 3]


def test_a_mask_of_another_size_is_refused(training: Path, picture: Save) -> None:
    (training / "Annotations" / f"{SLIDE}.xml").unlink()
    picture(training / "instances" / f"{SLIDE}.png", np.ones((30, 41), np.uint8))
    with pytest.raises(UserError, match=r"41 x 30 pixels and its image 40 x 30.*instances"):
        open_dataset(training)[0].load()


def test_no_images_and_two_of_one_name(training: Path, picture: Save) -> None:
    picture(training / "Tissue Images" / f"{SLIDE}.png")
    with pytest.raises(UserError, match="share a name"):
        open_dataset(training)
    for image in (training / "Tissue Images").iterdir():
        image.unlink()
    with pytest.raises(UserError, match="no image was found"):
        open_dataset(training)


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("TCGA-18-5592-01Z-00-DX1", "TCGA-18-5592"),
        ("TCGA-18-5592", "TCGA-18-5592"),
        ("Human_Kidney_01", "Human_Kidney_01"),
        ("TCGA-18-55923", "TCGA-18-55923"),
    ],
)
def test_patients(name: str, patient: str) -> None:
    assert patient_of(name) == patient


def test_outlines_are_drawn_as_the_instance_masks_of_the_real_data(data_dir: Path) -> None:
    folder = data_dir / "monuseg"
    if not folder.is_dir():
        pytest.skip("no MoNuSeg in the data folder")
    items = open_dataset(folder)
    assert len({item.group for item in items}) == len(items) == 30
    outlined = [item for item in items if item.label.suffix == ".xml"]
    assert len(outlined) == 13
    for item in outlined[:3]:
        drawn = read_labels_image(folder / "instances" / f"{item.name}.png")
        np.testing.assert_array_equal(item.load()[1], drawn)
