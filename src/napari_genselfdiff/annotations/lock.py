"""One writer at a time: an operating-system lock on a file in the session's folder."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

LOCK_NAME = "session.lock"


class WriterLock:
    """The right to write into a session folder; the system gives it back when the process dies.

    Use `acquire`.
    """

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    @classmethod
    def acquire(cls, folder: Path) -> WriterLock | None:
        """Take the lock of a folder, which is made when it does not exist.

        Returns
        -------
        WriterLock or None
            None when another session writes there, or when the folder cannot be written.
        """
        # Not thread-local: a session may be closed by another thread than the one that opened it.
        lock = FileLock(folder / LOCK_NAME, timeout=0, thread_local=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except (Timeout, OSError):
            return None
        return cls(lock)

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()
