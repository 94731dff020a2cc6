"""The instant answer in the dock: on and off, from slide to slide, and kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject

from napari_genselfdiff.geometry import Region
from napari_genselfdiff.widgets.instant import Features, InstantAnswer, task_of
from napari_genselfdiff.widgets.opening import Opening
from napari_genselfdiff.widgets.sections import CorrectSection

if TYPE_CHECKING:
    from napari_genselfdiff.finetuning.instant import Answer, InstantTask
    from napari_genselfdiff.session import Session


class Answering(QObject):
    """Keeps the instant answer on the slide that is looked at.

    Parameters
    ----------
    opening : Opening
    section : CorrectSection
    correct_here : callable
        Makes the view editable: without a brush there is nothing to answer.
    tell : callable
        Called with what the user should know.

    Notes
    -----
    Strokes on all slides of a project count, as long as the model stays the same: they share one task.
    """

    def __init__(
        self,
        opening: Opening,
        section: CorrectSection,
        *,
        correct_here: Callable[[], None],
        tell: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.opening, self.section, self._correct_here, self._tell = opening, section, correct_here, tell
        self.instant: InstantAnswer | None = None
        self._task: tuple[object, InstantTask] | None = None
        opening.leaving.connect(self.stop)
        opening.entered.connect(self._follow)
        section.instant.toggled.connect(self._toggle)
        section.keep_button.clicked.connect(self.keep)

    def stop(self) -> None:
        """Take the answer away, for example because another slide is looked at."""
        instant, self.instant = self.instant, None
        if instant is not None:
            instant.close()

    @property
    def shown(self) -> bool:
        """Whether an answer is seen in place of what the model says."""
        editing = self.opening.layers.editing if self.opening.layers is not None else None
        return self.instant is not None and editing is not None and editing.answered is not None

    def _toggle(self, wanted: bool) -> None:
        if not wanted:
            self.stop()
            return
        if self.opening.layers is not None and self.opening.layers.editing is None:
            self._correct_here()
        self._follow()

    def _follow(self) -> None:
        session, layers = self.opening.session, self.opening.layers
        if not self.section.instant.isChecked() or session is None or layers is None or self.instant:
            return
        self.instant = InstantAnswer(
            layers.viewer,
            session,
            layers.image,
            edits=layers.edits,
            on_message=self._tell,
            features=lambda: self._features(session),
        )
        self.instant.kept.connect(layers.refresh)
        self.instant.answered.connect(self._answered)
        self.instant.withdrawn.connect(lambda: self._leave(None))
        self.instant.start()

    def _answered(self, answer: Answer) -> None:
        grid, scale = answer.view.grid, answer.view.source.scale
        y, x = round(grid.y * scale), round(grid.x * scale)
        self._leave(Region(y, x, round(grid.bottom * scale) - y, round(grid.right * scale) - x))
        self._tell("The instant answer follows your strokes; Keep answer takes it over.")

    def _leave(self, region: Region | None) -> None:
        """What the model says is hidden where the answer is: both at once could not be told apart."""
        layers = self.opening.layers
        if layers is not None and layers.editing is not None:
            layers.editing.leave_to_answer(region)

    def _features(self, session: Session) -> Features:
        """Those of the model in use, or of the task's pretext; the same task on every slide."""
        key = session.folder, session.current, session.task, session.pretext
        if self._task is None or self._task[0] != key:
            self._task = key, task_of(session)
        return Features(self._task[1], session.scale())

    def keep(self) -> None:
        """Take the answer of the view as right."""
        if self.instant is None:
            self._tell("Switch the instant answer on first.")
        else:
            self.instant.keep()
