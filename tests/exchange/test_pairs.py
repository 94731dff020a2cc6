"""Images and labels of data sets as they are laid out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.pairs import find_pairs, load_pair, load_pairs


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(array).save(path)


def layout(tmp_path: Path, labels: np.ndarray, label_name: str = "a.png") -> tuple[Path, Path]:
    save(tmp_path / "images" / "a.jpg", np.full((4, 6, 3), 200, np.uint8))
    save(tmp_path / "labels" / label_name, labels)
    return tmp_path / "images", tmp_path / "labels"


@pytest.mark.parametrize("name", ["a.png", "a_mask.tif", "a_anno.bmp", "a_label.PNG"])
def test_labels_are_found_by_name(tmp_path: Path, name: str) -> None:
    (pair,) = find_pairs(*layout(tmp_path, np.eye(4, 6, dtype=np.uint8), name))
    assert (pair.name, pair.image.name, pair.label.name) == ("a", "a.jpg", name)
    loaded = load_pair(pair, instances=False)
    assert (loaded.name, loaded.rgb.shape, loaded.labels.dtype) == ("a", (4, 6, 3), np.uint8)
    np.testing.assert_array_equal(loaded.labels, np.eye(4, 6))
    assert loaded.valid.all()


def test_missing_labels_are_named(tmp_path: Path) -> None:
    images, labels = layout(tmp_path, np.eye(4, 6, dtype=np.uint8))
    for letter in "bcdef":
        save(images / f"{letter}.png", np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(UserError, match=r"5 of 6 images have no label \(b\.png, c\.png, d\.png, \.\.\.\)"):
        find_pairs(images, labels)


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image"):
        find_pairs(tmp_path / "empty", tmp_path / "empty")
    with pytest.raises(UserError, match="no such folder"):
        find_pairs(tmp_path / "empty", tmp_path / "nowhere")


def test_two_images_of_one_name(tmp_path: Path) -> None:
    images, labels = layout(tmp_path, np.eye(4, 6, dtype=np.uint8))
    save(images / "a.png", np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(UserError, match="share a name"):
        find_pairs(images, labels)


def test_unlabelled_pixels_of_classes_and_instances(tmp_path: Path) -> None:
    classes = np.array([[0, 1, 255, 2, 0, 0]] * 4, np.uint8)
    loaded = load_pair(find_pairs(*layout(tmp_path, classes))[0], instances=False)
    np.testing.assert_array_equal(loaded.valid, classes != 255)
    assert loaded.labels[0, 2] == 255
    save(tmp_path / "labels" / "a.png", np.where(classes == 255, 65535, classes.astype(np.uint16) * 300))
    loaded = load_pair(find_pairs(tmp_path / "images", tmp_path / "labels")[0], instances=True)
    assert loaded.labels.dtype == np.int32
    assert loaded.labels[0].tolist() == [0, 300, 0, 600, 0, 0]
    np.testing.assert_array_equal(loaded.valid, classes != 255)


def test_sizes_must_agree(tmp_path: Path) -> None:
    (pair,) = find_pairs(*layout(tmp_path, np.eye(5, dtype=np.uint8)))
    with pytest.raises(UserError, match="5 x 5 pixels and its image 6 x 4"):
        load_pair(pair, instances=False)


def test_ids_are_not_taken_for_classes(tmp_path: Path) -> None:
    (pair,) = find_pairs(*layout(tmp_path, np.eye(4, 6).astype(np.uint16) * 999))
    with pytest.raises(UserError, match="999"):
        load_pair(pair, instances=False)


def test_a_set_of_0_and_255_has_no_foreground(tmp_path: Path) -> None:
    pairs = find_pairs(*layout(tmp_path, np.eye(4, 6).astype(np.uint8) * 255))
    with pytest.raises(UserError, match="only 0 and 255"):
        load_pairs(pairs, instances=False)
    save(tmp_path / "labels" / "a.png", np.zeros((4, 6), np.uint8))
    with pytest.raises(UserError, match="no foreground at all"):
        load_pairs(pairs, instances=False)


def test_glas_keeps_images_and_labels_in_one_folder(data_dir: Path) -> None:
    glas = data_dir / "glas"
    if not glas.is_dir():
        pytest.skip("no GlaS in the data folder")
    pairs = find_pairs(glas, glas)
    assert len(pairs) == 85
    assert all(pair.label.stem == f"{pair.name}_anno" for pair in pairs)
    loaded = load_pair(pairs[0], instances=True)
    assert loaded.labels.max() > 1
    assert loaded.valid.all()


def test_masks_of_one_bit_are_zero_and_one(data_dir: Path) -> None:
    folder = data_dir / "nuinsseg"
    if not folder.is_dir():
        pytest.skip("no NuInsSeg in the data folder")
    pairs = find_pairs(folder / "images", folder / "masks")
    assert len(pairs) == 665
    (loaded,) = load_pairs(pairs[:1], instances=False)
    assert np.unique(loaded.labels).tolist() == [0, 1]
    assert loaded.valid.all()


def test_monuseg_images_and_instances(data_dir: Path) -> None:
    folder = data_dir / "monuseg"
    if not folder.is_dir():
        pytest.skip("no MoNuSeg in the data folder")
    pairs = find_pairs(folder / "MoNuSeg 2018 Training Data" / "Tissue Images", folder / "instances")
    assert len(pairs) == 30
    assert load_pair(pairs[0], instances=True).labels.max() > 300
