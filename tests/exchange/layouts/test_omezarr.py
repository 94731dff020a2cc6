"""OME-Zarr images with labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.datasets import open_dataset
from napari_genselfdiff.exchange.labels import write_labels

ROWS, COLUMNS = np.mgrid[:60, :80]
RGB = np.stack([4 * ROWS, 3 * COLUMNS, 255 - 3 * COLUMNS]).astype(np.uint8)
IDS = np.zeros((60, 80), np.uint16)
IDS[5:20, 5:20], IDS[30:50, 40:70] = 1, 2


def image(path: Path, *, mpp: float | None = 0.5) -> Path:
    """An OME-Zarr 0.5 image of 80 x 60 pixels."""
    unit = {} if mpp is None else {"unit": "micrometer"}
    axes = [{"name": "c", "type": "channel"}, *({"name": axis, "type": "space", **unit} for axis in "yx")]
    scale = {"type": "scale", "scale": [1, mpp or 1, mpp or 1]}
    datasets = [{"path": "0", "coordinateTransformations": [scale]}]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    group = zarr.create_group(path, zarr_format=3, attributes={"ome": ome})
    group.create_array("0", data=RGB)
    return path


def test_an_image_or_a_folder_of_them(tmp_path: Path) -> None:
    for name in ("b.zarr", "a.ome.zarr"):
        write_labels(image(tmp_path / name), np.minimum(IDS, 1), instances=IDS)
    assert [item.name for item in open_dataset(tmp_path)] == ["a", "b"]
    (item,) = open_dataset(tmp_path / "b.zarr")
    assert (item.name, item.mpp, item.instances) == ("b", 0.5, True)
    rgb, ids = item.load()
    np.testing.assert_array_equal(rgb, np.moveaxis(RGB, 0, 2))
    np.testing.assert_array_equal(ids, IDS)
    assert open_dataset(tmp_path / "b.zarr", mpp=0.3)[0].mpp == 0.3


def test_a_region_at_another_resolution_is_cut_out(tmp_path: Path) -> None:
    part = np.ones((10, 12), np.uint8)
    write_labels(image(tmp_path / "a.zarr"), part, offset=(8, 20), downsample=2, mpp=1.0)
    (item,) = open_dataset(tmp_path)
    rgb, _ = item.load()
    assert (rgb.shape, item.mpp) == ((10, 12, 3), 1.0)
    centre_rows, centre_columns = 8.5 + 2 * np.arange(10), 20.5 + 2 * np.arange(12)
    np.testing.assert_allclose(rgb[:, 5, 0], 4 * centre_rows, atol=1)
    np.testing.assert_allclose(rgb[5, :, 1], 3 * centre_columns, atol=1)


def test_labels_must_be_there_and_be_the_ones(tmp_path: Path) -> None:
    path = image(tmp_path / "a.zarr", mpp=None)
    with pytest.raises(UserError, match=r"no labels.*a\.zarr"):
        open_dataset(path)
    write_labels(path, np.minimum(IDS, 1), name="cells")
    assert open_dataset(path)[0].mpp is None
    write_labels(path, np.minimum(IDS, 1), name="mine")
    with pytest.raises(UserError, match=r"several label images \(cells, mine\).*--labels"):
        open_dataset(path)
    assert open_dataset(path, labels="mine")[0].label.name == "mine"
    with pytest.raises(UserError, match="no labels 'other'"):
        open_dataset(path, labels="other")


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    write_labels(image(tmp_path / "a.zarr"), np.ones((60, 70), np.uint8))
    with pytest.raises(UserError, match=r"70 x 60 pixels and its image 80 x 60.*a\.zarr"):
        open_dataset(tmp_path)[0].load()


def test_without_an_image(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no OME-Zarr image"):
        open_dataset(tmp_path, "ome-zarr")
