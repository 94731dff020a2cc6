"""Label maps in and out of files; the suffix says which kind."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.labelmap import LabelInfo, LabelMap

WRITABLE = (".png", ".tif", ".tiff", ".zarr", ".geojson", ".csv")
READABLE = (".png", ".bmp", ".tif", ".tiff", ".zarr", ".geojson", ".json")


def write_labels(
    path: str | Path,
    labels: NDArray[Any],
    *,
    mpp: float | None = None,
    class_names: tuple[str, ...] = (),
    instances: NDArray[Any] | None = None,
    offset: tuple[int, int] = (0, 0),
    downsample: float = 1.0,
    name: str = "",
) -> None:
    """Write a label map.

    Parameters
    ----------
    path : str or Path
        ``.png`` (8 or 16 bits), ``.tif`` (compressed tiles), ``.zarr`` (OME-Zarr 0.5; under the image where
        the path is one), ``.geojson`` (QuPath) or ``.csv`` (a table of the objects). An existing file is
        replaced.
    labels : ndarray of int, shape (height, width)
        Class of every pixel: 0 is background, 255 is not labelled.
    mpp : float, optional
        Micrometres per pixel of ``labels``.
    class_names : tuple of str
        Names of the classes from 0 (background) on.
    instances : ndarray of int, shape (height, width), optional
        Ids of the objects. Where they are given they are what is written, each with the class that most of
        its pixels have in ``labels``; otherwise the classes are.
    offset : tuple of int
        ``(y, x)`` of the first pixel, in level-0 pixels.
    downsample : float
        Level-0 pixels per pixel of ``labels``.
    name : str
        Name of the label group under an OME-Zarr image; ``labels`` by default.

    Raises
    ------
    UserError
        If the suffix is not one of those, the labels do not fit the format, or the file cannot be written.
    """
    path = Path(path)
    _suffix(path, WRITABLE)
    labels = np.asanyarray(labels)
    labels = labels.astype(np.uint8) if labels.dtype == bool else labels
    object_classes: dict[int, int] = {}
    if instances is not None:
        instances = np.asanyarray(instances)
        if instances.shape != labels.shape:
            raise ValueError(f"instances {instances.shape} and labels {labels.shape} differ in size")
        object_classes = {i: c for i, c in _majority(instances, labels).items() if c != 1}
    label_map = LabelMap(
        labels if instances is None else instances,
        mpp=mpp,
        class_names=tuple(class_names),
        offset=(int(offset[0]), int(offset[1])),
        downsample=downsample,
        instances=instances is not None,
        object_classes=object_classes,
    )
    _write(path, label_map, name=name)


def read_labels(
    path: str | Path,
    *,
    size: tuple[int, int] | None = None,
    class_names: tuple[str, ...] | None = None,
) -> tuple[NDArray[Any], LabelInfo]:
    """Read a label map.

    Parameters
    ----------
    path : str or Path
        ``.png``, ``.bmp``, ``.tif``, ``.geojson`` or an OME-Zarr folder.
    size : tuple of int, optional
        Height and width in which to draw GeoJSON that does not say.
    class_names : tuple of str, optional
        Names of the classes from 0 on, for GeoJSON.

    Returns
    -------
    labels : ndarray of int, shape (height, width)
        Classes, or ids of objects.
    info : LabelInfo
        ``mpp, class_names, offset, downsample, instances, object_classes``. Files of other programs that do
        not say are taken for instances where a label is above 255.

    Raises
    ------
    UserError
        If the suffix is not one of those, or the file is missing, damaged or holds no labels.
    """
    label_map = _read(Path(path), size=size, class_names=class_names)
    return label_map.labels, label_map.info


def convert(
    path_in: str | Path,
    path_out: str | Path,
    *,
    mpp: float | None = None,
    instances: bool | None = None,
    name: str = "",
) -> None:
    """Write the labels of one file as another kind of file.

    Parameters
    ----------
    path_in, path_out : str or Path
        See :func:`read_labels` and :func:`write_labels`.
    mpp : float, optional
        Micrometres per label pixel, where the file does not say or is wrong.
    instances : bool, optional
        Whether the labels are ids of objects rather than classes, where the file does not say or is wrong.
    name : str
        Name of the label group under an OME-Zarr image.

    Raises
    ------
    UserError
        As :func:`read_labels` and :func:`write_labels`.
    """
    path_out = Path(path_out)
    _suffix(path_out, WRITABLE)
    label_map = _read(Path(path_in), size=None, class_names=None)
    info = label_map.info
    if mpp is not None:
        info["mpp"] = mpp
    if instances is not None:
        info["instances"] = instances
    _write(path_out, LabelMap(label_map.labels, **info), name=name)


def _read(path: Path, *, size: tuple[int, int] | None, class_names: tuple[str, ...] | None) -> LabelMap:
    from napari_genselfdiff.exchange import geojson, omezarr, rasters

    if path.is_dir():
        return omezarr.read_ome_zarr(path)
    match _suffix(path, READABLE):
        case ".tif" | ".tiff":
            return rasters.read_tiff(path)
        case ".zarr":
            return omezarr.read_ome_zarr(path)
        case ".geojson" | ".json":
            return geojson.read_geojson(path, size=size, class_names=class_names)
        case _:
            return rasters.read_image(path)


def _write(path: Path, label_map: LabelMap, *, name: str) -> None:
    from napari_genselfdiff.exchange import geojson, omezarr, rasters, tables

    rasters.checked_labels(label_map.labels, path)
    match _suffix(path, WRITABLE):
        case ".png":
            rasters.write_png(path, label_map)
        case ".tif" | ".tiff":
            rasters.write_tiff(path, label_map)
        case ".zarr":
            omezarr.write_ome_zarr(path, label_map, name=name)
        case ".geojson":
            geojson.write_geojson(path, label_map)
        case _:
            tables.write_table(path, label_map)


def _suffix(path: Path, known: tuple[str, ...]) -> str:
    suffix = path.suffix.lower()
    if suffix not in known:
        raise UserError("labels cannot be kept in this kind of file", path, f"use {', '.join(known)}")
    return suffix


def _majority(instances: NDArray[Any], labels: NDArray[Any]) -> dict[int, int]:
    """Find the foreground class that most pixels of each object have."""
    from napari_genselfdiff.exchange.runs import bands

    total: Counter[int] = Counter()
    for top, ids in bands(instances):
        classes = np.asarray(labels[top : top + len(ids)])
        inside = (ids > 0) & (classes > 0) & (classes < 255)
        pairs, counts = np.unique(ids[inside].astype(np.int64) * 256 + classes[inside], return_counts=True)
        total.update(dict(zip(pairs.tolist(), counts.tolist(), strict=True)))
    # of an object's classes the last one stays: the one of the most pixels, of equals the higher
    return {pair // 256: pair % 256 for pair in sorted(total, key=lambda pair: (total[pair], pair))}
