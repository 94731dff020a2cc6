"""Split, merge, delete and redraw single objects in the editable window: one drag or click each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.geometry import Region, layer_shape
from napari_genselfdiff.widgets.drawing import Gestured

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

    from napari_genselfdiff.segmentation.gestures import Edit, Objects
    from napari_genselfdiff.widgets.corrections import CorrectionWindow
    from napari_genselfdiff.widgets.objects import ObjectReader, Outlines

LEFT = 1
MODE = "pick"
"""The layer's mode under a gesture: it has a cross for a cursor, and dragging does not move the camera."""
ZOOM_IN = "Zoom in until you can see single objects."
LARGEST = 2048
"""Side in pixels of what is looked at for one gesture, at most."""


@dataclass(frozen=True)
class Gesture:
    """What one drag or click does.

    Attributes
    ----------
    name : str
    keys : tuple of str
        Any of these begins it.
    how : str
        What to do with the mouse, in plain words.
    nothing : str
        What to say when there was nothing to do.
    """

    name: str
    keys: tuple[str, ...]
    how: str
    nothing: str

    @property
    def help(self) -> str:
        """What the mouse does now, in one line."""
        return f"{self.name.capitalize()}: {self.how}. Esc: back to the brush"


SPLIT = Gesture(
    "split",
    ("S",),
    "draw a line across an object",
    "The line divides no object: draw it from one side of an object to the other.",
)
MERGE = Gesture(
    "merge",
    ("M",),
    "draw from one object to another",
    "The stroke touches no two objects: begin on one and end on another.",
)
DELETE = Gesture("delete", ("D",), "click an object", "There is no object under the mouse.")
REDRAW = Gesture(
    "redraw",
    ("R",),
    "draw around an object",
    "There is nothing inside the outline: draw all around an object.",
)
GESTURES = (SPLIT, MERGE, DELETE, REDRAW)
AT_ONCE = ("Delete", "Backspace")
"""Keys that delete the object under the mouse, whatever the mode."""


