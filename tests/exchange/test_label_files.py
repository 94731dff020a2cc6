"""Label maps in and out of every kind of file."""

from __future__ import annotations

import csv
import json
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from skimage.measure import label

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange import outlines, runs, tables
from napari_genselfdiff.exchange.labels import convert, read_labels, write_labels

NAMES = ("background", "tumour", "stroma")
KINDS = (".png", ".tif", ".zarr", ".geojson")
SLOW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def class_map() -> np.ndarray:
    labels = np.zeros((30, 40), np.uint8)
    labels[2:20, 3:18] = 1
    labels[6:12, 6:12] = 2
    labels[25:, 30:] = 255
    return labels


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("suffix", KINDS)
def test_classes_come_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    write_labels(path, class_map(), mpp=0.5, class_names=NAMES, offset=(100, 2000), downsample=2)
    labels, info = read_labels(path)
    np.testing.assert_array_equal(labels, class_map())
    assert info == {
        "mpp": 0.5,
        "class_names": NAMES,
        "offset": (100, 2000),
        "downsample": 2.0,
        "instances": False,
        "object_classes": {},
    }
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no temporary files stay


@pytest.mark.parametrize("suffix", KINDS)
def test_objects_and_their_classes_come_back(tmp_path: Path, suffix: str) -> None:
    ids = np.zeros((30, 40), np.int32)
    ids[3:6, 3:6], ids[7:11, 7:11], ids[15:19, 4:9], ids[25:28, 30:35] = 900, 5, 12, 5
    write_labels(tmp_path / f"out{suffix}", class_map(), class_names=NAMES, instances=ids)
    labels, info = read_labels(tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(labels, ids)
    assert info["instances"]
    assert info["object_classes"] == {5: 2}


@given(labels=arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 4)))
@SLOW
@pytest.mark.parametrize("suffix", KINDS)
def test_any_map_comes_back(tmp_path: Path, suffix: str, labels: np.ndarray) -> None:
    write_labels(tmp_path / f"any{suffix}", labels)
    np.testing.assert_array_equal(read_labels(tmp_path / f"any{suffix}")[0], labels)


def test_conversion_through_every_kind(tmp_path: Path) -> None:
    chain = [
        tmp_path / f"{i}{suffix}" for i, suffix in enumerate((".png", ".geojson", ".zarr", ".tif", ".png"))
    ]
    write_labels(chain[0], class_map(), mpp=0.25, class_names=NAMES)
    for source, target in pairwise(chain):
        convert(source, target)
    labels, info = read_labels(chain[-1])
    np.testing.assert_array_equal(labels, class_map())
    assert (info["mpp"], info["class_names"]) == (0.25, NAMES)


def test_unknown_suffix_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.png, \.tif, \.tiff, \.zarr, \.geojson, \.csv"):
        write_labels(tmp_path / "out.xyz", class_map())


def test_png_has_16_bits_at_most(tmp_path: Path) -> None:
    ids = np.array([[0, 65535]])
    write_labels(tmp_path / "ids.png", ids > 0, instances=ids)
    assert np.asarray(Image.open(tmp_path / "ids.png")).max() == 65535
    with pytest.raises(UserError, match="65536"):
        write_labels(tmp_path / "more.png", ids > 0, instances=ids + 1)
    assert not (tmp_path / "more.png").exists()


def test_tiff_says_its_resolution_to_other_programs(tmp_path: Path) -> None:
    ids = np.zeros((700, 600), np.int32)
    ids[5, 5] = 70_000
    write_labels(tmp_path / "ids.tif", ids > 0, instances=ids, mpp=0.25)
    with tifffile.TiffFile(tmp_path / "ids.tif") as file:
        page = file.pages.first
        assert (page.dtype, page.is_tiled, page.compression.name) == (np.uint32, True, "ADOBE_DEFLATE")
        x, unit = page.tags["XResolution"].value, page.tags["ResolutionUnit"].value
    assert (x[0] / x[1], unit) == (40_000, 3)


def test_files_of_other_programs(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", class_map(), resolution=(20_000, 20_000), resolutionunit="CENTIMETER"
    )
    assert read_labels(tmp_path / "a.tif")[1]["mpp"] == 0.5
    tifffile.imwrite(tmp_path / "b.tif", class_map(), resolution=(72, 72), resolutionunit="INCH")
    assert read_labels(tmp_path / "b.tif")[1]["mpp"] is None
    Image.fromarray(class_map() > 0).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "bits.png")[0], class_map() > 0)
    Image.fromarray(np.array([[0, 256]], np.uint16)).save(tmp_path / "ids.png")
    assert read_labels(tmp_path / "ids.png")[1]["instances"]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".geojson", ".zarr"])
