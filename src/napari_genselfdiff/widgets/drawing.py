"""What is being drawn in a labels layer: the one place that looks into what napari keeps private."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer

if TYPE_CHECKING:
    from napari.layers import Labels

TOOLS = ("paint", "erase", "fill", "polygon")
"""Modes of a labels layer that change it."""
BRUSH = 10
"""Diameter of the brush at the start, in the layer's pixels; afterwards it keeps its size on the screen."""


@dataclass(frozen=True)
class Gestured:
    """What a gesture draws: codes of a box whose first pixel is ``(y, x)`` in a layer, and what it did."""

    layer: int
    y: int
    x: int
    codes: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    done: str


class Choice:
    """Keeps what is painted with among the labels that there are; napari's own controls reach any number.

    Parameters
    ----------
    layer : Labels
    there_is : callable
        Whether there is such a label.

    Attributes
    ----------
    eraser : int
        What the brush paints in place of napari's eraser, which changes nothing where nothing is shown; 0
        for the eraser itself.
    """

    def __init__(self, layer: Labels, there_is: Callable[[int], bool]) -> None:
        self._layer, self._there_is = layer, there_is
        self._last = 1
        self.eraser = 0
        layer.events.selected_label.connect(self.check)
        # Later, when all who show the mode have heard of it.
        layer.events.mode.connect(lambda _event: QTimer.singleShot(0, self.check))

    def check(self, _event: Any = None) -> None:
        """Go back to the label before, or to the first, where there is none such; see `eraser`, too."""
        if self.eraser and self._layer.mode == "erase":
            self._layer.mode, self._layer.selected_label = "paint", self.eraser
        label = int(self._layer.selected_label)
        if self._there_is(label):
            self._last = label
        else:
            self._layer.selected_label = self._last if self._there_is(self._last) else 1


class Brush:
    """A brush that keeps its size on the screen.

    Parameters
    ----------
    layer : Labels
    scale : callable
        Pixels of the layer a screen pixel.
    """

    def __init__(self, layer: Labels, scale: Callable[[], float]) -> None:
        self._layer, self._scale = layer, scale
        layer.brush_size = BRUSH
        self._chosen()
        layer.events.brush_size.connect(self._chosen)

    def resize(self) -> None:
        """Be as wide on the screen as the user chose."""
        with self._layer.events.brush_size.blocker(self._chosen):
            self._layer.brush_size = max(1, round(self._wanted * self._scale()))

    def _chosen(self, _event: Any = None) -> None:
        self._wanted = self._layer.brush_size / self._scale()  # screen pixels


class Drawing:
    """Knows when a stroke is in progress.

    Parameters
    ----------
    layer : Labels
    before : callable
        Called when the mouse is pressed to draw, before napari draws.

    Attributes
    ----------
    taken : bool
        Whether dragging draws whatever the layer's mode, because a gesture takes it.
    """

    def __init__(self, layer: Labels, before: Callable[[], None]) -> None:
        self._layer, self._before = layer, before
        self._pressed = False
        self.taken = False
        # The first of the callbacks: those of the tools read the layer's transform after it.
        layer.mouse_drag_callbacks.insert(0, self._press)

    @property
    def in_progress(self) -> bool:
        """Whether the mouse is drawing, or the outline of an encircling stroke is not closed yet."""
        return self._pressed or bool(self._layer._overlays["brush_stroke"].active)

    @property
    def corners(self) -> NDArray[np.float64]:
        """Corners of the polygon that is being drawn, shape (n, 2), in the layer's pixels."""
        return np.array(self._layer._overlays["polygon"].points, float).reshape(-1, 2)

    @corners.setter
    def corners(self, corners: NDArray[np.float64]) -> None:
        self._layer._overlays["polygon"].points = corners.tolist()

    def _press(self, layer: Labels, event: Any) -> Iterator[None]:
        if layer.mode not in TOOLS and not self.taken:
            return
        self._before()
        self._pressed = True
        yield
        while event.type == "mouse_move":
            yield
        self._pressed = False
