"""The one adapter between work and Qt threads: generators of events, and short work in order."""

from __future__ import annotations

import gc
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeVar

from qtpy.QtCore import QObject, Signal
from superqt.utils import create_worker

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Event

logger = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_SECONDS = 30.0
"""How long closing waits for the last step of running work."""
NEEDED_BY_WORK = (
    "napari_genselfdiff.diffusion.domain",
    "napari_genselfdiff.finetuning.instant",
    "napari_genselfdiff.finetuning.rounds",
    "napari_genselfdiff.finetuning.suggestions",
    "napari_genselfdiff.session.cohorts",
    "napari_genselfdiff.session.work",
    "napari_genselfdiff.verbs.streaming",
)
_UNEXPECTED = "something went wrong: {} (details are in the log)"


class Job(QObject):
    """A generator of events that runs in a thread of its own.

    Parameters
    ----------
    events : iterator of Event
        Runs in the thread; must not touch Qt.
    cancel : CancelToken
        The token that ``events`` honours.
    on_event : callable
        Called in the thread of the interface for each event.
    on_error : callable
        Called there with one line of text when the work failed.
    on_end : callable
        Called there once, last, however it ended.
    """

    def __init__(
        self,
        events: Iterator[Event],
        cancel: CancelToken,
        *,
        on_event: Callable[[Event], None],
        on_error: Callable[[str], None],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__()
        self._cancel = cancel
        self._on_event, self._on_error, self._on_end = on_event, on_error, on_end
        self._closed = False
        self._done = threading.Event()
        self._turn = threading.Lock()  # taken once: by the work that begins, or by who closes before
        self._worker = create_worker(_guarded, events, self._turn, self._done, _start_thread=False)
        self._worker.yielded.connect(self._receive)
        self._worker.finished.connect(self._ended)
        self._worker.start()

    def cancel(self) -> None:
        """Ask the work to stop; honoured within one step."""
        self._cancel.cancel()

    def close(self) -> None:
        """Stop the work, wait for its last step, and say nothing more."""
        self._closed = True
        self._cancel.cancel()
        if self._turn.acquire(blocking=False):
            self._done.set()  # all threads are busy; what has not begun never will
        self._done.wait(PATIENCE_SECONDS)

    def _receive(self, event: Event | _Failure) -> None:
        if self._closed:
            return
        if isinstance(event, _Failure):
            self._on_error(event.message)
        else:
            self._on_event(event)

    def _ended(self, _nothing: None = None) -> None:
        if not self._closed:
            self._on_end()


class Queue(QObject):
    """Short work in one thread of its own, one after the other; results come back in the same order.

    For what the interface must not wait for, and whose order matters: strokes on their way to the disk, and
    what is read after them. Belongs to the interface's thread.
    """

    _finished = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="genselfdiff-edits")
        self._waiting: deque[tuple[Future[Any], Callable[[Any], None], Callable[[str], None]]] = deque()
        self._finished.connect(self._deliver)

    def submit(
        self, work: Callable[[], T], on_done: Callable[[T], None], on_error: Callable[[str], None]
    ) -> None:
        """Do something after all that was submitted before.

        Parameters
        ----------
        work : callable
            Runs in the thread; must not touch Qt.
        on_done : callable
            Called with its result in the interface's thread.
        on_error : callable
            Called there instead, with one line of text, when it failed.
        """
        future = self._executor.submit(work)
        self._waiting.append((future, on_done, on_error))
        future.add_done_callback(lambda _future: self._finished.emit())

    def wait(self) -> None:
        """Return when all that was submitted is done and its results were delivered."""
        while self._waiting:
            wait([self._waiting[-1][0]])
            self._deliver()

    def close(self) -> None:
        """Finish what was submitted, and end the thread."""
        self.wait()
        self._executor.shutdown()

    def _deliver(self) -> None:
        while self._waiting and self._waiting[0][0].done():
            future, on_done, on_error = self._waiting.popleft()
            error = future.exception()
            if error is None:
                on_done(future.result())
            else:
                if not isinstance(error, UserError):
                    logger.error("background work failed", exc_info=error)
                on_error(str(error) if isinstance(error, UserError) else _UNEXPECTED.format(error))


def warm_up_in_background() -> None:
    """Import in a thread what the first work needs, so that it does not stall the interface later."""
    threading.Thread(target=warm_up, name="genselfdiff-warm-up", daemon=True).start()


def warm_up() -> None:
    """Import what work imports when it begins, and torch's optimisers."""
    for name in NEEDED_BY_WORK:
        import_module(name)
    import_module("napari_genselfdiff.finetuning.loop").warm_up()


@contextmanager
def _old_objects_left_alone() -> Iterator[None]:
    """Let garbage collection look only at what is made meanwhile.

    Training makes so many objects that Python looks through all that there are, hundreds of thousands of a
    window of napari, and holds the interface up for half a second. Not on Windows: napari collects garbage
    when a layer is removed, because drivers there may crash on what is left of it, and must find it.
    """
    # Where others have frozen objects, they know until when.
    if sys.platform == "win32" or gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Failure:
    """An exception on its way to the interface."""

    def __init__(self, message: str) -> None:
        self.message = message


def _guarded(
    events: Iterator[Event], turn: threading.Lock, done: threading.Event
) -> Iterator[Event | _Failure]:
    """Pass events on; an exception becomes the last one.

    superqt's worker returns a ``RuntimeError`` instead of raising it and then never finishes, and torch's
    errors are of that type: none may leave this generator.
    """
    if not turn.acquire(blocking=False):
        return
    try:
        with _old_objects_left_alone():
            yield from events
    except UserError as error:
        yield _Failure(str(error))
    except Exception as error:
        logger.exception("background work failed")
        yield _Failure(_UNEXPECTED.format(error))
    finally:
        done.set()
