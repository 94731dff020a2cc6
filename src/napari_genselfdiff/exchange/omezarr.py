"""Labels as OME-Zarr 0.5: beside the image that they belong to, or on their own."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.labelmap import (
    HEADER_KEY,
    IGNORED,
    LabelInfo,
    LabelMap,
    color_of,
    looks_like_instances,
    parse_info,
    smallest_dtype,
)
from napari_genselfdiff.exchange.rasters import checked_labels
from napari_genselfdiff.files import sync_directory, write_text
from napari_genselfdiff.slides.colours import UNREADABLE

VERSION = "0.5"
CHUNK = 1024


def write_ome_zarr(path: Path, label_map: LabelMap, *, name: str = "") -> None:
    """Write a pyramid of labels.

    Parameters
    ----------
    path : Path
        An OME-Zarr 0.5 image, under which the labels go; or labels to replace; or a path that does not
        exist.
    label_map : LabelMap
    name : str
        Name of the label group; ``labels`` by default.

    Raises
    ------
    UserError
        If there is something else at the path, or it cannot be written.
    """
    name = name or "labels"
    target = checked_target(path, name=name)
    under_image = target != path
    if under_image and label_map.mpp is None:
        mpp = _mpp_of(_attributes(path))
        label_map = replace(label_map, mpp=mpp and mpp * label_map.downsample)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            _write_group(temporary / "new", label_map, target.stem, under_image=under_image)
            _replace(target, temporary / "new", temporary / "old")
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        if under_image:
            _list_label(target.parent, name)
    except OSError as error:
        raise UserError(
            f"the labels could not be written ({error.strerror or error})",
            target,
            "check the folder and the free space",
        ) from error


def checked_target(path: Path, *, name: str) -> Path:
    """Where labels go that are written to a path: there, or under the image that lies there.

    Raises
    ------
    UserError
        If there is something else, or the image cannot hold them.
    """
    if Path(name).name != name or name.startswith("."):
        raise UserError("this is not a name for labels", name, "use letters, digits, - and _")
    attributes = _attributes(path)
    under_image = "multiscales" in attributes and "image-label" not in attributes
    if under_image and not (path / "zarr.json").exists():
        raise UserError(
            "the image is OME-Zarr 0.4, which cannot hold labels of 0.5", path, "write the labels elsewhere"
        )
    target = path / "labels" / name if under_image else path
    if target.exists() and "image-label" not in _attributes(target):
        raise UserError(
            "this is not an OME-Zarr label image and is left as it is", target, "choose another name"
        )
    return target


def read_ome_zarr(path: Path) -> LabelMap:
    """Read the finest level of labels (OME-Zarr 0.4 or 0.5).

    Parameters
    ----------
    path : Path
        A label image, or an image that has exactly one.

    Raises
    ------
    UserError
        If there is none, there are several, or they are damaged.
    """
    import zarr

    if not path.exists():
        raise UserError("there is no such folder", path, "check the path")
    attributes = _attributes(path)
    names = label_names(path)
    if "image-label" not in attributes and names:
        if len(names) > 1:
            listed = ", ".join(names)
            raise UserError(f"the image has several label images ({listed})", path, f"add /labels/{names[0]}")
        path = path / "labels" / names[0]
        attributes = _attributes(path)
    try:
        multiscale = attributes["multiscales"][0]
        dataset = multiscale["datasets"][0]
        pixels = np.asarray(zarr.open_array(path / dataset["path"], mode="r")[...])
    except (*UNREADABLE, AttributeError) as error:  # the codecs' errors are RuntimeErrors
        damaged = "multiscales" in attributes
        raise UserError(
            "the labels could not be read" if damaged else "the folder holds no OME-Zarr labels",
            path,
            "they are damaged: copy or export them again" if damaged else "check the path",
        ) from error
    labels = checked_labels(pixels, path)
    info = parse_info(attributes.get(HEADER_KEY))
    if info is not None:
        return LabelMap(labels, **info)
    mpp = _mpp_of(attributes)
    shift = _transformation(multiscale, "translation") if mpp else None
    offset = (round(shift[-2] / mpp), round(shift[-1] / mpp)) if shift and mpp else (0, 0)
    return LabelMap(labels, mpp=mpp, offset=offset, instances=looks_like_instances(labels))


def label_names(image: Path) -> list[str]:
    """Names of the label images that an image lists."""
    return [str(name) for name in _attributes(image / "labels").get("labels", [])]


def stored_info(label: Path) -> LabelInfo | None:
    """What labels of ours say about themselves; None for those of other programs."""
    return parse_info(_attributes(label).get(HEADER_KEY))


def _write_group(path: Path, label_map: LabelMap, name: str, *, under_image: bool) -> None:
    import zarr

    labels = smallest_dtype(label_map.labels)
    levels = [labels]
    while max(levels[-1].shape) > CHUNK:
        levels.append(levels[-1][::2, ::2])
    size = label_map.mpp or label_map.downsample
    shift = [start * size / label_map.downsample for start in label_map.offset]
    # A coarse pixel is the first of the finer ones that it stands for, so all levels start at one place.
    datasets = [
        {
            "path": str(index),
            "coordinateTransformations": [
                {"type": "scale", "scale": [size * 2**index, size * 2**index]},
                {"type": "translation", "translation": shift},
            ],
        }
        for index in range(len(levels))
    ]
    unit = {"unit": "micrometer"} if label_map.mpp else {}
    image_label: dict[str, Any] = {"properties": _properties(label_map, labels)}
    if not label_map.instances:
        values = [entry["label-value"] for entry in image_label["properties"]]
        image_label["colors"] = [{"label-value": v, "rgba": [*color_of(v), 255]} for v in values]
    image_label = {key: entries for key, entries in image_label.items() if entries}
    if under_image:
        image_label["source"] = {"image": "../../"}
    ome = {
        "version": VERSION,
        "multiscales": [
            {
                "name": name,
                "type": "nearest",
                "axes": [{"name": axis, "type": "space", **unit} for axis in "yx"],
                "datasets": datasets,
            }
        ],
        "image-label": image_label,
    }
    group = zarr.create_group(path, zarr_format=3, attributes={"ome": ome, HEADER_KEY: dict(label_map.info)})
    for index, level in enumerate(levels):
        chunks = (min(CHUNK, max(1, level.shape[0])), min(CHUNK, max(1, level.shape[1])))
        array = group.create_array(
            str(index), shape=level.shape, chunks=chunks, dtype=level.dtype, dimension_names=("y", "x")
        )
        array[...] = level


def _properties(label_map: LabelMap, labels: NDArray[Any]) -> list[dict[str, Any]]:
    """Class of every label."""
    values = [int(value) for value in np.unique(labels) if value]
    return [
        {
            "label-value": value,
            "class": "not labelled"
            if value == IGNORED and not label_map.instances
            else label_map.name_of(label_map.class_of(value)),
        }
        for value in values
    ]


def _replace(target: Path, new: Path, old: Path) -> None:
    """Put a folder in the place of another, or leave that as it was."""
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    sync_directory(target.parent)


def _list_label(folder: Path, name: str) -> None:
    """Add a label group to the list that stands in ``labels/zarr.json``."""
    file = folder / "zarr.json"
    metadata = _metadata(file) or {"zarr_format": 3, "node_type": "group", "attributes": {}}
    ome = metadata.setdefault("attributes", {}).setdefault("ome", {"version": VERSION})
    names = ome.setdefault("labels", [])
    if name not in names:
        names.append(name)
        write_text(file, json.dumps(metadata, indent=2))


def _attributes(path: Path) -> dict[str, Any]:
    """OME metadata of a group, version 0.5 or 0.4; empty where there is none."""
    attributes = (_metadata(path / "zarr.json") or {}).get("attributes", {})
    if "ome" in attributes:
        ours = {HEADER_KEY: attributes[HEADER_KEY]} if HEADER_KEY in attributes else {}
        return {**attributes["ome"], **ours}
    return _metadata(path / ".zattrs") or {}


def _metadata(file: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    return content if isinstance(content, dict) else None


def _transformation(multiscale: dict[str, Any], kind: str) -> list[float] | None:
    for transformation in multiscale["datasets"][0].get("coordinateTransformations", []):
        if transformation.get("type") == kind:
            return [float(value) for value in transformation[kind]]
    return None


def _mpp_of(attributes: dict[str, Any]) -> float | None:
    """Micrometres per pixel, where the x axis is in micrometres."""
    multiscale = attributes["multiscales"][0]
    scale = _transformation(multiscale, "scale")
    axes = multiscale.get("axes", [])
    in_micrometres = bool(axes) and isinstance(axes[-1], dict) and axes[-1].get("unit") == "micrometer"
    return scale[-1] if scale and in_micrometres else None
