"""GlaS as it is unpacked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.datasets import open_dataset

Save = Callable[..., None]
HEADER = "name, patient ID, grade (GlaS), grade (Sirinukunwattana et al. 2015)\n"


@pytest.fixture
def glas(tmp_path: Path, picture: Save) -> Path:
    """Three images of two patients."""
    folder = tmp_path / "Warwick QU Dataset (Released 2016_07_08)"
    ids = np.zeros((30, 40), np.uint8)
    ids[2:9, 2:9], ids[12:20, 20:30] = 1, 7
    for name in ("train_1", "train_2", "testA_1"):
        picture(folder / f"{name}.bmp")
        picture(folder / f"{name}_anno.bmp", ids)
    rows = "train_1, 2, benign, healthy\ntrain_2, 5, malignant, poor\ntestA_1, 2, benign, healthy\n"
    (folder / "Grade.csv").write_text(HEADER + rows + "\n")
    return folder


def test_images_with_ids_patients_and_resolution(glas: Path) -> None:
    items = open_dataset(glas.parent)
    assert [(item.name, item.group) for item in items] == [
        ("testA_1", "2"),
        ("train_1", "2"),
        ("train_2", "5"),
    ]
    assert {(item.mpp, item.instances) for item in items} == {(0.62, True)}
    rgb, ids = items[0].load()
    assert (rgb.shape, ids.dtype, np.unique(ids).tolist()) == ((30, 40, 3), np.int32, [0, 1, 7])
    joined = open_dataset(glas, "glas", instances=False, mpp=1)[0]
    assert (np.unique(joined.load()[1]).tolist(), joined.mpp) == ([0, 1], 1)


def damage(glas: Path, kind: str) -> None:
    table = glas / "Grade.csv"
    if kind == "row":
        table.write_text(HEADER + "train_1, 2\ntestA_1, 2\n")
    elif kind == "patient":
        table.write_text("name, grade\ntrain_1, benign\n")
    elif kind == "name":
        table.write_text("image, patient ID\ntrain_1, 2\n")
    elif kind == "twice":
        table.write_text(HEADER + "train_1, 2\ntrain_1, 3\n")
    elif kind == "binary":
        table.write_bytes(b"\xff\xfe\x00")
    else:
        (glas / kind).unlink()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("Grade.csv", r"no Grade\.csv, which says the patients.*--layout pairs"),
        ("row", r"1 of 3 images have no patient in the table \(train_2\).*Grade\.csv"),
        ("patient", r"no column 'patient ID'.*Grade\.csv"),
        ("name", r"no column 'name'.*Grade\.csv"),
        ("twice", r"line 3 names train_1 a second time.*Grade\.csv"),
        ("binary", r"could not be read.*Grade\.csv"),
        ("train_2_anno.bmp", r"1 of 3 images have no label \(train_2\.bmp\)"),
        ("train_2.bmp", r"1 annotations have no image \(train_2_anno\.bmp\)"),
    ],
)
def test_what_is_missing_is_named(glas: Path, kind: str, said: str) -> None:
    damage(glas, kind)
    with pytest.raises(UserError, match=said):
        open_dataset(glas)


def test_sizes_must_agree(glas: Path, picture: Save) -> None:
    picture(glas / "train_1_anno.bmp", np.ones((30, 20), np.uint8))
    with pytest.raises(UserError, match=r"20 x 30 pixels and its image 40 x 30.*train_1_anno\.bmp"):
        open_dataset(glas)[1].load()


def test_the_patients_of_the_real_data(data_dir: Path) -> None:
    folder = data_dir / "glas"
    if not folder.is_dir():
        pytest.skip("no GlaS in the data folder")
    items = open_dataset(folder)
    assert (len(items), len({item.group for item in items})) == (85, 15)
    assert items[0].load()[1].max() > 1
