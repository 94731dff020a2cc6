"""Labels of the view, taken away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtWidgets import QFileDialog, QWidget

from napari_genselfdiff.geometry import Region
from napari_genselfdiff.widgets.objects import ObjectReader

if TYPE_CHECKING:
    from napari_genselfdiff.session import Session


OF_OBJECTS = (".geojson", ".csv")
"""Files of single objects, where the model knows such; masks hold classes."""


def export_view(session: Session, region: Region, path: Path) -> str:
    """Write the labels of a region; returns what was done, in plain words."""
    from napari_genselfdiff.exchange.labels import write_labels

    labels = session.labels(0, region.y, region.x, region.height, region.width)
    write_labels(
        path,
        labels,
        mpp=session.slide.mpp,
        class_names=session.classes,
        instances=_objects(session, region, labels) if path.suffix.lower() in OF_OBJECTS else None,
        offset=(region.y, region.x),
        name=session.slide.name,
    )
    return f"Saved {path}"


def _objects(session: Session, region: Region, labels: NDArray[np.uint8]) -> NDArray[np.int32] | None:
    """Number of the object of each pixel; None where the model does not tell objects apart."""
    from skimage.segmentation import expand_labels

    reader = ObjectReader(session, session.predictions)
    reader.prepare()
    if not reader.instances:
        return None
    found = reader.read(0, region)
    # Objects are told apart in the model's pixels; their rims follow what is drawn at full resolution.
    ids = expand_labels(found.cells.spread(found.ids), distance=2 * max(1.0, found.cells.size))
    return np.where(labels > 0, ids, 0).astype(np.int32)


def ask_and_export(parent: QWidget, session: Session, region: Region) -> str:
    """Ask for a file and write the labels of a region; returns what was done, in plain words."""
    name, _ = QFileDialog.getSaveFileName(
        parent,
        "Export the view's labels",
        f"{session.slide.name}.geojson",
        "QuPath GeoJSON (*.geojson);;Mask (*.png *.tif);;OME-Zarr (*.zarr);;Table (*.csv)",
    )
    return export_view(session, region, Path(name)) if name else "Nothing was saved."
