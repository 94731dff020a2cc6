"""Which layout a folder has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.datasets import open_dataset


def folder_of_pairs(folder: Path) -> Path:
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
        array = np.ones((4, 6), np.uint8) if kind == "masks" else np.zeros((4, 6, 3), np.uint8)
        Image.fromarray(array).save(folder / kind / "a.png")
    return folder


def test_what_is_no_data_set_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"layout of the data set is not known.*docs/datasets\.md"):
        open_dataset(tmp_path)
    with pytest.raises(UserError, match="no such layout, cityscapes, use auto, monuseg"):
        open_dataset(tmp_path, "cityscapes")
    with pytest.raises(UserError, match="no folders Tissue Images and Annotations"):
        open_dataset(tmp_path, "monuseg")


def test_one_of_several_data_sets_must_be_named(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder_of_pairs(tmp_path / name)
    with pytest.raises(UserError, match=r"2 data sets \(one, two\).*name one"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path / "two")[0].image == tmp_path / "two" / "images" / "a.png"


def test_a_part_of_a_data_set_is_no_second_one(tmp_path: Path) -> None:
    folder_of_pairs(tmp_path)
    folder_of_pairs(tmp_path / "masks" / "more")
    assert len(open_dataset(tmp_path)) == 1
