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
from napari_genselfdiff.annotations.pyramid import rescaled
from napari_genselfdiff.annotations.records import Report
from napari_genselfdiff.annotations.recovery import EDITS_NAME, open_for_writing
from napari_genselfdiff.annotations.store import EditStore
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.files import is_refusal
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
        Reading works, editing raises.
    why_read_only : UserError or None
        What stands in the way: another window, or a folder that cannot be written. None when nothing does, or
        reading was all that was asked for.
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
        why_read_only: UserError | None = None,
    ) -> None:
        self.folder = folder
        self.store = store
        self.recovered = recovered
        self.read_only = lock is None
        self.why_read_only = why_read_only
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
            Who draws, as told; written into every record.
        read_only : bool
            Look only, even where nobody else writes.

        Raises
        ------
        UserError
            If the folder belongs to another slide or shape, or is damaged beyond recovery.
        """
        folder = Path(folder)
        if read_only:
            return cls._to_look_at(folder, shape, slide_id, author)
        try:
            lock = WriterLock.take(folder)
        except UserError as error:
            if not folder.is_dir():
                raise
            return cls._to_look_at(folder, shape, slide_id, author, why=error)
        try:
            store, journal, recovered = open_for_writing(
                folder, shape=shape, slide_id=slide_id, author=author
            )
            return cls(folder, store, journal, lock=lock, recovered=recovered)
        except BaseException as error:
            lock.release()
            if isinstance(error, UserError) and is_refusal(error):
                return cls._to_look_at(folder, shape, slide_id, author, why=error)
            raise

    @classmethod
    def _to_look_at(
        cls, folder: Path, shape: tuple[int, int], slide_id: str, author: str, *, why: UserError | None = None
    ) -> Annotations:
        store = EditStore.open(folder / EDITS_NAME, shape=shape, slide_id=slide_id, read_only=True)
        journal = Journal(folder / JOURNAL_NAME, slide_id=slide_id, author=author, read_only=True)
        return cls(folder, store, journal, lock=None, recovered=None, why_read_only=why)

    @property
    def layers(self) -> int:
        """Number of layers: 0 is the full resolution, each further one half of it."""
        return self.store.layers

    @property
    def model(self) -> str:
        """What is written into every record as the model in use: see `audit.model_tag`; "" is none."""
        return self._journal.model

    @model.setter
    def model(self, model: str) -> None:
        self._journal.model = model

    @property
    def head(self) -> str:
        """Hash of the last record in the journal, which stands for all of it; zeros before the first."""
        return self._journal.head

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

    def looks(self) -> list[tuple[Region, str, int]]:
        """Where something was changed, in level-0 pixels, the tag of the model in use, and the position."""
        edits = (entry for entry in list(self._journal.entries) if entry.kind != "note")
        return [(rescaled(entry.box, entry.layer, 0), entry.model, entry.seq) for entry in edits]

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
                str(self.why_read_only or "open it again to draw"),
            )
        return self._history

    def _told(self, change: Change | None) -> Change | None:
        if change is not None:
            self.changed.emit(change)
        return change
