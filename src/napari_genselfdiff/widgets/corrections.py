"""The editable window: a numpy labels layer that follows the view, committed stroke by stroke."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_genselfdiff.annotations import classes_of, encode
from napari_genselfdiff.annotations.pyramid import hull
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.widgets.colors import PAINTED_BACKGROUND, label_colormap
from napari_genselfdiff.widgets.drawing import Brush, Choice, Drawing, Gestured
from napari_genselfdiff.widgets.own import OWN
from napari_genselfdiff.widgets.placing import Place, place_for
from napari_genselfdiff.widgets.reading import labels_of
from napari_genselfdiff.widgets.view import pixels_per_screen_pixel, visible_region

if TYPE_CHECKING:
    from napari.layers import Image, Labels
    from napari.viewer import Viewer

    from napari_genselfdiff.session import Session
    from napari_genselfdiff.workers import Queue

WINDOW_NAME = "corrections"
STILL_MS = 120
"""The window moves when the view has stood still for so long."""


class CorrectionWindow(QObject):
    """An editable window at the magnification in view, wherever the user goes.

    napari cannot paint on multiscale labels, so the user paints on a small array that lies over the slide.
    Each stroke goes to the session's journal and store at once; when the view leaves the window, it moves.

    Parameters
    ----------
    viewer : Viewer
    session : Session
    image : Image
        Layer of the slide, of which some part is in view.
    edits : Queue
        Where strokes are written and pixels are read, in order and off the interface's thread.
    read_along : callable
        What else to read together with the window's pixels; called in the queue's thread.

    Attributes
    ----------
    layer : Labels
    place : Place
        Where the window lies.
    background : int
        What the brush paints for background: 0, or `PAINTED_BACKGROUND` while that is shown.
    answered : Region or None
        Where an instant answer lies below, in level-0 pixels, and the model's predictions are not shown.
    choice : Choice
        Keeps the brush to the session's classes.

    Notes
    -----
    The array may be replaced only when it holds nothing that was not read back: pixels that were read before
    a stroke was made are thrown away and read again behind it, and nothing is replaced under a stroke.
    """

    committed = Signal()
    """A stroke is in the journal and in the store."""
    shown = Signal(object)
    """Pixels were read and are shown; with what ``read_along`` returned."""
    failed = Signal(str)
    """What could not be done, in plain words."""

    def __init__(
        self,
        viewer: Viewer,
        session: Session,
        image: Image,
        edits: Queue,
        read_along: Callable[[], Any] = lambda: None,
    ) -> None:
        super().__init__()
        self.session = session
        self.background = 0
        self.answered: Region | None = None
        self._viewer, self._image, self._edits, self._read_along = viewer, image, edits, read_along
        self.place = self._wanted = self._place_in_view(None)
        edits.wait()
        self._shadow = self._stored(self.place)
        self.layer: Labels = viewer.add_labels(
            self._shadow.copy(),
            name=WINDOW_NAME,
            metadata=OWN,
            units=image.units[-2:],
            opacity=0.55,
            colormap=label_colormap(len(session.classes), session.colours),
            **self._transform(),
        )
        self.layer.mode = "paint"
        self.layer.selected_label = 1
        self.layer.editable = not session.annotations.read_only
        self._drawing = Drawing(self.layer, self._catch_up)
        self.choice = Choice(
            self.layer, lambda label: label < len(session.classes) or label == self.background
        )
        self._commits = self._reads = 0
        self._due = False  # pixels were read that could not be shown yet
        self._brush = Brush(self.layer, self._pixels_a_screen_pixel)
        # napari announces some strokes before it changes the data: look when it has returned.
        self._soon = self._timer(0, self.commit)
        self.layer.events.paint.connect(self._painted)
        self._still = self._timer(STILL_MS, self._follow)
        viewer.scene.camera.events.connect(self._moved)

    def show_background(self, shown: bool) -> None:
        """Show where a person painted background, so that it can be painted where nothing is.

        Without a model, and for the instant answer, background is an example like any other class. On empty
        ground the brush would change nothing with 0.
        """
        background = PAINTED_BACKGROUND if shown else 0
        if background != self.background:
            chosen = self.layer.selected_label == self.background
            self.background = background
            if chosen:
                self.layer.selected_label = background
            self.choice.eraser = background
            self.choice.check()
            self._read()

    def leave_to_answer(self, answered: Region | None) -> None:
        """Show only what was drawn in a part of the slide, in level-0 pixels; None shows all again."""
        if answered != self.answered:
            self.answered = answered
            self._read()

    @property
    def region(self) -> Region:
        """The window's place on the slide, in level-0 pixels."""
        return self.place.region

    @property
    def view(self) -> Region | None:
        """The part of the slide that is on the screen, in level-0 pixels."""
        return visible_region(self._viewer, self._image, self.session.slide.shape)

    def part_in_view(self) -> Region | None:
        """What is on the screen, in the window's pixels."""
        view, pixel = self.view, 2**self.place.layer
        if view is None:
            return None
        y, x = view.y // pixel - self.place.y, view.x // pixel - self.place.x
        bottom, right = -(-view.bottom // pixel) - self.place.y, -(-view.right // pixel) - self.place.x
        return Region(y, x, bottom - y, right - x).clipped(*self._shadow.shape)

    def commit(self) -> None:
        """Send what changed to the session, where it is written in the queue's thread.

        A stroke that is being drawn waits for its end: it is one step of the history.
        """
        if not self._drawing.in_progress:
            self._send()

    def _send(self) -> None:
        changed = self.layer.data != self._shadow
        if not changed.any():
            return
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        labels, mask, place = self.layer.data[box].copy(), changed[box], self.place
        classes = np.where(labels == PAINTED_BACKGROUND, np.uint8(0), labels)
        y, x = place.y + int(rows[0]), place.x + int(columns[0])
        self._shadow[box] = labels
        self._commits += 1
        annotations = self.session.annotations
        self._edits.submit(
            lambda: annotations.stroke(place.layer, y, x, encode(classes), mask),
            lambda _change: self.committed.emit(),
            self._refused,
        )

    def accept(
        self, part: Region | None = None, told: Callable[[float], None] = lambda _left_out: None
    ) -> bool:
        """Say that what is in view is right as it is seen; False when the slide is not in view.

        Parameters
        ----------
        part : Region, optional
            Something else than the view, in the window's pixels.
        told : callable, optional
            Called in the interface's thread with the part that was left out: see `SessionSlide.accept`.
        """
        if part is None:
            self._catch_up()
        self.commit()
        part = part or self.part_in_view()
        if part is None:
            return False
        seen = self._shadow[part.y : part.bottom, part.x : part.right].copy()
        seen[seen == PAINTED_BACKGROUND] = 0
        box = Region(self.place.y + part.y, self.place.x + part.x, *seen.shape)
        session, layer = self.session, self.place.layer

        def accepted(left_out: float) -> None:
            self.committed.emit()
            told(left_out)

        self._edits.submit(lambda: session.accept(layer, box, seen), accepted, self._refused)
        return True

    def draw(self, gesture: Callable[[], Gestured | None], done: Callable[[Gestured | None], None]) -> None:
        """Let a gesture be worked out and stored in the queue's thread, behind what was drawn, as one step.

        Parameters
        ----------
        gesture : callable
            Returns what to draw; None for nothing.
        done : callable
            Called with it in the interface's thread when it is stored and shown.
        """
        self.commit()
        self._commits += 1  # pixels that are being read now are older
        annotations, commits = self.session.annotations, self._commits

        def work() -> Gestured | None:
            drawn = gesture()
            if drawn is not None:
                annotations.stroke(drawn.layer, drawn.y, drawn.x, drawn.codes, drawn.mask)
            return drawn

        def stored(drawn: Gestured | None) -> None:
            if drawn is not None:
                self._show_drawn(drawn, commits)
                self.committed.emit()
            done(drawn)

        self._edits.submit(work, stored, self._refused)

    def take_drags(self, taken: bool) -> None:
        """Say whether dragging draws though the layer's mode is none that does."""
        self._drawing.taken = taken

    def reload(self) -> None:
        """Show the session's labels anew (after undo, or when the model's predictions changed)."""
        self._read()

    def bind_history(self, undo: Callable[[], None], redo: Callable[[], None]) -> None:
        """Let the usual keys take strokes back and do them again."""
        self.layer.bind_key("Control-Z", lambda _layer: undo(), overwrite=True)
        self.layer.bind_key("Control-Shift-Z", lambda _layer: redo(), overwrite=True)

    def close(self) -> None:
        """Commit, and follow the view no more; the layer stays."""
        self._viewer.scene.camera.events.disconnect(self._moved)
        self._still.stop()
        self._soon.stop()
        self._reads += 1  # what is still being read comes too late
        self._send()

    def _place_in_view(self, now: Place | None) -> Place:
        """Where the window should be: around the view, and a polygon that is being drawn."""
        view = self.view
        if view is None:
            assert now is not None
            return now
        if now is not None:
            corners = (self._drawing.corners + 0.5 + (now.y, now.x)) * 2**now.layer
            corners = np.clip(corners.astype(int), 0, np.array(self.session.slide.shape) - 1)
            view = hull([view, *(Region(y, x, 1, 1) for y, x in corners.tolist())])
        screen_pixel = pixels_per_screen_pixel(self._viewer, self._image)
        return place_for(view, screen_pixel, self.session.slide.shape, self.session.layer_count(), now)

    def _moved(self, _event: Any = None) -> None:
        self._still.start()

    def _follow(self) -> None:
        """Go where the view is, if it has left the window."""
        self._wanted = self._place_in_view(self.place)
        if self._due or self._wanted is not self.place:
            self._read()
        else:
            self._brush.resize()

    def _catch_up(self) -> None:
        """Be where the view is before something is done there: what lies outside would be lost."""
        place = self._place_in_view(self.place)
        if place is not self.place and not self._drawing.in_progress:
            self._wanted = place
            self._read()
            self._edits.wait()

    def _read(self) -> None:
        """Read the pixels of the place that is wanted, behind everything that was drawn."""
        if self._drawing.in_progress:
            self._due = True
            self._still.start()  # look again a little later
            return
        self._send()
        self._reads += 1
        self._due = False
        read, commits, place = self._reads, self._commits, self._wanted

        def work() -> tuple[NDArray[np.uint8], Any] | None:
            return (self._stored(place), self._read_along()) if read == self._reads else None

        def arrived(found: tuple[NDArray[np.uint8], Any] | None) -> None:
            if found is None or read != self._reads:
                return  # overtaken by a later one
            self.commit()
            if self._drawing.in_progress or commits != self._commits or place is not self._wanted:
                self._read()
            else:
                self._show(place, *found)

        self._edits.submit(work, arrived, self.failed.emit)

    def _show(self, place: Place, labels: NDArray[np.uint8], along: Any) -> None:
        """Put pixels that were read into the layer, and the layer in its place."""
        if place is not self.place:
            corners = self._drawing.corners
            if len(corners):
                width = 2.0 ** (self.place.layer - place.layer)
                corners = (corners + 0.5 + (self.place.y, self.place.x)) * width - 0.5 - (place.y, place.x)
            self.place, self._shadow = place, labels
            mode = self.layer.mode
            self.layer.editable = False  # forgets napari's own history, which is about the old place
            self.layer.data = labels.copy()
            transform = self._transform()
            self.layer.scale, self.layer.translate = transform["scale"], transform["translate"]
            self.layer.editable = not self.session.annotations.read_only
            if self.layer.editable:
                self.layer.mode = mode
            if len(corners):
                self._drawing.corners = corners
            self._brush.resize()
        elif not np.array_equal(labels, self._shadow):
            self._shadow = labels
            self.layer.data[:] = labels
            self.layer.refresh(extent=False)
        self.shown.emit(along)

    def _show_drawn(self, drawn: Gestured, commits: int) -> None:
        """Put what a gesture drew into the layer, unless something else was drawn since."""
        self.commit()
        place, whole = self.place, Region(drawn.y, drawn.x, *drawn.mask.shape)
        here = Region(place.y, place.x, place.height, place.width)
        box = whole.intersection(here)
        if drawn.layer != place.layer or commits != self._commits or self._drawing.in_progress:
            self._read()
        elif box is not None:
            part, inside = box.within(whole), box.within(here)
            labels = classes_of(drawn.codes[part]).astype(np.uint8)
            labels[labels == 0] = self.background
            for array in (self.layer.data, self._shadow):
                np.copyto(array[inside], labels, where=drawn.mask[part])
            self.layer.refresh(extent=False)

    def _stored(self, place: Place) -> NDArray[np.uint8]:
        return labels_of(self.session, place, background=bool(self.background), answered=self.answered)

    def _transform(self) -> dict[str, NDArray[np.float64]]:
        """Scale and translation of the layer, in the world of the slide's layer."""
        pixel, width = np.array(self._image.scale[-2:]), 2**self.place.layer
        # The middle of the window's first pixel, in level-0 pixels.
        first = (np.array([self.place.y, self.place.x]) + 0.5) * width - 0.5
        return {"scale": pixel * width, "translate": np.array(self._image.translate[-2:]) + first * pixel}

    def _pixels_a_screen_pixel(self) -> float:
        return pixels_per_screen_pixel(self._viewer, self._image) * 0.5**self.place.layer

    def _painted(self, _event: Any = None) -> None:
        self._soon.start()

    def _refused(self, message: str) -> None:
        """Say why a stroke could not be kept, and show what is kept."""
        self.failed.emit(message)
        self._read()

    def _timer(self, milliseconds: int, then: Callable[[], None]) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.setInterval(milliseconds)
        timer.timeout.connect(then)
        return timer
