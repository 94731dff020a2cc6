"""Polygons for QuPath, and from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.exchange.test_label_files import NAMES, class_map

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.labels import convert, read_labels, write_labels


def test_qupath_reads_what_we_write(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.geojson", class_map(), class_names=NAMES, offset=(10, 1000))
    collection = json.loads((tmp_path / "a.geojson").read_text())
    assert collection["type"] == "FeatureCollection"
    by_name = {f["properties"]["classification"]["name"]: f for f in collection["features"]}
    assert set(by_name) == {"tumour", "stroma", "Ignore*"}
    stroma = by_name["stroma"]
    assert stroma["type"] == "Feature"
    assert stroma["properties"]["objectType"] == "annotation"
    assert len(stroma["properties"]["classification"]["color"]) == 3
    assert stroma["geometry"]["type"] == "Polygon"
    assert sorted(map(tuple, stroma["geometry"]["coordinates"][0][:-1])) == [
        (1006, 16),
        (1006, 22),
        (1012, 16),
        (1012, 22),
    ]
    assert len(by_name["tumour"]["geometry"]["coordinates"]) == 2  # an outside and a hole
    write_labels(tmp_path / "b.geojson", class_map() > 0, instances=(class_map() > 0) * 3)
    (feature,) = json.loads((tmp_path / "b.geojson").read_text())["features"]
    assert feature["properties"]["objectType"] == "detection"
    assert feature["geometry"]["type"] == "MultiPolygon"


def test_what_qupath_wrote_is_drawn(tmp_path: Path) -> None:
    def feature(name: str | None, points: list[list[float]], kind: str = "annotation") -> dict[str, object]:
        classification = {"classification": {"name": name, "color": [1, 2, 3]}} if name else {}
        geometry = {"type": "Polygon", "coordinates": [points]}
        return {"type": "Feature", "geometry": geometry, "properties": {"objectType": kind, **classification}}

    small, large = [[2, 2], [5, 2], [5, 4], [2, 4], [2, 2]], [[0, 0], [8, 0], [8, 6], [0, 6], [0, 0]]
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 1]}, "properties": {}}
    features = [feature("Tumor", small), feature("Stroma", large), point]
    path = tmp_path / "q.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    labels, info = read_labels(path)
    assert info["class_names"] == ("background", "Stroma", "Tumor")
    assert labels.shape == (6, 8)
    assert (labels[2:4, 2:5] == 2).all()  # the smaller one lies on top
    assert (labels == 1).sum() == 48 - 6
    labels, info = read_labels(path, size=(10, 20), class_names=("other", "Tumor", "Stroma"))
    assert labels.shape == (10, 20)
    assert (labels == 1).sum() == 6

    path.write_text(json.dumps([feature(None, small, "detection"), feature(None, large, "detection")]))
    labels, info = read_labels(path)
    assert info["instances"]
    assert set(np.unique(labels)) == {1, 2}


def test_geojson_of_a_whole_slide_is_not_drawn_by_accident(tmp_path: Path) -> None:
    ring = [[0, 0], [1e5, 0], [1e5, 1e5], [0, 1e5], [0, 0]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    path = tmp_path / "slide.geojson"
    path.write_text(json.dumps({"type": "Feature", "geometry": geometry, "properties": {}}))
    with pytest.raises(UserError, match="too large"):
        read_labels(path)


def test_damaged_polygons_are_told(tmp_path: Path) -> None:
    geometry = {"type": "Polygon", "coordinates": [[1, 2, 3]]}
    (tmp_path / "bad.geojson").write_text(json.dumps([{"type": "Feature", "geometry": geometry}]))
    with pytest.raises(UserError, match="polygon"):
        read_labels(tmp_path / "bad.geojson")


def test_a_small_part_of_a_large_slide_is_drawn_where_it_lies(tmp_path: Path) -> None:
    ring = [[70000, 50000], [70010, 50000], [70010, 50005], [70000, 50005], [70000, 50000]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    path = tmp_path / "slide.geojson"
    path.write_text(json.dumps({"type": "Feature", "geometry": geometry, "properties": {}}), "utf-8-sig")
    labels, info = read_labels(path)
    assert (labels.shape, info["offset"], labels.all()) == ((5, 10), (50000, 70000), True)


def test_derived_classes_of_qupath_stay_apart(tmp_path: Path) -> None:
    features = [
        {
            "type": "Feature",
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[x, 0], [x + 2, 0], [x + 2, 2], [x, 2], [x, 0]]],
            },
            "properties": {"classification": {"names": ["Tumour", name]}},
        }
        for x, name in ((0, "Positive"), (4, "Negative"))
    ]
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(features))
    labels, info = read_labels(path)
    assert info["class_names"] == ("background", "Tumour: Negative", "Tumour: Positive")
    assert (labels[0, 0], labels[0, 4]) == (2, 1)


def test_geojson_without_polygons_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(UserError, match="no polygons"):
        convert(path, tmp_path / "a.csv")
