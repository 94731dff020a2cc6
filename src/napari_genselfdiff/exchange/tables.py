"""Counts, areas and shapes of objects as a table (CSV)."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from napari_genselfdiff.exchange.labelmap import IGNORED, LabelMap
from napari_genselfdiff.files import atomic_path


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
    from skimage.measure import label, regionprops_table

    labels = label_map.labels
    if label_map.instances:
        ids = labels.astype(np.int64)
    else:
        ids = label(np.where(labels == IGNORED, 0, labels), background=0, connectivity=1)
    properties = ("label", "area", "perimeter", "centroid", "eccentricity", "solidity")
    measured = regionprops_table(ids, properties=properties)
    numbers = measured["label"].tolist()
    present, first = np.unique(ids, return_index=True)
    value_at = dict(zip(present.tolist(), labels.ravel()[first].tolist(), strict=True))
    table: dict[str, list[Any]] = {
        "id": numbers,
        "class": [label_map.name_of(label_map.class_of(value_at[number])) for number in numbers],
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


def write_table(path: Path, label_map: LabelMap) -> None:
    """Write :func:`object_table` as CSV, numbers with 6 digits."""
    table = object_table(label_map)
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        for row in zip(*table.values(), strict=True):
            writer.writerow([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row])
