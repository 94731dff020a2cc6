"""Counts, areas and shapes of objects as a table (CSV)."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.exchange.labelmap import IGNORED, LabelMap
from napari_genselfdiff.exchange.runs import BAND_PIXELS, bands, by_first, runs_of
from napari_genselfdiff.files import atomic_path

LARGEST_ID = 2**24
"""Measuring takes memory for every number up to the highest."""


def object_table(label_map: LabelMap) -> dict[str, list[Any]]:
    """Measure every object: an instance, or a 4-connected part of a class.

    Parameters
    ----------
    label_map : LabelMap

    Returns
    -------
    dict of str to list
        Columns ``id, class, area_px, area_um2, perimeter_um, centroid_x, centroid_y, eccentricity,
        solidity``; without ``mpp``, ``perimeter_px`` stands for the two in micrometres. Pixels of ``area_px``
        and ``perimeter_px`` are those of the label map; centroids are level-0 pixels, whose centres are
        whole numbers. Objects are in the order of their ids.
    """
    from skimage.measure import regionprops_table

    numbers, values = _objects(label_map)
    properties = ("label", "area", "perimeter", "centroid", "eccentricity", "solidity")
    measured = regionprops_table(numbers, properties=properties)
    found = measured["label"]
    of = found if values is None else values[found - 1]  # the label of each
    table: dict[str, list[Any]] = {
        "id": (of if label_map.instances else found).tolist(),
        "class": [label_map.name_of(label_map.class_of(value)) for value in of.tolist()],
        "area_px": measured["area"].astype(int).tolist(),
    }
    if label_map.mpp is None:
        table["perimeter_px"] = measured["perimeter"].tolist()
    else:
        table["area_um2"] = (measured["area"] * label_map.mpp**2).tolist()
        table["perimeter_um"] = (measured["perimeter"] * label_map.mpp).tolist()
    step = label_map.downsample
    for axis, name in ((1, "centroid_x"), (0, "centroid_y")):
        centres = measured[f"centroid-{axis}"] * step + (step - 1) / 2 + label_map.offset[axis]
        table[name] = centres.tolist()
    table["eccentricity"] = measured["eccentricity"].tolist()
    table["solidity"] = measured["solidity"].tolist()
    return table


def _objects(label_map: LabelMap) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Number of the object of each pixel, without gaps where ids are large, and the label of each object.

    A map of ids is not copied, and of another map the numbers alone are made: it may be as large as a slide.
    """
    labels = label_map.labels
    if label_map.instances:
        highest = max((int(band.max()) for _, band in bands(labels) if band.size), default=0)
        if highest <= LARGEST_ID:
            return labels, None
        values = np.unique(np.concatenate([np.unique(band) for _, band in bands(labels)]))
        values = values[values > 0]
        numbers = np.zeros(labels.shape, np.int32)
        for top, band in bands(labels):
            numbers[top : top + len(band)] = np.where(band > 0, np.searchsorted(values, band) + 1, 0)
        return numbers, values
    runs = runs_of(labels)
    counted = runs.value != IGNORED
    part = by_first(runs.part[counted])
    values = np.empty(int(part.max(initial=-1)) + 1, np.int64)
    values[part] = runs.value[counted]
    numbers = np.zeros(labels.shape, np.int32)
    first, last, flat = runs.first[counted], runs.last[counted], numbers.ravel()
    for begin in range(0, flat.size, BAND_PIXELS):
        low, high = np.searchsorted(last, begin), np.searchsorted(first, begin + BAND_PIXELS)
        band = flat[begin : begin + BAND_PIXELS]
        # a number comes with the first pixel of a run and goes behind its last
        change = np.zeros(len(band) + 1, np.int64)
        np.add.at(change, np.maximum(first[low:high] - begin, 0), part[low:high] + 1)
        np.subtract.at(change, np.minimum(last[low:high] + 1 - begin, len(band)), part[low:high] + 1)
        band[:] = np.cumsum(change[:-1])
    return numbers, values


def write_table(path: Path, label_map: LabelMap) -> None:
    """Write :func:`object_table` as CSV, numbers with 6 digits."""
    table = object_table(label_map)
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        for row in zip(*table.values(), strict=True):
            writer.writerow([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row])
