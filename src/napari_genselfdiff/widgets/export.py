"""Labels of the view, taken away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog, QWidget

from napari_genselfdiff.geometry import Region

if TYPE_CHECKING:
    from napari_genselfdiff.session import Session


def export_view(session: Session, region: Region, path: Path) -> str:
    """Write the labels of a region; returns what was done, in plain words."""
    from napari_genselfdiff.exchange.labels import write_labels

    labels = session.labels(0, region.y, region.x, region.height, region.width)
    write_labels(
        path,
        labels,
        mpp=session.slide.mpp,
        class_names=session.classes,
        offset=(region.y, region.x),
        name=session.slide.name,
    )
    return f"Saved {path}"


def ask_and_export(parent: QWidget, session: Session, region: Region) -> str:
    """Ask for a file and write the labels of a region; returns what was done, in plain words."""
    name, _ = QFileDialog.getSaveFileName(
        parent,
        "Export the view's labels",
        f"{session.slide.name}.geojson",
        "QuPath GeoJSON (*.geojson);;Mask (*.png *.tif);;OME-Zarr (*.zarr);;Table (*.csv)",
    )
    return export_view(session, region, Path(name)) if name else "Nothing was saved."
