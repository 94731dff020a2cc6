"""``segment`` and ``export``."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from tests.slides import makers
from tests.slides.server import serve

from napari_genselfdiff.exchange.labels import read_labels
from napari_genselfdiff.verbs import segmenting

Cli = Callable[..., Any]


@pytest.mark.usefixtures("library")
def test_a_region_of_a_slide_becomes_a_mask_of_its_size(cli: Cli, cmu_slide: Path, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "mask.png"
    said = cli("segment", cmu_slide, "--output", target, "--region", 1000, 700, 130, 211, "--device", "cpu")
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith(f"{target}: 130 x 211 pixels, nucleus ")
    assert said.out.count("\n") == 1
    with Image.open(target) as image:
        assert (image.mode, image.size) == ("L", (211, 130))
    labels, info = read_labels(target)
    assert labels.max() <= 1
    assert info["offset"] == (1000, 700)
    assert info["mpp"] == pytest.approx(0.499)
    assert info["class_names"] == ("background", "nucleus")


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("form", ["png", "tif", "zarr"])
def test_an_image_keeps_its_size_whatever_the_models_resolution(cli: Cli, tmp_path: Path, form: str) -> None:
    source = tmp_path / "in.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (61, 83, 3), dtype=np.uint8)).save(source)
    target = tmp_path / f"out.{form}"
    assert cli("segment", source, "--output", target, "--mpp", 0.23).status == 0
    labels, info = read_labels(target)
    assert labels.shape == (61, 83)
    assert labels.dtype == np.uint8
    assert info["mpp"] == pytest.approx(0.23)


@pytest.mark.usefixtures("library")
def test_the_profile_in_a_file_is_applied_when_it_is_asked_for(cli: Cli, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (61, 83, 3), dtype=np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with_profile, without, target = (tmp_path / name for name in ("a.png", "b.png", "mask.tif"))
    Image.fromarray(pixels).save(with_profile, icc_profile=profile)
    Image.fromarray(pixels).save(without)
    common = ("--output", target, "--model", "plain", "--icc")
    said = cli("segment", with_profile, *common)
    assert said.status == 0
    assert "profile" not in said.err
    said = cli("segment", without, *common)
    assert said.status == 0
    assert "no colour profile" in said.err


@pytest.mark.usefixtures("library")
def test_a_slide_at_an_address_is_segmented(cli: Cli, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (61, 83, 3), dtype=np.uint8)
    makers.write_ome_zarr(tmp_path / "a.ome.zarr", [pixels], version="0.5", axes="cyx")
    target = tmp_path / "mask.png"
    with serve(tmp_path) as url:
        said = cli("segment", f"{url}/a.ome.zarr", "--output", target)
        gone = cli("segment", f"{url}/b.ome.zarr", "--output", target)
        many = cli("segment", f"{url}/a.ome.zarr", "--output", tmp_path / "many")
        refused = cli("segment", f"{url}/a.ome.zarr", "--output", tmp_path / "many", "--icc")
    assert said.status == 0
    assert read_labels(target)[0].shape == (61, 83)
    assert gone.status == 2
    assert f"{url}/b.ome.zarr" in gone.err
    assert (many.status, many.out.partition(": ")[2]) == (0, "1 of 1 slides are done\n")
    assert (tmp_path / "many" / "a.ome.zarr" / "zarr.json").is_file()
    assert refused.status == 2
    assert "--icc" in refused.err


@pytest.mark.usefixtures("library")
def test_a_model_without_a_resolution_takes_any_image(cli: Cli, tiles: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.tif"
    said = cli("segment", tiles / "images" / "t0.png", "--output", target, "--model", "plain")
    assert said.status == 0
    assert "gland" in said.out
    assert "lumen" in said.out
    assert read_labels(target)[0].shape == (96, 80)


@pytest.mark.usefixtures("library")
def test_objects_go_to_qupath_and_into_a_table_and_back(cli: Cli, cmu_slide: Path, tmp_path: Path) -> None:
    region = ("--region", 900, 500, 200, 240)
    polygons, ids, table, mask = (tmp_path / name for name in ("a.geojson", "b.tif", "c.csv", "d.png"))
    said = cli("segment", cmu_slide, "--output", polygons, *region)
    assert said.status == 0
    features = json.loads(polygons.read_text())["features"]
    assert f"{len(features)} objects" in said.out
    assert {feature["properties"]["objectType"] for feature in features} == {"detection"}

    assert cli("segment", cmu_slide, "--output", ids, "--instances", *region).status == 0
    labels, info = read_labels(ids)
    assert info["instances"]
    assert len(np.unique(labels)) - 1 == len(features)

    assert cli("export", polygons, "--output", table).out.strip() == str(table)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(features)
    assert all(900 <= float(row["centroid_y"]) < 1100 for row in rows)
    assert cli("export", polygons, "--output", mask).status == 0
    assert np.array_equal(read_labels(mask)[0], labels)


@pytest.mark.usefixtures("library")
def test_a_slide_without_resolution_is_asked_about(cli: Cli, data_dir: Path, tmp_path: Path) -> None:
    slide = data_dir / "slides" / "tcga-cr-7395-01a-01-ts1.svs"
    target, region = tmp_path / "out.png", ("--region", 500, 500, 64, 64)
    said = cli("segment", slide, "--output", target, *region)
    assert said.status == 2
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert "--mpp" in said.err
    assert slide.name in said.err
    assert not target.exists()
    assert cli("segment", slide, "--output", target, *region, "--mpp", 0.25).status == 0
    assert read_labels(target)[1]["mpp"] == 0.25


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("region", [(0, 0, 3000, 10), (-1, 0, 10, 10), (5000, 0, 10, 10), (0, 0, 0, 10)])
def test_a_region_must_lie_on_the_slide(
    cli: Cli, cmu_slide: Path, tmp_path: Path, region: tuple[int, ...]
) -> None:
    said = cli("segment", cmu_slide, "--output", tmp_path / "out.png", "--region", *region)
    assert said.status == 2
    assert "--region" in said.err
    assert said.err.count("\n") == 1


@pytest.mark.usefixtures("library")
def test_fluorescence_is_warned_of(cli: Cli, data_dir: Path, tmp_path: Path) -> None:
    slide = data_dir / "slides" / "test3-DAPI-2-(387).ndpi"
    said = cli("segment", slide, "--output", tmp_path / "out.png", "--region", 0, 0, 64, 64)
    assert said.status == 0
    assert said.err.startswith("warning: ")
    assert "H&E" in said.err
    assert said.err.count("\n") == 1


@pytest.mark.usefixtures("library")
def test_bad_input_is_told_in_one_line(cli: Cli, tiles: Path, tmp_path: Path) -> None:
    image, target = tiles / "images" / "t0.png", tmp_path / "out.png"
    broken = tmp_path / "broken.svs"
    broken.write_bytes(b"II*\0" + bytes(range(200)))
    for arguments, named in [
        ((image, "--output", tmp_path / "out.jpg"), "out.jpg"),
        ((tmp_path / "none.svs", "--output", target), "none.svs"),
        ((broken, "--output", target), "broken.svs"),
        ((image, "--output", target, "--mpp", 0.5, "--model", "unknown"), "unknown"),
        ((image, "--output", target, "--mpp", 0.5, "--model", "pretext"), "pretext"),
        ((image, "--output", target, "--mpp", 0.5, "--model", image), "t0.png"),
        ((image, "--output", target, "--mpp", -1), "--mpp"),
        ((image, "--output", target, "--mpp", 0.5, "--device", "abacus"), "abacus"),
        ((image, "--output", image, "--mpp", 0.5), "t0.png"),
        ((image, "--output", image / "below" / "out.png", "--mpp", 0.5), "out.png"),
    ]:
        said = cli("segment", *arguments)
        assert (said.status, said.out, said.err.count("\n")) == (2, "", 1), said
        assert said.err.startswith("error: ")
        assert named in said.err
    assert not target.exists()
    said = cli("export", tmp_path / "none.png", "--output", tmp_path / "x.geojson")
    assert (said.status, said.err.count("\n")) == (2, 1)


@pytest.mark.usefixtures("library")
def test_an_output_that_cannot_take_labels_is_refused_before_the_work(
    cli: Cli, cmu_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenting, "segment_region", lambda *_, **__: pytest.fail("it was computed"))
    (tmp_path / "file.zarr").write_text("something")
    (tmp_path / "folder.zarr").mkdir()
    (tmp_path / "folder.zarr" / "mine.txt").write_text("something")
    for name in ("file.zarr", "folder.zarr"):
        said = cli("segment", cmu_slide, "--output", tmp_path / name, "--region", 900, 500, 64, 64)
        assert (said.status, "is left as it is" in said.err) == (2, True)


@pytest.mark.usefixtures("library")
def test_objects_that_a_png_cannot_number_go_into_a_tiff(
    cli: Cli, cmu_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenting, "MOST_IN_PNG", 1)
    region = ("--region", 900, 500, 200, 240)
    said = cli("segment", cmu_slide, "--output", tmp_path / "a.png", "--instances", *region)
    assert said.status == 0
    assert "a-objects.tif" in said.err
    assert read_labels(tmp_path / "a-objects.tif")[0].max() > 1
    assert not (tmp_path / "a.png").exists()
