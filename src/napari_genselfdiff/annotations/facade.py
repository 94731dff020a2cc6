"""One slide's annotations in a session folder: everything that the rest of the program needs of this room."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from psygnal import Signal

from napari_genselfdiff.annotations.codes import Codes, Mask
from napari_genselfdiff.annotations.history import Change, History
from napari_genselfdiff.annotations.journal import JOURNAL_NAME, Journal
from napari_genselfdiff.annotations.lock import WriterLock
from napari_genselfdiff.annotations.records import Report
from napari_genselfdiff.annotations.recovery import EDITS_NAME, open_for_writing
from napari_genselfdiff.annotations.store import EditStore
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.geometry import Region


class Annotations:
    """What a person drew on one slide, with undo, on disk within a second.

    Use `open`; close it, or use it in a ``with`` block. Boxes are in the pixels of the layer that is named
    beside them (layer ``k`` is the slide at 1 / 2**k), but those of `supervised_boxes` are in level-0 pixels.

    Attributes
    ----------
    changed : Signal
        Emits a `Change` after each stroke, accepted view, undo and redo, on the thread that made it.
    folder : Path
    read_only : bool
        Another session has the folder open, or it cannot be written: reading works, editing raises.
    recovered : str or None
        What was recovered on opening, in plain words.
    store : EditStore
        The pixels.
    """

    changed = Signal(Change)

    def __init__(
        self,
        folder: Path,
        store: EditStore,
        journal: Journal,
        *,
        lock: WriterLock | None,
        recovered: str | None,
    ) -> None:
        self.folder = folder
        self.store = store
        self.recovered = recovered
        self.read_only = lock is None
        self._journal = journal
        self._lock = lock
        self._history = History(store, journal) if lock is not None else None

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        shape: tuple[int, int],
        slide_id: str,
        author: str = "",
        read_only: bool = False,
    ) -> Annotations:
        """Open the annotations of a slide, and make them when there are none.

        Parameters
        ----------
        folder : str or Path
            The session's folder; ``journal.ndjson`` and ``edits/`` in it belong to this class.
        shape : tuple of int
            ``(height, width)`` of the slide in level-0 pixels.
        slide_id : str
            What identifies the slide; written into every record.
        author : str
            Who draws; written into every record.
        read_only : bool
            Look only, even where nobody else writes.

        Raises
        ------
        UserError
            If the folder belongs to another slide or shape, or is damaged beyond recovery.
        """
        folder = Path(folder)
        lock = None if read_only else WriterLock.acquire(folder)
        if lock is None:
            if not read_only and not folder.is_dir():
                raise UserError("the session folder cannot be made", folder, "choose another folder")
            store = EditStore.open(folder / EDITS_NAME, shape=shape, slide_id=slide_id, read_only=True)
            journal = Journal(folder / JOURNAL_NAME, slide_id=slide_id, author=author, read_only=True)
            return cls(folder, store, journal, lock=None, recovered=None)
        try:
            store, journal, recovered = open_for_writing(
                folder, shape=shape, slide_id=slide_id, author=author
            )
            return cls(folder, store, journal, lock=lock, recovered=recovered)
        except BaseException:
            lock.release()
            raise

    @property
    def layers(self) -> int:
        """Number of layers: 0 is the full resolution, each further one half of it."""
        return self.store.layers

    @property
    def position(self) -> int:
        """Number of the last record in the journal; 0 before the first."""
        return self._journal.seq

    @property
    def can_undo(self) -> bool:
        """Whether there is an edit to take back."""
        return self._history is not None and self._history.can_undo

    @property
    def can_redo(self) -> bool:
        """Whether there is an edit to bring back."""
        return self._history is not None and self._history.can_redo

    def read(self, layer: int, region: Region) -> Codes:
        """Pixel codes that are seen in a region (in the pixels of ``layer``); unseen beyond the slide."""
        return self.store.read(layer, region.y, region.x, region.height, region.width)

    def stroke(self, layer: int, y: int, x: int, codes: Codes, mask: Mask) -> Change | None:
        """Draw at a magnification.

        Parameters
        ----------
        layer, y, x : int
            Layer of the edit, and the first pixel of ``codes`` in it.
        codes : ndarray of uint8, shape (height, width)
            New codes (`codes.encode`); 0 makes a pixel unseen again.
        mask : ndarray of bool, shape (height, width)
            Which pixels are edited. Those beyond the slide are left out.

        Returns
        -------
        Change or None
            Where the view changed; None when it did not.

        Raises
        ------
        UserError
            If the session is read-only or the edit cannot be written; nothing has changed then.
        """
        return self._told(self._writable().stroke(layer, y, x, codes, mask))

    def accept(self, layer: int, box: Region, codes: Codes) -> Change | None:
        """Accept a view as right: see `History.accept`. Raises and returns what `stroke` does."""
        return self._told(self._writable().accept(layer, box, codes))

    def undo(self) -> Change | None:
        """Take the last edit back, of this or any earlier run. Raises and returns what `stroke` does."""
        return self._told(self._writable().undo())

    def redo(self) -> Change | None:
        """Bring back the edit that was undone last. Raises and returns what `stroke` does."""
        return self._told(self._writable().redo())

    def supervised_boxes(self) -> list[Region]:
        """Where something was drawn or accepted, in level-0 pixels, at most one box a chunk and layer."""
        return self.store.supervised_boxes()

    def flush(self) -> None:
        """Make every record of the journal durable now, rather than within a second."""
        self._journal.flush()

    def verify(self) -> Report:
        """Read the journal again and check its chain of hashes."""
        return self._journal.verify()

    def checkpoint(self) -> None:
        """Make journal and pixels durable now.

        Raises
        ------
        UserError
            If the disk does not take it.
        """
        if self._history is not None:
            self._history.checkpoint()

    def close(self) -> None:
        """Make everything durable and let others write; safe to call twice."""
        history, self._history = self._history, None
        lock, self._lock = self._lock, None
        self.read_only = True
        try:
            if history is not None:
                history.close()
        finally:
            try:
                self._journal.close()
            finally:
                if lock is not None:
                    lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _writable(self) -> History:
        if self._history is None:
            raise UserError(
                "the session is open for looking only",
                self.folder,
                "close it in the other window, or choose a folder that can be written",
            )
        return self._history

    def _told(self, change: Change | None) -> Change | None:
        if change is not None:
            self.changed.emit(change)
        return change
