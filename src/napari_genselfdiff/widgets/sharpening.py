"""Layers of slides are drawn again when tiles have come."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import napari
from napari.layers import Image
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QApplication

from napari_genselfdiff.contributions import preferences
from napari_genselfdiff.slides.cache import TILES
from napari_genselfdiff.slides.progressive import ProgressiveSlide

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_genselfdiff.slides import Slide

STILL_MS = 100
"""A view that moves is not drawn again between two of its steps, which show what has come anyway."""


def progressive_levels(slide: Slide) -> list[Any]:
    """Levels of a slide for an image layer, which is drawn again as they sharpen.

    To be called in the thread of the interface.
    """
    _follow_preferences()
    view = ProgressiveSlide(slide)
    redraw = _Redraw(view, QApplication.instance())
    weakref.finalize(view, _drop, redraw)
    return list(view.levels)


def _drop(redraw: _Redraw) -> None:
    with suppress(RuntimeError):  # deleted with the application
        redraw.deleteLater()


def _follow_preferences() -> None:
    """Bound the cache as the user says in Preferences, now and when that changes."""
    wishes = preferences()
    if wishes is not None:
        _bound_cache()
        wishes.events.cache_megabytes.connect(_bound_cache)  # of the same function one connection is kept


def _bound_cache(_event: Any = None) -> None:
    wishes = preferences()
    if wishes is not None:
        TILES.max_bytes = int(wishes.cache_megabytes) * 2**20


class _Redraw(QObject):
    """Draws the layers of one slide again, in the thread of the interface."""

    _news = Signal()
    _overview = Signal()
    _damaged = Signal(str)

    def __init__(self, view: ProgressiveSlide, parent: QObject | None) -> None:
        super().__init__(parent)  # which owns it: a thread that forgets it last must not delete it
        self._view = weakref.ref(view)
        self._finest = weakref.ref(view.levels[0])
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._redraw)
        self._news.connect(self._wait)
        self._overview.connect(self._anew)
        self._damaged.connect(show_warning)
        view.loaded.connect(self._news.emit)
        view.overview_loaded.connect(self._overview.emit)
        view.damaged.connect(self._damaged.emit)

    def _wait(self) -> None:
        if not self._timer.isActive():
            self._redraw()

    def _redraw(self) -> None:
        view = self._view()
        if view is None or view.is_shown():
            return  # what came was fetched ahead
        left = STILL_MS - int(1000 * view.seconds_still)
        if left > 0 or not view.is_sharp():
            self._timer.start(max(left, STILL_MS // 2))
            if left > 0:
                return
        for layer in self._layers():
            layer.refresh(extent=False, thumbnail=False, highlight=False)

    def _anew(self) -> None:
        # napari keeps the coarsest level of multiscale data in memory until the data is assigned anew.
        for layer in self._layers():
            layer.data = list(layer.data)

    def _layers(self) -> Iterator[Image]:
        # The slide's viewer need not be the one in front. napari has no public list of them: of a version
        # without this one, it is the viewer in front.
        front = napari.current_viewer()
        for viewer in list(getattr(napari.Viewer, "_instances", [front] if front is not None else [])):
            for layer in viewer.layers:
                if isinstance(layer, Image) and layer.multiscale and layer.data[0] is self._finest():
                    yield layer
