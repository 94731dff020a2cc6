"""Corrections become a better model: the fine-tune as the dock shows it."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QObject, Signal

from napari_genselfdiff.events import Event, Finished, LossPoint, ScorePoint, Snapshot
from napari_genselfdiff.models.versions import Round
from napari_genselfdiff.session import FINE_TUNE_SECONDS
from napari_genselfdiff.widgets.opening import Opening
from napari_genselfdiff.widgets.preview import Preview
from napari_genselfdiff.widgets.running import Runner
from napari_genselfdiff.widgets.sections import FineTuneSection


class Learning(QObject):
    """Runs fine-tunes and shows what comes of them.

    Parameters
    ----------
    opening : Opening
    runner : Runner
    section : FineTuneSection
    tell : callable
        Called with what the user should know.
    """

    adopted = Signal()
    """There is another version in the list."""
    improved = Signal()
    """It is in use, and other work may begin."""

    def __init__(
        self, opening: Opening, runner: Runner, section: FineTuneSection, *, tell: Callable[[str], None]
    ) -> None:
        super().__init__()
        self.opening, self.runner, self.section = opening, runner, section
        self.preview = Preview(tell)
        opening.leaving.connect(self.preview.clear)

    def fine_tune(self) -> None:
        """Train a copy of the model on the corrections of all slides."""
        session, layers = self.opening.session, self.opening.layers
        if session is None or self.runner.job is not None:
            return
        if layers is not None:
            layers.finish_edits()
        self.section.begin()
        outcome: Round | None = None

        def came(event: Event) -> None:
            if isinstance(event, LossPoint):
                self.section.curve.add(event.seconds, event.loss)
            elif isinstance(event, ScorePoint):
                self.section.show_score(event.score)
            elif isinstance(event, Snapshot) and self.opening.layers is not None:
                self.preview.show(self.opening.layers, event.segmenter)

        def finished(event: Finished) -> None:
            nonlocal outcome
            self.section.answer.setText(event.message)
            self.runner.status.show_idle(event.message)
            if isinstance(event.result, Round):
                outcome = event.result
                session.adopt(outcome)
                self.adopted.emit()

        def then() -> None:
            self.preview.clear()
            if outcome is not None and outcome.accepted:
                self.improved.emit()

        self.runner.start(
            lambda cancel: session.fine_tune(seconds=FINE_TUNE_SECONDS, cancel=cancel),
            on_event=came,
            on_finished=finished,
            on_error=self.section.answer.setText,
            then=then,
        )

    def close(self) -> None:
        """End the preview's thread."""
        self.preview.close()
