"""One writer at a time: an operating-system lock on a file in the session's folder."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.files import make_folder, not_written

LOCK_NAME = "session.lock"


class WriterLock:
    """The right to write into a session folder; the system gives it back when the process dies.

    Use `take`.
    """

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    @classmethod
    def take(cls, folder: Path) -> WriterLock:
        """Take the lock of a folder, which is made when it does not exist.

        Raises
        ------
        UserError
            When another session writes there, or when the folder cannot be written.
        """
        # Not thread-local: a session may be closed by another thread than the one that opened it.
        lock = FileLock(folder / LOCK_NAME, timeout=0, thread_local=False)
        try:
            make_folder(folder)
            lock.acquire()
        except Timeout as error:
            raise UserError(
                "the session is open in another window", folder, "close it there to draw here"
            ) from error
        except OSError as error:
            raise not_written("the session folder", folder, error) from error
        return cls(lock)

    @classmethod
    def acquire(cls, folder: Path) -> WriterLock | None:
        """Take the lock of a folder, or None where `take` raises."""
        try:
            return cls.take(folder)
        except UserError:
            return None

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()
