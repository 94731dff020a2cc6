"""Single objects in the editable window: what they are, and their outlines."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.geometry import Region, layer_shape
from napari_genselfdiff.widgets.own import OWN
from napari_genselfdiff.workers import Queue

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

    from napari_genselfdiff.annotations import Change
    from napari_genselfdiff.segmentation.cells import Cells
    from napari_genselfdiff.segmentation.gestures import Objects
    from napari_genselfdiff.segmentation.store import PredictionStore
    from napari_genselfdiff.session import Session
    from napari_genselfdiff.widgets.corrections import CorrectionWindow
    from napari_genselfdiff.widgets.placing import Place

OUTLINES_NAME = "objects"
TOO_COARSE = 4.0
"""Model pixels a pixel of the window, beyond which single objects cannot be told apart."""
REACH = 48
"""Cells around a place that are seen with it, at least; and, if that is known, the usual object's width."""
TILE = 512
"""Outlines are found in squares of so many pixels of the window."""
SOON_MS = 50
"""Outlines follow what was drawn when nothing was drawn for so long."""
LINE, PREVIEW = 1, 2
COLOURS: dict[int | None, str] = {None: "transparent", LINE: "#000000", PREVIEW: "#00FFFF"}


@dataclass(frozen=True)
class _Model:
    """What is known of the model in use."""

    store: PredictionStore | None = None
    instances: bool = False
    area: float | None = None

    def scale(self, layer: int) -> float:
        """Level-0 pixels a model pixel; those of the layer without a model."""
        return self.store.scale if self.store is not None else float(2**layer)


class ObjectReader:
    """Reads single objects, as the model and the person say together. Safe in any thread, but `prepare`.

    Parameters
    ----------
    session : Session
    predictions : callable
        The store of the model in use, or None.
    """

    def __init__(self, session: Session, predictions: Callable[[], PredictionStore | None]) -> None:
        self._session, self._predictions = session, predictions
        self._model = _Model()

    def prepare(self) -> None:
        """Look at the model in use; called in the thread that owns the session."""
        if self._session.current is None:
            self._model = _Model()
            return
        spec = self._session.segmenter().spec
        self._model = _Model(self._predictions(), spec.instances, spec.object_area)

    @property
    def instances(self) -> bool:
        """Whether the model in use knows single objects."""
        return self._model.instances

    def reach(self, layer: int) -> int:
        """Pixels of a layer around a place that are to be seen with it."""
        cells = max(REACH, round(2 * math.sqrt(self._model.area or 0)))
        return math.ceil(cells * max(1.0, self._model.scale(layer) / (1 << layer)))

    def can_see(self, layer: int) -> bool:
        """Whether a window of this magnification is fine enough."""
        return not self.instances or 2**layer <= TOO_COARSE * self._model.scale(layer)

    def read(self, layer: int, box: Region) -> Objects:
        """The objects of a place.

        Parameters
        ----------
        layer : int
        box : Region
            In that layer's pixels, on the slide.
        """
        from napari_genselfdiff.annotations import is_joined
        from napari_genselfdiff.segmentation.cells import Cells
        from napari_genselfdiff.segmentation.gestures import Objects
        from napari_genselfdiff.segmentation.instances import label_instances, separation

        session, model = self._session, self._model
        cells = Cells.over(layer, box, model.scale(layer), session.slide.shape)
        classes = session.labels(layer, box.y, box.x, box.height, box.width)
        joined = cells.sampled(is_joined(session.annotations.read(layer, box)))
        foreground = cells.sampled(classes) > 0
        core = _core(model.store, cells) if model.instances else None
        ids = label_instances(
            foreground,
            foreground if core is None or not core.any() else core / np.float32(255),
            separation(model.area, scale=cells.scale),
            joined=joined,
        )
        return Objects(cells, classes, ids, joined)


