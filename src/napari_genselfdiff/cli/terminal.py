"""Events on a terminal: a progress bar, warnings, and Ctrl-C as a request to stop."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer

from napari_genselfdiff.events import CancelToken, Event, Finished, LossPoint, Progress

PROGRAM = "napari-genselfdiff"
STOPPED = 130


def follow(work: Callable[[CancelToken], Iterator[Event]], *, quiet: bool = False) -> Any:
    """Run work to its end with a progress bar on standard error, where that is a terminal.

    Parameters
    ----------
    work : callable
        Gets the token that Ctrl-C sets; gives the events.
    quiet : bool
        Show and say nothing: another process does.

    Returns
    -------
    object
        The result of the work.

    Raises
    ------
    typer.Exit
        With status 130 when it was stopped.
    """
    cancel = CancelToken()
    finished = Finished()
    with _stopping(cancel), _bar(quiet or not sys.stderr.isatty()) as show:
        for event in work(cancel):
            show(event)
            if isinstance(event, Finished):
                finished = event
    if finished.cancelled:
        if not quiet:
            complain(finished.message)
        raise typer.Exit(STOPPED)
    return finished.result


def examples(*lines: str) -> str:
    """Text behind a verb's help."""
    # click keeps the line breaks of a paragraph that begins with a backspace.
    return "\b\nExamples:\n" + "\n".join(f"  {PROGRAM} {line}" for line in lines)


def complain(line: str) -> None:
    """Write one line to standard error."""
    typer.echo(" ".join(line.split()), err=True)


@contextmanager
def warnings_shown() -> Iterator[None]:
    """Show what the package logs as warnings."""
    logger = logging.getLogger("napari_genselfdiff")
    handler = _Lines(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        complain(f"warning: {record.getMessage()}")


@contextmanager
def _bar(quiet: bool) -> Iterator[Callable[[Event], None]]:
    if quiet:
        yield lambda event: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Bar(
        *columns, TextColumn("{task.fields[left]}"), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("starting", total=None, left="")
        loss = ""

        def show(event: Event) -> None:
            nonlocal loss
            if isinstance(event, LossPoint):
                loss = f", loss {event.loss:.3f}"
            elif isinstance(event, Progress):
                bar.update(
                    task,
                    description=event.message + loss,
                    completed=event.done,
                    total=event.total or None,
                    left=_time(event.seconds_left),
                )

        yield show


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}") + " left"


@contextmanager
def _stopping(cancel: CancelToken) -> Iterator[None]:
    """Let Ctrl-C, and the signal that batch systems send, ask for a stop; the second one breaks off."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Signals belong to the main thread.
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if cancel.cancelled:
            raise KeyboardInterrupt
        cancel.cancel()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
