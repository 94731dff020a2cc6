"""One piece of long work at a time, shown in the status line."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from napari.utils.notifications import show_info
from qtpy.QtCore import QObject, Signal

from napari_genselfdiff.events import CancelToken, Event, Finished, Progress
from napari_genselfdiff.widgets.sections import StatusSection
from napari_genselfdiff.workers import Job


class Runner(QObject):
    """Runs a generator of events in a thread, shows its progress, and hands its other events on.

    Parameters
    ----------
    status : StatusSection

    Attributes
    ----------
    job : Job or None
        What runs now.
    """

    changed = Signal()
    """Work began or ended."""

    def __init__(self, status: StatusSection) -> None:
        super().__init__()
        self.status = status
        self.job: Job | None = None
        self._cancel = CancelToken()
        status.cancel_clicked.connect(self.cancel)

    def start(
        self,
        work: Callable[[CancelToken], Iterator[Event]],
        *,
        on_event: Callable[[Event], None] = lambda _event: None,
        on_finished: Callable[[Finished], None],
        on_error: Callable[[str], None] = lambda _message: None,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin; nothing when other work runs.

        Parameters
        ----------
        work : callable
            Makes the generator, with the token that it honours.
        on_event : callable
            Called in the interface's thread with what is neither `Progress` nor `Finished`.
        on_finished : callable
            Called there with the last event; it sets the status line.
        on_error : callable
            Called there with one line of text; the status line shows it already.
        then : callable
            Called there at the very end, when other work may begin.
        """
        if self.job is not None:
            return
        self._cancel = CancelToken()

        def receive(event: Event) -> None:
            if isinstance(event, Progress):
                share = event.done / event.total if event.total else None
                self.status.show_running(event.message, share, event.seconds_left)
            elif isinstance(event, Finished):
                on_finished(event)
            else:
                on_event(event)

        def failed(message: str) -> None:
            self.status.show_idle(message)
            on_error(message)

        def ended() -> None:
            self.job = None
            self.changed.emit()
            then()

        self.status.show_running("starting", None, None)
        self.job = Job(work(self._cancel), self._cancel, on_event=receive, on_error=failed, on_end=ended)
        self.changed.emit()

    def explain(self, message: str) -> None:
        """Say why something was not done: beside the status line while that shows what runs."""
        if self.job is None:
            self.status.show_idle(message)
        else:
            show_info(message)

    def cancel(self) -> None:
        """Ask what runs to stop; honoured within one step."""
        self._cancel.cancel()

    def close(self) -> None:
        """Stop what runs, wait for its last step, and say nothing more."""
        job, self.job = self.job, None
        if job is not None:
            job.close()
            self.status.show_idle("Stopped.")
