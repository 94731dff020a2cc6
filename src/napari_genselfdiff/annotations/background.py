"""A task that runs a little after it was asked for, off the calling thread; many requests make one run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from napari_genselfdiff.errors import UserError

_LOG = logging.getLogger(__name__)


class GroupedTask:
    """Runs a function at most ``delay`` seconds after a request, once for all requests until then.

    Parameters
    ----------
    task : callable
        What to run. A `UserError` of it is kept for `failure`.
    delay : float
        Seconds.
    name : str
        Name of the thread, which starts with the first request.
    """

    def __init__(self, task: Callable[[], None], *, delay: float, name: str) -> None:
        self._task, self._delay, self._name = task, delay, name
        self._requested = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: UserError | None = None

    def request(self) -> None:
        """Ask for a run."""
        self._requested.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def failure(self) -> UserError | None:
        """Return the error of a run since the last call, if there was one."""
        failure, self._failure = self._failure, None
        return failure

    def close(self) -> None:
        """Stop the thread; a run that has begun ends first, one that only was asked for is dropped."""
        self._stopping.set()
        self._requested.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while True:
            self._requested.wait()
            if self._stopping.wait(self._delay):
                return
            self._requested.clear()
            if self._stopping.is_set():  # its own request may just have been cleared
                return
            try:
                self._task()
            except UserError as error:
                _LOG.warning("%s: %s", self._name, error)
                self._failure = error
