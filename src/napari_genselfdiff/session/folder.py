"""The folder of a session: one window writes, others look."""

from __future__ import annotations

from pathlib import Path

from napari_genselfdiff.annotations.lock import WriterLock
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.files import is_refusal
from napari_genselfdiff.session.state import read_state


class SessionFolder:
    """What ``session.json`` says, and the right to change it; see `Session`, which is one.

    Parameters
    ----------
    folder : Path
        Made when it does not exist.

    Attributes
    ----------
    folder : Path
    read_only : bool
    why_read_only : UserError or None

    Raises
    ------
    UserError
        If the session file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: WriterLock | None = None
        self.why_read_only: UserError | None = None
        # Before anything is read: the window that writes now may change it until it is closed.
        try:
            self._lock = WriterLock.take(folder)
        except UserError as error:
            self.why_read_only = error
        self.read_only = self._lock is None
        try:
            self._state = read_state(folder)
        except BaseException:
            self._release()
            raise

    def save(self) -> None:
        """Write ``session.json``; nothing when the session is open for looking only."""
        if not self.read_only:
            self._state.write(self.folder)

    def check_writable(self) -> None:
        """Refuse to change anything where the session can only be looked at.

        Raises
        ------
        UserError
            With what stands in the way.
        """
        if self.read_only:
            why = str(self.why_read_only or "open it again")
            raise UserError("the session is open for looking only", self.folder, why)

    def _save_or_look(self) -> None:
        """Write ``session.json``; on a disk that does not take it, the session is for looking only."""
        try:
            self.save()
        except UserError as error:
            if not is_refusal(error):
                raise
            self.read_only, self.why_read_only = True, error

    def _release(self) -> None:
        """Let others write."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()