class Gestures(QObject):
    """Gestures on single objects in an editable window.

    Parameters
    ----------
    viewer : Viewer
    window : CorrectionWindow
    reader : ObjectReader
    outlines : Outlines
        Shows where the mouse goes.

    Notes
    -----
    A gesture stays chosen until another tool is, or Escape. It is suspended while the space bar moves the
    camera.
    """

    chosen = Signal(object)
    """The `Gesture` that dragging makes now, to show its ``help``; None for the layer's own tools."""
    said = Signal(str)
    """What was done, or why nothing was."""

    def __init__(
        self, viewer: Viewer, window: CorrectionWindow, reader: ObjectReader, outlines: Outlines
    ) -> None:
        super().__init__()
        self._viewer, self._window, self._reader, self._outlines = viewer, window, reader, outlines
        self._gesture: Gesture | None = None
        layer = window.layer
        layer.mouse_drag_callbacks.append(self._drag)
        # After napari, which writes a help of its own.
        layer.events.mode.connect(self._mode_changed, position="last")
        for gesture in GESTURES:
            for key in gesture.keys:
                # M would choose a label that is no class.
                layer.bind_key(key, self._choosing(gesture), overwrite=True)
        for key in AT_ONCE:
            layer.bind_key(key, lambda _layer: self._delete_under_mouse(), overwrite=True)

    @property
    def active(self) -> Gesture | None:
        """What dragging does now; None when it is one of the layer's own tools."""
        return self._gesture if self._window.layer.mode == MODE else None

    def choose(self, gesture: Gesture | None) -> None:
        """Choose what dragging does from now on; None for the brush."""
        layer = self._window.layer
        if not layer.editable:
            return
        self._gesture = gesture
        if gesture is None:
            layer.mode = "paint"
        elif layer.mode == MODE:
            self._mode_changed()
        else:
            layer.mode = MODE

    def close(self) -> None:
        """Let the layer be as it was."""
        layer = self._window.layer
        layer.events.mode.disconnect(self._mode_changed)
        layer.mouse_drag_callbacks.remove(self._drag)

    def _choosing(self, gesture: Gesture) -> Callable[[Labels], None]:
        return lambda _layer: self.choose(gesture)

    def _mode_changed(self, _event: Any = None) -> None:
        layer = self._window.layer
        if layer.mode not in (MODE, "pan_zoom"):
            self._gesture = None
        active = self.active
        self._window.take_drags(active is not None)
        # Escape is napari's own for polygons: only lent.
        layer.bind_key("Escape", None if active is None else lambda _layer: self.choose(None), overwrite=True)
        if active is not None:
            layer.help = self._viewer.help = active.help
        self._outlines.show_always(active is not None)
        self.chosen.emit(active)

    def _drag(self, layer: Labels, event: Any) -> Iterator[None]:
        gesture = self.active
        if gesture is None or event.button != LEFT:
            return
        label = layer.selected_label
        path = [self._place(event.position)]
        yield
        layer.selected_label = label  # picking changed it
        while event.type == "mouse_move":
            path.append(self._place(event.position))
            if gesture is not DELETE:
                self._outlines.preview(np.array(path), closed=gesture is REDRAW)
            yield
        layer.selected_label = label
        self._make(gesture, np.array(path))

    def _place(self, position: Any) -> NDArray[np.float64]:
        """Where something is, in the window's pixels."""
        return np.array(self._window.layer.world_to_data(position)[-2:], float)

    def _delete_under_mouse(self) -> None:
        if self._window.layer.editable:
            self._make(DELETE, self._place(self._viewer.cursor.position)[None])

    def _make(self, gesture: Gesture, path: NDArray[np.float64]) -> None:
        """Work out in the queue's thread what a gesture means, and draw it."""
        place, label = self._window.place, int(self._window.layer.selected_label)
        try:
            self._reader.prepare()
        except UserError as error:
            self._ended(str(error))
            return
        if not self._reader.can_see(place.layer):
            self._ended(ZOOM_IN)
            return
        work = _on_slide(gesture, path + np.array([place.y, place.x]), max(1, label))
        shape = layer_shape(self._window.session.slide.shape, place.layer)

        def done(drawn: Gestured | None) -> None:
            self._ended(gesture.nothing if drawn is None else drawn.done)

        self._window.draw(lambda: work(self._reader, place.layer, shape), done)

    def _ended(self, message: str) -> None:
        self._outlines.preview(np.zeros((0, 2)))
        self.said.emit(message)


def _on_slide(
    gesture: Gesture, path: NDArray[np.float64], label: int
) -> Callable[[ObjectReader, int, tuple[int, int]], Gestured | None]:
    """What is to be done, in any thread; ``path`` is in the pixels of a layer of the slide."""

    def work(reader: ObjectReader, layer: int, shape: tuple[int, int]) -> Gestured | None:
        reach = reader.reach(layer)
        (top, left), (bottom, right) = np.floor(path.min(axis=0)), np.ceil(path.max(axis=0)) + 1
        drawn = Region(int(top), int(left), int(bottom - top), int(right - left))
        while True:
            box = drawn.grown(reach).clipped(*shape)
            if box is None:
                return None
            there = reader.read(layer, box)
            edit = _edit(gesture, there, path - np.array([box.y, box.x]), label)
            if edit is None:
                return None
            if max(box.height, box.width) >= LARGEST or not _cut_off(edit.mask, box, shape):
                return Gestured(layer, box.y, box.x, edit.codes, edit.mask, edit.done)
            reach *= 2

    return work


def _edit(gesture: Gesture, there: Objects, path: NDArray[np.float64], label: int) -> Edit | None:
    from napari_genselfdiff.segmentation import gestures

    if gesture is SPLIT:
        return gestures.split(there, path)
    if gesture is MERGE:
        return gestures.merge(there, path)
    if gesture is DELETE:
        return gestures.delete(there, path)
    return gestures.redraw(there, path, label=label)


def _cut_off(mask: NDArray[np.bool_], box: Region, shape: tuple[int, int]) -> bool:
    """Whether something may go on beyond what was looked at."""
    return bool(
        (box.y > 0 and mask[:2].any())
        or (box.x > 0 and mask[:, :2].any())
        or (box.bottom < shape[0] and mask[-2:].any())
        or (box.right < shape[1] and mask[:, -2:].any())
    )
