"""Labels as GeoJSON that QuPath opens and writes.

Coordinates are level-0 pixels ``(x, y)``, as QuPath has them; outlines follow pixel edges.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.labelmap import HEADER_KEY, IGNORED, LabelMap, color_of, parse_info
from napari_genselfdiff.exchange.outlines import fill_rings, trace_outlines
from napari_genselfdiff.files import atomic_path

IGNORED_NAME = "Ignore*"
"""QuPath's own class for what shall not count."""
UNCLASSIFIED = "Unclassified"
MEASUREMENT = "id"
MAX_PIXELS = 2**31

Ring = NDArray[np.float64]


def write_geojson(path: Path, label_map: LabelMap) -> None:
    """Write one feature for each object: an instance, or a connected part of a class."""
    header = {**label_map.info, "object_classes": {}, "size": label_map.labels.shape}
    # one by one: all of a slide's together may be more than memory holds
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"type":"FeatureCollection","features":[')
        for number, feature in enumerate(_features(label_map)):
            file.write("," if number else "")
            file.write(json.dumps(feature, separators=(",", ":")))
        file.write(f'],"{HEADER_KEY}":{json.dumps(header, separators=(",", ":"))}}}')


def _features(label_map: LabelMap) -> Iterator[dict[str, Any]]:
    outlines = enumerate(trace_outlines(label_map.labels, together=label_map.instances))
    # the parts of an object are one feature; each part of a class is one
    same = groupby(outlines, key=lambda each: each[1].value if label_map.instances else each[0])
    for _, parts in same:
        objects = [outline for _, outline in parts]
        polygons = [
            [[_level0(point, label_map) for point in ring] for ring in outline.rings] for outline in objects
        ]
        yield _feature(polygons, objects[0].value, label_map)


def read_geojson(
    path: Path, *, size: tuple[int, int] | None = None, class_names: tuple[str, ...] | None = None
) -> LabelMap:
    """Read features into a label map: a pixel belongs to the polygon that its centre lies in.

    Parameters
    ----------
    path : Path
    size : tuple of int, optional
        Height and width of the map. By default what the file says, or as far as its polygons reach.
    class_names : tuple of str, optional
        Names of the classes from 0 on. By default those that the file lists, or background and the names of
        its classifications in alphabetical order. Names that are not among them become further classes.

    Notes
    -----
    Larger polygons are drawn first, so that what lies on top of them stays visible. Points and lines have no
    area and are left out. Detections and cells are instances, as is everything in a file that has some.

    Raises
    ------
    UserError
        If the file is not GeoJSON, or the map would be too large.
    """
    collection = _load(path)
    header = collection.get(HEADER_KEY)
    info = parse_info(header)
    try:
        shapes = [
            (rings, dict(feature.get("properties") or {}))
            for feature in collection["features"]
            if (rings := list(_rings(feature.get("geometry") or {})))
        ]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UserError("a polygon of the file is damaged", path, "export it again from QuPath") from error
    detections = any(properties.get("objectType") in ("detection", "cell") for _, properties in shapes)
    instances = info["instances"] if info else detections
    (oy, ox), downsample = (info["offset"], info["downsample"]) if info else ((0, 0), 1.0)
    shapes = [([(ring - (ox, oy)) / downsample for ring in rings], props) for rings, props in shapes]
    shapes.sort(key=lambda shape: -abs(sum(_area(ring) for ring in shape[0])))
    everything = [ring for rings, _ in shapes for ring in rings]
    if not everything and info is None and size is None:
        raise UserError("the file holds no polygons", path, "draw some in QuPath, and export it again")
    if size is None:
        size = _size(header, everything)
        if size[0] * size[1] > MAX_PIXELS and info is None:
            # QuPath's places are the slide's, even where a small part of it was annotated
            ox, oy = (
                int(side) for side in np.floor(np.min([ring.min(axis=0) for ring in everything], axis=0))
            )
            shapes = [([ring - (ox, oy) for ring in rings], props) for rings, props in shapes]
            size = (size[0] - oy, size[1] - ox)
    if size[0] * size[1] > MAX_PIXELS:
        raise UserError(
            f"a map of {size[1]} x {size[0]} pixels is too large to draw",
            path,
            "select fewer objects in QuPath, which lie nearer to one another, and export these",
        )

    given = class_names or (info["class_names"] if info else ())
    found = {_name(properties) for _, properties in shapes} - {IGNORED_NAME}
    names = list(given) or ["background", *sorted(n for n in found if _plain_number(n) is None)]
    values: list[int] = []
    object_classes: dict[int, int] = {}
    highest = max((number for _, p in shapes if (number := _number(p))), default=0)
    for _, properties in shapes:
        index = _class_index(_name(properties), names)
        if instances:
            value = _number(properties) or (highest := highest + 1)
            if index != 1:
                object_classes[value] = index
        else:
            value = index
        values.append(value)
    if len(names) > IGNORED:
        raise UserError("the file has more than 254 classes", path, "merge some of them")
    labels = np.zeros(size, np.int32 if instances else np.uint8)
    for (rings, _), value in zip(shapes, values, strict=True):
        fill_rings(labels, rings, value)
    return LabelMap(
        labels,
        mpp=info["mpp"] if info else None,
        class_names=tuple(names) if len(names) > 1 or given else (),
        offset=(oy, ox),
        downsample=downsample,
        instances=instances,
        object_classes=object_classes,
    )


def _feature(polygons: list[Any], value: int, label_map: LabelMap) -> dict[str, Any]:
    index = label_map.class_of(value)
    ignored = index == IGNORED and not label_map.instances
    name = IGNORED_NAME if ignored else label_map.name_of(index)
    properties: dict[str, Any] = {
        "objectType": "detection" if label_map.instances else "annotation",
        "classification": {"name": name, "color": color_of(index)},
    }
    if label_map.instances:
        properties["measurements"] = {MEASUREMENT: value}
    single = len(polygons) == 1
    geometry = {
        "type": "Polygon" if single else "MultiPolygon",
        "coordinates": polygons[0] if single else polygons,
    }
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _level0(point: tuple[int, int], label_map: LabelMap) -> tuple[float, float]:
    y, x = label_map.offset
    if label_map.downsample == 1:
        return point[0] + x, point[1] + y
    return point[0] * label_map.downsample + x, point[1] * label_map.downsample + y


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError("there is no such file", path, "check the path") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError("the file could not be read", path, "it is damaged or not GeoJSON") from error
    if isinstance(content, list):  # QuPath without "export as FeatureCollection"
        content = {"type": "FeatureCollection", "features": content}
    if isinstance(content, dict) and content.get("type") == "Feature":
        content = {"type": "FeatureCollection", "features": [content]}
    if not isinstance(content, dict) or not isinstance(content.get("features"), list):
        raise UserError("the file holds no features", path, "export it from QuPath as GeoJSON")
    return content


def _rings(geometry: dict[str, Any]) -> Iterable[Ring]:
    kind = geometry.get("type")
    if kind == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from _rings(part)
    polygons = geometry["coordinates"] if kind in ("Polygon", "MultiPolygon") else []
    for polygon in [polygons] if kind == "Polygon" else polygons:
        for points in polygon:
            ring = np.asarray(points, np.float64)[:, :2]
            if not np.isfinite(ring).all():
                raise ValueError("a coordinate that is not a number")
            yield ring if (ring[0] == ring[-1]).all() else np.vstack([ring, ring[:1]])


def _area(ring: Ring) -> float:
    (x0, y0), (x1, y1) = ring[:-1].T, ring[1:].T
    return float((x0 * y1 - x1 * y0).sum() / 2)


def _size(header: Any, rings: list[Ring]) -> tuple[int, int]:
    size = header.get("size") if isinstance(header, dict) else None
    if (
        isinstance(size, list)
        and len(size) == 2
        and all(isinstance(side, int) and side >= 0 for side in size)
    ):
        return size[0], size[1]
    if not rings:
        return 0, 0
    right, bottom = np.ceil(np.max([ring.max(axis=0) for ring in rings], axis=0))
    return max(int(bottom), 0), max(int(right), 0)


def _name(properties: dict[str, Any]) -> str:
    classification = properties.get("classification")
    if isinstance(classification, dict):
        names = classification.get("names")  # of a derived class, since QuPath 0.4
        joined = ": ".join(map(str, names)) if isinstance(names, list) else None
        classification = classification.get("name") or joined
    return str(classification) if classification else UNCLASSIFIED


def _class_index(name: str, names: list[str]) -> int:
    """Look up the number of a class; add a name that is not known yet."""
    if name == IGNORED_NAME:
        return IGNORED
    number = _plain_number(name)
    if name not in names and number is not None:
        return number
    if name not in names:
        names.append(name)
    return names.index(name)


def _plain_number(name: str) -> int | None:
    """Read the number of ``class N``, the name of a class that was given none."""
    word, _, number = name.partition(" ")
    return int(number) if word == "class" and number.isdigit() and int(number) < IGNORED else None


def _number(properties: dict[str, Any]) -> int | None:
    """Id of an object that we wrote, which QuPath keeps among the measurements."""
    measurements = properties.get("measurements")
    if isinstance(measurements, list):  # QuPath before 0.4
        measurements = {m.get("name"): m.get("value") for m in measurements if isinstance(m, dict)}
    value = measurements.get(MEASUREMENT) if isinstance(measurements, dict) else None
    return int(value) if isinstance(value, int | float) and 0 < value < 2**31 else None