def test_damaged_and_missing_files_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bad{suffix}"
    with pytest.raises(UserError, match=f"bad{suffix}"):
        read_labels(path)
    if suffix == ".zarr":
        path.mkdir()
    else:
        path.write_bytes(b"not labels")
    with pytest.raises(UserError, match=f"bad{suffix}"):
        read_labels(path)


def test_pictures_are_not_labels(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "picture.png")
    with pytest.raises(UserError, match="one channel"):
        read_labels(tmp_path / "picture.png")
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((4, 5), np.float32))
    with pytest.raises(UserError, match="whole numbers"):
        read_labels(tmp_path / "float.tif")


def test_table_of_a_known_rectangle(tmp_path: Path) -> None:
    write_labels(tmp_path / "t.csv", class_map(), mpp=0.5, class_names=NAMES, offset=(100, 200))
    table = rows(tmp_path / "t.csv")
    assert [row["class"] for row in table] == ["tumour", "stroma"]  # what is not labelled is no object
    stroma = table[1]
    assert float(stroma["area_px"]) == 36
    assert float(stroma["area_um2"]) == 9
    assert float(stroma["perimeter_um"]) == 10
    assert (float(stroma["centroid_x"]), float(stroma["centroid_y"])) == (208.5, 108.5)
    assert (float(stroma["eccentricity"]), float(stroma["solidity"])) == (0, 1)


def test_table_without_resolution_and_of_tiny_objects(tmp_path: Path) -> None:
    labels = np.zeros((9, 9), np.uint8)
    labels[1, 1] = labels[3, 2:7] = labels[5:7, 1:3] = 1
    write_labels(tmp_path / "t.csv", labels)
    table = rows(tmp_path / "t.csv")
    assert [row["area_px"] for row in table] == ["1", "5", "4"]
    assert "area_um2" not in table[0]
    write_labels(tmp_path / "empty.csv", labels * 0)
    assert rows(tmp_path / "empty.csv") == []
    assert (tmp_path / "empty.csv").read_text().startswith("id,class,area_px")


def test_table_keeps_the_ids_of_objects(tmp_path: Path) -> None:
    ids = np.zeros((9, 9), np.int32)
    ids[1:3, 1:3], ids[5:8, 5:8] = 40, 7
    write_labels(tmp_path / "t.csv", ids > 0, instances=ids, downsample=4)
    table = rows(tmp_path / "t.csv")
    assert [row["id"] for row in table] == ["7", "40"]
    assert float(table[1]["centroid_x"]) == 7.5  # level-0 pixels 4 to 11


