"""The instant answer: a translucent layer over the view that follows every stroke."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_genselfdiff.annotations import classes_of
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import Progress
from napari_genselfdiff.widgets.colors import label_colormap
from napari_genselfdiff.widgets.own import OWN
from napari_genselfdiff.widgets.view import visible_region
from napari_genselfdiff.workers import Queue

if TYPE_CHECKING:
    from napari.layers import Image, Labels
    from napari.viewer import Viewer

    from napari_genselfdiff.annotations import Change
    from napari_genselfdiff.finetuning.instant import Answer, InstantTask
    from napari_genselfdiff.geometry import Region
    from napari_genselfdiff.session import Session

LAYER_NAME = "instant answer"
OPACITY = 0.4
STILL_MS = 150
"""The view is answered when it has stood still for so long."""


@dataclass(frozen=True)
class Features:
    """Whose features are used, at so many level-0 pixels a pixel of theirs."""

    task: InstantTask
    scale: float


def task_of(session: Session) -> InstantTask:
    """A task on the features of the model in use, or of the pretext that the session's task begins with.

    Raises
    ------
    UserError
        If there is neither.
    """
    from napari_genselfdiff.finetuning.instant import InstantTask

    return InstantTask(
        session.starting_segmenter(),
        compute=session.compute,
        classes=session.classes,
        fresh=not session.current,
    )


class InstantAnswer(QObject):
    """Answers every stroke, and every view, with a light classifier on frozen features.

    Off until `start`. Works in a thread of its own, one step at a time; painting never waits for it.

    Parameters
    ----------
    viewer : Viewer
    session : Session
    image : Image
        Layer of the slide.
    edits : Queue
        Where strokes are written: a kept answer comes behind them.
    on_message : callable
        Called with one line of text for the user.
    features : callable, optional
        Whose features; asked in the thread, at the start and when the model changes. By default those of the
        model in use, or of the task's pretext. Give one task to several windows, and strokes on all their
        slides count.

    Attributes
    ----------
    active : bool
        Whether strokes are answered.
    layer : Labels or None
        Lies under the editable window; None while nothing is answered.
    answer : Answer or None
        The last one that is complete; of the view that it says.

    Notes
    -----
    A new view, or a new model, makes what is on its way worthless: it is thrown away by its generation. A new
    stroke does not: the answer that is on its way is shown, and the next one begins at the next step.
    """

    answered = Signal(object)
    """A view is answered as a whole, and seen; with the `Answer`."""
    withdrawn = Signal()
    """No answer is seen any more: what was painted does not give one, or its layer was hidden or deleted."""
    kept = Signal()
    """The answer became a part of what is drawn."""
    _touched = Signal(object)

    def __init__(
        self,
        viewer: Viewer,
        session: Session,
        image: Image,
        *,
        edits: Queue,
        on_message: Callable[[str], None],
        features: Callable[[], Features] | None = None,
    ) -> None:
        super().__init__()
        self._viewer, self._session, self._image, self._edits = viewer, session, image, edits
        self._on_message = on_message
        self._make = features or (lambda: Features(task_of(session), session.scale()))
        self._features: Features | None = None
        self._queue = Queue()
        self.active = False
        self._generation = 0
        self._running = self._again = False
        self.layer: Labels | None = None
        self.answer: Answer | None = None
        self._shown: NDArray[np.uint8] | None = None
        self._still = QTimer(self)
        self._still.setSingleShot(True)
        self._still.setInterval(STILL_MS)
        self._still.timeout.connect(self._look_anew)
        self._touched.connect(self._painted)

    def start(self) -> None:
        """Answer from now on; what was painted before counts."""
        if self.active:
            return
        self.active = True
        self._session.annotations.changed.connect(self._changed)
        self._session.model_changed.connect(self._model_changed)
        self._session.mpp_changed.connect(self._model_changed)
        self._viewer.scene.camera.events.connect(self._moved)
        self._viewer.layers.events.removed.connect(self._removed)
        if self._features is not None:
            self._queue_touch(self._features, None)
        self._look_anew()

    def stop(self) -> None:
        """Answer no more, and take the layer away; features are kept for the next start."""
        if not self.active:
            return
        self.active = False
        self._generation += 1
        self._still.stop()
        self._session.annotations.changed.disconnect(self._changed)
        self._session.model_changed.disconnect(self._model_changed)
        self._session.mpp_changed.disconnect(self._model_changed)
        self._viewer.scene.camera.events.disconnect(self._moved)
        self._viewer.layers.events.removed.disconnect(self._removed)
        self._running = self._again = False
        self._withdraw()

    def close(self) -> None:
        """Stop for good, and wait for the step that is being done."""
        self.stop()
        self._queue.close()

    def keep(self) -> bool:
        """Accept the answer of the view: it becomes part of the segmentation, and can be taken back.

        Returns
        -------
        bool
            False, with a message, when the view is not answered yet, or the answer is not seen.
        """
        from napari_genselfdiff.finetuning.instant import accept_answer

        answer = self.answer
        if self.layer is not None and not self.layer.visible:
            self._on_message(f'The answer is hidden: open the eye of the layer "{LAYER_NAME}" to keep it.')
            return False
        if answer is None:
            wait, paint = "it is being made, wait a moment", "paint something in this view"
            self._on_message(f"There is no answer to keep yet: {wait if self._running else paint}.")
            return False
        annotations = self._session.annotations

        def kept(_change: Change | None) -> None:
            what = "answer" if answer.view.whole else "answer in the middle of the view, and no more,"
            self._on_message(f"The {what} is kept; what you painted stays as it is.")
            self.kept.emit()

        self._edits.submit(lambda: accept_answer(annotations, answer), kept, self._on_message)
        return True

    # What asks for an answer; all in the interface's thread but `_changed`.

    def _changed(self, change: Change) -> None:
        self._touched.emit(change)  # strokes are written in a thread: Qt carries it over

    def _painted(self, change: Change) -> None:
        if not self.active:
            return
        if self._features is not None:
            self._queue_touch(self._features, change)
        self._request()

    def _queue_touch(self, features: Features, change: Change | None) -> None:
        slide = self._session.slide
        self._queue.submit(
            lambda: features.task.touch(slide, change, scale=features.scale),
            lambda _nothing: None,
            self._on_message,
        )

    def _moved(self, _event: Any = None) -> None:
        self._still.start()

    def _model_changed(self, _which: Any = None) -> None:
        self._features = None
        self._look_anew()

    def _look_anew(self) -> None:
        """Answer another view, or by another model: what is on its way is worth nothing."""
        self._generation += 1
        self.answer = None
        self._running = False
        self._request()

    def _request(self) -> None:
        if self._running:
            self._again = True
            return
        region = visible_region(self._viewer, self._image, self._session.slide.shape)
        if self.active and region is not None:
            self._running, self._again = True, False
            self._step(_work(self._session, self._features, self._make, region), self._generation)

    def _step(self, work: Iterator[Any], generation: int) -> None:
        """Do the next step in the thread, show it, and go on."""
        self._queue.submit(
            lambda: next(work, None) if generation == self._generation else None,
            lambda found: self._arrived(work, generation, found),
            lambda message: self._ended(generation, message),
        )

    def _arrived(self, work: Iterator[Any], generation: int, found: Any) -> None:
        if generation != self._generation:
            return  # of a view that is gone
        if isinstance(found, Features):
            self._features = found
            # The task may have answered before: what was painted since, nobody told it.
            self._queue_touch(found, None)
        elif isinstance(found, UserError):
            self._on_message(f"Instant answer: {found}.")
            self._withdraw()
        elif isinstance(found, str):
            if found:
                self._on_message(found)
        elif found is not None:
            self._show(*found)
        if found is None or self._again:
            self._ended(generation)
        else:
            self._step(work, generation)

    def _ended(self, generation: int, message: str | None = None) -> None:
        if generation != self._generation:
            return
        if message is not None:
            self._on_message(message)
        self._running = False
        if self._again:
            self._request()

    # What is shown.

    def _eye(self) -> None:
        """The user hid the layer, or shows it again."""
        if self.layer is None or not self.layer.visible:
            self.withdrawn.emit()
        elif self.answer is not None:
            self.answered.emit(self.answer)

    def _removed(self, event: Any) -> None:
        if self.layer is not None and event.value is self.layer:
            self._withdraw()  # by the user; the next stroke brings it again

    def _withdraw(self) -> None:
        """Take the layer away."""
        self.answer = self._shown = None
        layer, self.layer = self.layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)
        self.withdrawn.emit()

    def _show(self, answer: Answer, painted: NDArray[np.uint8]) -> None:
        """Show an answer, under what the person painted."""
        from napari_genselfdiff.finetuning.instant import UNKNOWN

        labels = np.where(answer.labels == UNKNOWN, 0, answer.labels)
        labels = np.where(painted > 0, classes_of(painted), labels).astype(np.uint8)
        view, pixel = answer.view, np.array(self._image.scale[-2:])
        scale = view.source.scale
        first = (np.array([view.grid.y, view.grid.x]) + 0.5) * scale - 0.5
        place = {"scale": pixel * scale, "translate": np.array(self._image.translate[-2:]) + first * pixel}
        colormap = label_colormap(len(self._session.classes), self._session.colours)
        if self.layer is None or self.layer not in self._viewer.layers:
            active = self._viewer.layers.selection.active
            self.layer = self._viewer.add_labels(
                labels,
                name=LAYER_NAME,
                metadata=OWN,
                units=self._image.units[-2:],
                opacity=OPACITY,
                colormap=colormap,
                **place,
            )
            self.layer.editable = False
            self.layer.events.visible.connect(self._eye)
            # Right above the slide: what is painted on stays on top, and stays chosen.
            layers = self._viewer.layers
            layers.move(layers.index(self.layer), layers.index(self._image) + 1)
            layers.selection.active = active
        elif self._shown is not None and self._shown.shape == labels.shape and self._same_place(place):
            self.layer.data[:] = labels
            self.layer.colormap = colormap
            self.layer.refresh(extent=False)
        else:
            self.layer.data, self.layer.colormap = labels, colormap
            self.layer.scale, self.layer.translate = place["scale"], place["translate"]
        self._shown = labels
        if answer.complete:
            self.answer = answer
            if self.layer.visible:
                self.answered.emit(answer)

    def _same_place(self, place: dict[str, NDArray[np.float64]]) -> bool:
        assert self.layer is not None
        return bool(
            np.allclose(self.layer.translate, place["translate"])
            and np.allclose(self.layer.scale, place["scale"])
        )


def _work(
    session: Session, features: Features | None, make: Callable[[], Features], region: Region
) -> Iterator[Any]:
    """All steps of an answer; runs in the thread.

    Yields
    ------
    Features, str, UserError, or tuple of Answer and Codes
        What was made; a message, empty where there is none; why there is no answer; or an answer, and what
        was painted there.
    """
    from napari_genselfdiff.finetuning.strokes import codes_on_grid

    if features is None:
        features = make()
        yield features
    task, scale, slide, drawn = features.task, features.scale, session.slide, session.annotations
    view = task.view(slide, region, scale=scale)
    if not view.whole:
        side = round(min(view.grid.height, view.grid.width) * scale * (slide.mpp or 1))
        unit = "µm" if slide.mpp else "pixels"
        yield f"Instant answer: the middle of the view; for all of it, zoom in to about {side:,} {unit}."

    def answered() -> Iterator[Any]:
        learned = task.learn()
        for answer in task.answers(view, learned):
            yield answer, codes_on_grid(drawn, view.source, view.grid)

    left = task.look(slide, drawn, scale=scale)
    try:
        yield from answered()
    except UserError as error:  # too little is painted
        yield error
    # So that the first stroke is answered at once, and that what was painted elsewhere counts.
    for _ in task.add_view(view):
        yield ""
    if left:
        for event in task.catch_up(slide, drawn, scale=scale):
            yield event.message if isinstance(event, Progress) else ""
        yield from answered()