def _core(store: PredictionStore | None, cells: Cells) -> NDArray[np.uint8] | None:
    """The model's map of cores in cells."""
    if store is None:
        return None
    rows, columns = (np.minimum(side, end - 1) for side, end in zip(cells.model, store.grid, strict=True))
    y, x = int(rows[0]), int(columns[0])
    part = store.core(Region(y, x, int(rows[-1]) - y + 1, int(columns[-1]) - x + 1))
    here: NDArray[np.uint8] = part[np.ix_(rows - y, columns - x)]
    return here


class Outlines(QObject):
    """A layer over the editable window that shows where one object ends and the next begins.

    Parameters
    ----------
    viewer : Viewer
    window : CorrectionWindow
    reader : ObjectReader

    Attributes
    ----------
    layer : Labels or None
        None after the user removed it.
    """

    failed = Signal(str)
    _heard = Signal(object)  # from the thread that draws to that of the interface

    def __init__(self, viewer: Viewer, window: CorrectionWindow, reader: ObjectReader) -> None:
        super().__init__()
        self._viewer, self._window, self._reader = viewer, window, reader
        self._queue = Queue()  # of its own: strokes on their way to the disk do not wait for outlines
        self._round = 0
        self._wanted: set[Region] = set()  # parts that are not shown as they are now
        self._place: Place | None = None
        self._lines = np.zeros((0, 0), np.uint8)
        self._previewed: tuple[NDArray[np.intp], ...] = ()
        self._always = False
        self.layer: Labels | None = self._add()
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(SOON_MS)
        self._soon.timeout.connect(self._find)
        self._heard.connect(self._changed)
        window.session.annotations.changed.connect(self._hear)
        window.shown.connect(self.look_again)
        viewer.scene.camera.events.connect(self._moved)
        viewer.layers.events.removed.connect(self._removed)
        self.look_again()

    def look_again(self, _along: object = None) -> None:
        """Find all outlines anew: the window moved, or what the model says changed."""
        window = self._window
        if self._place is not window.place:
            self._place = window.place
            self._lines = np.zeros(window.layer.data.shape, np.uint8)
            self._previewed = ()
            if self.layer is not None:
                self.layer.data = self._lines.copy()
                self.layer.scale, self.layer.translate = window.layer.scale, window.layer.translate
        self._wanted = set(self._tiles())
        self._soon.start()

    def show_always(self, always: bool) -> None:
        """Show them though the model in use does not know single objects, or only if it does."""
        if always != self._always:
            self._always = always
            if not self._reader.instances:
                self.look_again()

    def preview(self, path: NDArray[np.float64], *, closed: bool = False) -> None:
        """Show where a stroke went, ``(y, x)`` in the window's pixels; nothing when it is empty."""
        if self.layer is None:
            return
        self._put(self._previewed, self._lines[self._previewed] if self._previewed else 0)
        self._previewed = _pixels(path, self._lines.shape, closed=closed) if len(path) else ()
        self._put(self._previewed, PREVIEW)

    def close(self) -> None:
        """Follow the window no more, and take the layer away."""
        self._round += 1
        self._soon.stop()
        self._window.session.annotations.changed.disconnect(self._hear)
        self._window.shown.disconnect(self.look_again)
        self._viewer.scene.camera.events.disconnect(self._moved)
        self._viewer.layers.events.removed.disconnect(self._removed)
        self._queue.close()
        layer, self.layer = self.layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _add(self) -> Labels:
        """Add the layer right above the window; who was drawing goes on drawing."""
        layers, under = self._viewer.layers, self._window.layer
        active = layers.selection.active
        layer = self._viewer.add_labels(
            np.zeros(under.data.shape, np.uint8),
            name=OUTLINES_NAME,
            metadata=OWN,
            scale=under.scale,
            translate=under.translate,
            units=under.units,
            opacity=0.8,
            colormap=COLOURS,
        )
        layer.editable = False
        layers.move(layers.index(layer), layers.index(under) + 1)
        layers.selection.active = active
        return layer

    def _hear(self, change: Change) -> None:
        self._heard.emit(change)

    def _changed(self, change: Change) -> None:
        """Find again what lies around something that was drawn."""
        place = self._window.place
        width, reach = 2.0 ** (change.layer - place.layer), self._reader.reach(place.layer)
        y, x = int(change.y * width) - place.y, int(change.x * width) - place.x
        near = Region(y, x, int(change.height * width) + 1, int(change.width * width) + 1).grown(reach)
        inside = near.clipped(*self._lines.shape)
        if inside is not None and max(inside.height, inside.width) <= TILE:
            self._wanted.add(inside)
        else:
            self._wanted |= {tile for tile in self._tiles() if tile.intersection(near) is not None}
        self._soon.start()

    def _moved(self, _event: object = None) -> None:
        if self._wanted:
            self._soon.start()

    def _removed(self, event: object) -> None:
        if self.layer is not None and self.layer not in self._viewer.layers:
            self.layer = None

    def _tiles(self) -> list[Region]:
        height, width = self._lines.shape
        corners = [(y, x) for y in range(0, height, TILE) for x in range(0, width, TILE)]
        return [Region(y, x, min(TILE, height - y), min(TILE, width - x)) for y, x in corners]

    def _find(self) -> None:
        """Find the outlines that are wanted and in view, the middle first."""
        self._round += 1
        place, turn, view = self._window.place, self._round, self._window.part_in_view()
        if self.layer is None or view is None or place is not self._place:
            return
        try:
            self._reader.prepare()
        except UserError as error:
            self.failed.emit(str(error))
            return
        if not (self._reader.instances or self._always) or not self._reader.can_see(place.layer):
            if self._lines.any():
                self._lines[:] = 0
                self.layer.data = self._lines.copy()
            return
        middle = np.array(view.centre)
        tiles = [tile for tile in self._wanted if tile.intersection(view) is not None]
        for tile in sorted(tiles, key=lambda tile: float(np.linalg.norm(tile.centre - middle))):
            self._queue.submit(
                partial(self._lines_of, turn, place, tile),
                partial(self._show, turn, place, tile),
                self.failed.emit,
            )

    def _lines_of(self, turn: int, place: Place, tile: Region) -> NDArray[np.uint8] | None:
        """Lines between objects in a tile: the last pixel before another object, to the right or below."""
        if turn != self._round:
            return None
        reach = self._reader.reach(place.layer)
        here = Region(place.y + tile.y, place.x + tile.x, tile.height, tile.width)
        box = here.grown(reach).clipped(*layer_shape(self._window.session.slide.shape, place.layer))
        assert box is not None
        there = self._reader.read(place.layer, box)
        ids = there.cells.spread(there.ids)
        lines = np.zeros(ids.shape, np.uint8)
        lines[:-1] |= ids[:-1] != ids[1:]
        lines[:, :-1] |= ids[:, :-1] != ids[:, 1:]
        y, x = here.y - box.y, here.x - box.x
        return lines[y : y + tile.height, x : x + tile.width]

    def _show(self, turn: int, place: Place, tile: Region, lines: NDArray[np.uint8] | None) -> None:
        if lines is None or turn != self._round or place is not self._place or self.layer is None:
            return
        self._wanted.discard(tile)
        part = np.s_[tile.y : tile.bottom, tile.x : tile.right]
        if not np.array_equal(self._lines[part], lines):
            self._lines[part] = lines
            self.layer.data[part] = lines
            if self._previewed:
                self.layer.data[self._previewed] = PREVIEW
            self.layer.refresh(extent=False)

    def _put(self, pixels: tuple[NDArray[np.intp], ...], value: int | NDArray[np.uint8]) -> None:
        if self.layer is not None and pixels and pixels[0].size:
            self.layer.data_setitem(pixels, value)


def _pixels(
    path: NDArray[np.float64], shape: tuple[int, ...], *, closed: bool
) -> tuple[NDArray[np.intp], ...]:
    from napari_genselfdiff.segmentation.cells import line_between

    corners = np.rint(path).astype(np.intp)
    ends = [*corners, corners[0 if closed else -1]]
    pixels = np.unique(np.concatenate([line_between(*both) for both in pairwise(ends)]), axis=0)
    return tuple(pixels[((pixels >= 0) & (pixels < shape)).all(axis=1)].T)
