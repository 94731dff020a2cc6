"""Corrections become a better model: fine-tunes, where to go next and new cohorts, as shown in the dock."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from qtpy.QtCore import QObject, Signal

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Event, Finished, LossPoint, ScorePoint, Snapshot
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models.versions import Doubt, Round
from napari_genselfdiff.session import FINE_TUNE_SECONDS
from napari_genselfdiff.widgets.cohort import CohortSection
from napari_genselfdiff.widgets.finetuning import FineTuneSection
from napari_genselfdiff.widgets.opening import Opening
from napari_genselfdiff.widgets.preview import Preview
from napari_genselfdiff.widgets.running import Runner
from napari_genselfdiff.widgets.view import show_region
from napari_genselfdiff.workers import Queue

logger = logging.getLogger(__name__)

ADAPT_IT = "The model may be wrong here; the tab Project can adapt it to this cohort."


class Learning(QObject):
    """Runs fine-tunes, finds the next place and adapts to cohorts, and shows what comes of it.

    Parameters
    ----------
    opening : Opening
    runner : Runner
    section : FineTuneSection
    cohort : CohortSection
    tell : callable
        Called with what the user should know.
    """

    adopted = Signal()
    """There is another version in the list."""
    improved = Signal()
    """It is in use, and other work may begin."""
    unlike = Signal(str)
    """What to say of the slide that is looked at, if the model has not seen the like; else nothing."""
    correct_wanted = Signal()
    """A place is shown that is to be corrected."""

    def __init__(
        self,
        opening: Opening,
        runner: Runner,
        section: FineTuneSection,
        cohort: CohortSection,
        *,
        tell: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.opening, self.runner, self.section, self.cohort = opening, runner, section, cohort
        self._tell = tell
        self.preview = Preview(tell)
        self._queue = Queue()
        self._checked: dict[str, Finished | None] = {}  # by fingerprint; None while it is being done
        self._checking = CancelToken()
        opening.leaving.connect(self.preview.clear)
        opening.closing.connect(self._stop)
        opening.entered.connect(self._show_familiar)
        section.fine_tune_clicked.connect(self.fine_tune)
        section.next_clicked.connect(self.next_place)
        section.left_out.look_clicked.connect(self._see)
        section.left_out.right_clicked.connect(self._insist)
        cohort.check_clicked.connect(self.check_slide)
        cohort.adapt_clicked.connect(self.adapt)

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
                self.section.left_out.show_doubts(event.result.doubts)
                self.opening.guarded(lambda: session.adopt(event.result))
                self.adopted.emit()

        def then() -> None:
            self.preview.clear()
            if outcome is not None and outcome.used:
                self.improved.emit()

        self.opening.guarded(
            lambda: self.runner.start(
                lambda cancel: session.fine_tune(seconds=FINE_TUNE_SECONDS, cancel=cancel),
                on_event=came,
                on_finished=finished,
                on_error=self.section.answer.setText,
                then=then,
            )
        )

    def next_place(self) -> None:
        """Go to the window that is most useful to correct, on whatever slide of the project."""
        session = self.opening.session
        if session is None or self.runner.job is not None:
            return

        def finished(event: Finished) -> None:
            self.runner.status.show_idle(event.message)
            if event.result is not None:
                slide, region = event.result
                self.opening.guarded(lambda: session.visit(slide, region))
                if self._look_at(slide.fingerprint, region):
                    self.runner.status.show_idle(f"Next: {event.message}.")

        self._start(lambda cancel: session.next_place(cancel=cancel), finished)

    def check_slide(self) -> None:
        """Say whether the slide looks like what the model has seen."""
        session = self.opening.session
        if session is None:
            return

        fingerprint = session.active.fingerprint

        def finished(event: Finished) -> None:
            self.runner.status.show_idle(event.message)
            self._remember(fingerprint, event)

        self._start(lambda cancel: session.check_domain(cancel=cancel), finished)

    def notice(self) -> None:
        """Find out beside everything else whether the slide looks like what the model has seen; once each."""
        session = self.opening.session
        if session is None or session.slide.mpp is None or session.active.fingerprint in self._checked:
            return
        fingerprint = session.active.fingerprint
        self._checked[fingerprint] = None

        def failed(message: str) -> None:
            # Nobody asked for it: a slide without tissue is told when it is segmented.
            logger.info("the slide was not compared with what the model has seen: %s", message)

        try:
            events = session.check_domain(cancel=self._checking)
        except UserError as error:
            failed(str(error))
            return

        def work() -> Finished:
            *_, last = events
            assert isinstance(last, Finished)
            return last

        self._queue.submit(work, lambda event: self._remember(fingerprint, event), failed)

    def _remember(self, fingerprint: str, event: Finished) -> None:
        if event.result is not None:
            self._checked[fingerprint] = event
            self._show_familiar()

    def _show_familiar(self) -> None:
        """Show what is known of the slide that is looked at."""
        session = self.opening.session
        known = self._checked.get(session.active.fingerprint) if session is not None else None
        if known is None:
            self.cohort.forget()
            self.unlike.emit("")
            return
        self.cohort.answer.setText(known.message)
        far = f"{known.message[0].upper()}{known.message[1:]}. {ADAPT_IT}" if known.result.far else ""
        self.unlike.emit(far)

    def adapt(self, seconds: float) -> None:
        """Go on with the pretext on unlabelled tissue of the project's slides."""
        session = self.opening.session
        if session is None:
            return
        self.section.curve.clear()

        def came(event: Event) -> None:
            if isinstance(event, LossPoint):
                self.section.curve.add(event.seconds, event.loss)

        def finished(event: Finished) -> None:
            self.cohort.answer.setText(event.message)
            self.runner.status.show_idle(event.message)
            if event.result is not None:
                self.opening.guarded(lambda: session.use_pretext(event.result))

        self._start(lambda cancel: session.adapt(seconds=seconds, cancel=cancel), finished, came)

    def _start(
        self,
        work: Callable[[CancelToken], Iterator[Event]],
        finished: Callable[[Finished], None],
        came: Callable[[Event], None] = lambda _event: None,
    ) -> None:
        """Begin work; what is missing for it is said at once."""
        self.opening.guarded(lambda: self.runner.start(work, on_event=came, on_finished=finished))

    def _see(self, doubt: Doubt) -> None:
        """Go to a correction that was left out."""
        if self._look_at(doubt.slide, doubt.region):  # if not, why was told
            self._tell(
                "Left out: neither the model nor your other corrections agree. Correct it, or say that it is "
                "right."
            )

    def _insist(self, doubt: Doubt) -> None:
        session = self.opening.session
        if session is not None and self.opening.guarded(lambda: session.insist(doubt)):
            self._tell("It counts from the next fine-tune on.")

    def _look_at(self, fingerprint: str, region: Region) -> bool:
        """Show a place of a slide, to be corrected; returns whether its slide could be opened."""
        session = self.opening.session
        if session is None:
            return False
        if fingerprint != session.active.fingerprint and not self.opening.look_at(fingerprint):
            return False
        layers = self.opening.layers
        assert layers is not None
        show_region(layers.viewer, layers.image, region)
        if layers.editing is None:
            self.correct_wanted.emit()
        return True

    def _stop(self) -> None:
        """Leave nothing running that reads the project's slides."""
        self._checking.cancel()
        self._queue.wait()
        self.preview.wait()
        self._checking = CancelToken()
        self.section.left_out.show_doubts(())
        self._checked.clear()  # what was stopped is asked again; another project may have another pretext

    def close(self) -> None:
        """End the threads."""
        self.preview.close()
        self._queue.close()
