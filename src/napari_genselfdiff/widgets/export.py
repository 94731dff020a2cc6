"""Labels of the view, taken away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event as Flag
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QFileDialog

from napari_genselfdiff.events import Event, Finished, Progress
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.widgets.objects import ObjectReader
from napari_genselfdiff.widgets.opening import Opening
from napari_genselfdiff.widgets.running import Runner
from napari_genselfdiff.widgets.segmenting import NOT_IN_VIEW
from napari_genselfdiff.workers import PATIENCE_SECONDS

if TYPE_CHECKING:
    from napari_genselfdiff.segmentation.gestures import Objects
    from napari_genselfdiff.session import Session


OF_OBJECTS = (".geojson", ".csv")
"""Files of single objects, where the model knows such; masks hold classes."""
LARGEST = 100
"""Megapixels that are saved at once: all of them, and their objects, are held in memory."""
TOO_LARGE = (
    "The view is too large to be saved at once: {size:,.0f} megapixels, and {most} can be. Zoom in; on the "
    "command line, napari-genselfdiff segment saves a whole slide, and session export what was drawn."
)


class Exporting(QObject):
    """Saves the labels of the view in a file that the user names.

    Parameters
    ----------
    opening : Opening
    runner : Runner
    """

    def __init__(self, opening: Opening, runner: Runner) -> None:
        super().__init__()
        self.opening, self.runner = opening, runner
        self._read = Flag()
        self._read.set()
        opening.leaving.connect(self._wait)
        runner.status.export_clicked.connect(self.export)

    def export(self) -> None:
        """Ask for a file, and save what is in view there."""
        session, layers = self.opening.session, self.opening.layers
        region = layers.visible_region() if layers is not None else None
        if session is None or layers is None or region is None:
            self.runner.explain(NOT_IN_VIEW)
            return
        size = region.height * region.width / 1e6
        if size > LARGEST:
            self.runner.explain(TOO_LARGE.format(size=size, most=LARGEST))
            return
        name, _ = QFileDialog.getSaveFileName(
            self.runner.status,
            "Export the view's labels",
            f"{session.slide.name}.geojson",
            "QuPath GeoJSON (*.geojson);;Mask (*.png *.tif);;OME-Zarr (*.zarr);;Table (*.csv)",
        )
        if not name:
            self.runner.explain("Nothing was saved.")
            return
        layers.finish_edits()
        self.opening.guarded(lambda: self._start(session, region, Path(name)))

    def _start(self, session: Session, region: Region, path: Path) -> None:
        view = _View(session, region, path)
        self._read = read = Flag()

        def work() -> Iterator[Event]:
            try:
                yield Progress(0, 0, "saving the view's labels")
                view.read()
            finally:
                read.set()
            yield Finished(message=view.write())

        self.runner.start(
            lambda _cancel: work(), on_finished=lambda event: self.runner.status.show_idle(event.message)
        )

    def _wait(self) -> None:
        """Let the slide be read to its end before another one is looked at."""
        if self.runner.job is not None:
            self._read.wait(PATIENCE_SECONDS)


class _View:
    """Labels of a region on their way into a file; made in the thread that owns the session."""

    def __init__(self, session: Session, region: Region, path: Path) -> None:
        self._session, self._region, self._path = session, region, path
        self._slide, self._classes = session.slide, session.classes
        self._reader: ObjectReader | None = None
        if path.suffix.lower() in OF_OBJECTS:
            self._reader = ObjectReader(session, session.predictions)
            self._reader.prepare()
        self._objects: Objects | None = None

    def read(self) -> None:
        """Read the slide that is looked at; in any thread."""
        region = self._region
        self._labels = self._session.labels(0, region.y, region.x, region.height, region.width)
        if self._reader is not None and self._reader.instances:
            self._objects = self._reader.read(0, region)

    def write(self) -> str:
        """Write what was read; returns what was done, in plain words."""
        from napari_genselfdiff.exchange.labels import write_labels

        write_labels(
            self._path,
            self._labels,
            mpp=self._slide.mpp,
            class_names=self._classes,
            instances=_numbers(self._objects, self._labels) if self._objects is not None else None,
            offset=(self._region.y, self._region.x),
            name=self._slide.name,
        )
        return f"Saved {self._path}"


def export_view(session: Session, region: Region, path: Path) -> str:
    """Write the labels of a region; returns what was done, in plain words."""
    view = _View(session, region, path)
    view.read()
    return view.write()


def _numbers(found: Objects, labels: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Number of the object of each pixel."""
    from skimage.segmentation import expand_labels

    # Objects are told apart in the model's pixels; their rims follow what is drawn at full resolution.
    ids = expand_labels(found.cells.spread(found.ids), distance=2 * max(1.0, found.cells.size))
    return np.where(labels > 0, ids, 0).astype(np.int32)