def test_ome_zarr_labels_have_a_pyramid_in_micrometres(tmp_path: Path) -> None:
    labels = np.zeros((1500, 2600), np.uint8)
    labels[101:900, 203:1800] = 1
    write_labels(tmp_path / "out.zarr", labels, mpp=0.5, class_names=NAMES, offset=(40, 80), downsample=2)
    group = zarr.open_group(tmp_path / "out.zarr", mode="r")
    assert group.metadata.zarr_format == 3
    ome = group.attrs["ome"]
    assert ome["version"] == "0.5"
    (multiscale,) = ome["multiscales"]
    assert multiscale["axes"] == [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    scales = [d["coordinateTransformations"][0]["scale"] for d in multiscale["datasets"]]
    assert scales == [[0.5, 0.5], [1, 1], [2, 2]]
    assert all(d["coordinateTransformations"][1]["translation"] == [10, 20] for d in multiscale["datasets"])
    assert ome["image-label"]["colors"][0]["label-value"] == 1
    assert ome["image-label"]["properties"] == [{"label-value": 1, "class": "tumour"}]
    assert (group["0"].chunks, group["0"].dtype, group["0"].metadata.dimension_names) == (
        (1024, 1024),
        np.uint8,
        ("y", "x"),
    )
    np.testing.assert_array_equal(group["2"][...], labels[::4, ::4])


def test_ome_zarr_labels_go_under_their_image(tmp_path: Path) -> None:
    image = zarr.create_group(tmp_path / "image.zarr", zarr_format=3)
    image.create_array("0", shape=(3, 30, 40), dtype="uint8", chunks=(3, 30, 40))
    axes = [
        {"name": "c", "type": "channel"},
        *({"name": n, "type": "space", "unit": "micrometer"} for n in "yx"),
    ]
    transformation = {"type": "scale", "scale": [1, 0.25, 0.25]}
    datasets = [{"path": "0", "coordinateTransformations": [transformation]}]
    image.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    for name in ("tissue", "nuclei", "tissue"):  # the second time it is replaced
        write_labels(tmp_path / "image.zarr", class_map(), name=name)
    assert zarr.open_group(tmp_path / "image.zarr/labels", mode="r").attrs["ome"]["labels"] == [
        "tissue",
        "nuclei",
    ]
    labels, info = read_labels(tmp_path / "image.zarr" / "labels" / "nuclei")
    np.testing.assert_array_equal(labels, class_map())
    assert info["mpp"] == 0.25  # from the image
    source = zarr.open_group(tmp_path / "image.zarr/labels/tissue", mode="r").attrs["ome"]["image-label"][
        "source"
    ]
    assert source == {"image": "../../"}
    assert image["0"].shape == (3, 30, 40)
    with pytest.raises(UserError, match="tissue, nuclei"):
        read_labels(tmp_path / "image.zarr")


def test_an_image_of_the_older_zarr_gets_no_labels(tmp_path: Path) -> None:
    (tmp_path / "old.zarr").mkdir()
    (tmp_path / "old.zarr" / ".zattrs").write_text(json.dumps({"multiscales": [{"datasets": []}]}))
    with pytest.raises(UserError, match=r"OME-Zarr 0\.4"):
        write_labels(tmp_path / "old.zarr", class_map())
    assert [p.name for p in (tmp_path / "old.zarr").iterdir()] == [".zattrs"]


def test_a_failed_write_keeps_the_old_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "labels.zarr"
    write_labels(path, class_map())
    rename = Path.rename

    def full_disk(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full_disk)
    with pytest.raises(UserError, match="No space left"):
        write_labels(path, class_map() * 0)
    np.testing.assert_array_equal(read_labels(path)[0], class_map())
    assert [p.name for p in tmp_path.iterdir()] == ["labels.zarr"]


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="left as it is"):
        write_labels(tmp_path / "mine.zarr", class_map())
    assert (tmp_path / "mine.zarr" / "thesis.txt").read_text() == "years of work"
    write_labels(tmp_path / "labels.zarr", class_map())
    write_labels(tmp_path / "labels.zarr", class_map() * 0)  # labels are replaced
    assert not read_labels(tmp_path / "labels.zarr")[0].any()
    with pytest.raises(UserError, match="not a name"):
        write_labels(tmp_path / "other.zarr", class_map(), name="../escape")


@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
def test_labels_that_are_cut_off_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut{suffix}"
    write_labels(path, np.random.default_rng(0).integers(0, 200, (700, 700)).astype(np.uint8))
    files = [path] if path.is_file() else [file for file in path.rglob("c/0/0") if file.is_file()]
    for file in files:
        file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UserError, match=rf"could not be read.*cut\{suffix}"):
        read_labels(path)


@pytest.mark.parametrize("suffix", [".geojson", ".csv"])
@pytest.mark.parametrize("instances", [True, False])
def test_a_map_in_a_file_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, *, instances: bool
) -> None:
    """Of a whole slide it would not fit into memory; in bands the same is written."""
    labels = np.kron(np.random.default_rng(0).integers(0, 3, (40, 40)), np.ones((5, 5))).astype(np.uint8)
    ids = label(labels, background=0, connectivity=1).astype(np.int32)
    given = {"instances": ids} if instances else {}
    write_labels(tmp_path / f"whole{suffix}", labels, **given)
    monkeypatch.setattr(runs, "BAND_PIXELS", 3 * 200)
    monkeypatch.setattr(outlines, "AT_ONCE", 50)
    monkeypatch.setattr(tables, "BAND_PIXELS", 700)
    monkeypatch.setattr(tables, "LARGEST_ID", 2)
    write_labels(tmp_path / f"bands{suffix}", labels, **given)
    assert (tmp_path / f"bands{suffix}").read_text() == (tmp_path / f"whole{suffix}").read_text()


@pytest.mark.parametrize("suffix", [".geojson", ".csv"])
def test_memory_does_not_grow_with_the_area(tmp_path: Path, suffix: str) -> None:
    ids = np.zeros((4000, 4000), np.int32)
    for number in range(100):
        ids[40 * number : 40 * number + 20, 30 * number : 30 * number + 20] = number + 1
    classes = np.ones(ids.shape, np.uint8)
    write_labels(tmp_path / f"a{suffix}", classes[:9, :9], instances=ids[:9, :9])  # what it imports
    tracemalloc.start()
    write_labels(tmp_path / f"a{suffix}", classes, instances=ids)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * ids.size, peak  # bytes: less than a single copy
