"""Edits in order: the journal first, then the store; undo and redo without limit and across restarts."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np

from napari_genselfdiff.annotations.background import GroupedTask
from napari_genselfdiff.annotations.checkpoint import Applied, write_applied
from napari_genselfdiff.annotations.chunks import keys_within
from napari_genselfdiff.annotations.codes import ACCEPTED_BIT, UNSEEN, Codes, Mask
from napari_genselfdiff.annotations.delta import Cleared, Patch
from napari_genselfdiff.annotations.journal import Journal
from napari_genselfdiff.annotations.pyramid import hull, rescaled
from napari_genselfdiff.annotations.records import Entry, Kind
from napari_genselfdiff.annotations.replay import rebuild
from napari_genselfdiff.annotations.store import EditStore
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.geometry import Region

_CHECKPOINT_EVERY = 30.0  # seconds


@dataclass(frozen=True)
class Change:
    """Where a view has to be drawn again.

    Attributes
    ----------
    layer : int
    y, x, height, width : int
        A rectangle in the pixels of that layer. Views at other layers change in the same place.
    """

    layer: int
    y: int
    x: int
    height: int
    width: int


class History:
    """Ties a store and its journal together. Safe to use from several threads.

    Parameters
    ----------
    store : EditStore
        In step with the journal.
    journal : Journal
        Open for writing.
    checkpoint_every : float
        Seconds between checkpoints while edits are made.

    Notes
    -----
    A record holds the stored pixels before and after, absolutely, and an undo is a record with the two
    swapped. So a replay writes ``after`` of record after record. One thing is not repeated: what fine chunks
    held that a coarse edit covers wholly. Such an edit is small and quick over any number of them, and its
    undo reads the journal again.
    """

    def __init__(
        self, store: EditStore, journal: Journal, *, checkpoint_every: float = _CHECKPOINT_EVERY
    ) -> None:
        self._store, self._journal = store, journal
        self._done: list[Entry] = []
        self._undone: list[Entry] = []
        self._lock = threading.RLock()
        self._checkpointing = threading.Lock()
        self._in_step = True
        for entry in journal.entries:
            self._follow(entry)
        self._task = GroupedTask(self.checkpoint, delay=checkpoint_every, name="annotations-checkpoint")

    @property
    def can_undo(self) -> bool:
        """Whether there is an edit to take back."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether there is an edit to bring back."""
        return bool(self._undone)

    def stroke(self, layer: int, y: int, x: int, codes: Codes, mask: Mask) -> Change | None:
        """Draw: see `EditStore.plan`; None when nothing changes.

        Raises
        ------
        UserError
            If it cannot be written; nothing has changed then.
        """
        with self._lock:
            return self._edit("stroke", layer, self._store.plan(layer, y, x, codes, mask))

    def accept(self, layer: int, box: Region, codes: Codes) -> Change | None:
        """Accept a view as right; what was drawn by hand stays as it is.

        Parameters
        ----------
        layer : int
        box : Region
            The view, in the pixels of that layer.
        codes : ndarray of uint8, shape (box.height, box.width)
            Its classes (`codes.encode`); unseen pixels are left alone.

        Raises
        ------
        UserError
            If it cannot be written; nothing has changed then.
        """
        if codes.shape != (box.height, box.width):
            raise ValueError(f"codes of {codes.shape} do not fit a box of {(box.height, box.width)}")
        mask = codes != UNSEEN
        accepted = np.where(mask, codes | np.uint8(ACCEPTED_BIT), np.uint8(UNSEEN))
        with self._lock:
            patches = self._store.plan(layer, box.y, box.x, accepted, mask, keep_edited=True)
            return self._edit("accept", layer, patches)

    def undo(self) -> Change | None:
        """Take the last edit back; None when there is none.

        Raises
        ------
        UserError
            If it cannot be written or its record cannot be read; nothing has changed then.
        """
        with self._lock:
            if not self._done:
                return None
            entry = self._done[-1]
            patches = _swapped(self._journal.patches(entry))
            return self._write("undo", entry.layer, entry.box, patches, of=entry.seq)

    def redo(self) -> Change | None:
        """Bring the edit back that was undone last; None when there is none, or something new was drawn.

        Raises
        ------
        UserError
            If it cannot be written or its record cannot be read; nothing has changed then.
        """
        with self._lock:
            if not self._undone:
                return None
            entry = self._undone[-1]
            return self._write("redo", entry.layer, entry.box, self._journal.patches(entry), of=entry.seq)

    def checkpoint(self, *, closing: bool = False) -> None:
        """Make journal and store durable, and remember how far the store is.

        Parameters
        ----------
        closing : bool
            Nothing follows: the next start needs no recovery.

        Raises
        ------
        UserError
            If the disk does not take it.
        """
        with self._checkpointing:
            with self._lock:
                # Taken first: strokes that come in while the disk works lie behind this checkpoint.
                applied = Applied(
                    seq=self._journal.seq,
                    hash=self._journal.head,
                    clean=closing and self._in_step,
                    time_ns=time.time_ns(),
                )
            self._journal.flush()
            self._store.chunks.flush()
            self._store.chunks.sync()
            if self._in_step:
                write_applied(self._store.folder, applied)

    def close(self) -> None:
        """Checkpoint and stop."""
        self._task.close()
        self.checkpoint(closing=True)

    def _edit(self, kind: Kind, layer: int, patches: list[Patch | Cleared]) -> Change | None:
        if not patches:
            return None
        box = hull([rescaled(patch.box, patch.layer, layer) for patch in patches])
        return self._write(kind, layer, box, patches)

    def _write(
        self, kind: Kind, layer: int, box: Region, patches: list[Patch | Cleared], of: int | None = None
    ) -> Change:
        entry = self._journal.append(kind, layer=layer, box=box, patches=patches, of=of)
        try:
            if kind == "undo":
                self._bring_back(patches)
            else:
                self._store.write(patches)
        except UserError:
            self._take_back(entry, patches)
            raise
        self._follow(entry)
        self._task.request()
        return Change(layer, box.y, box.x, box.height, box.width)

    def _bring_back(self, patches: list[Patch | Cleared]) -> None:
        """Write patches, and what the journal says that cleared chunks hold now."""
        self._store.write([patch for patch in patches if isinstance(patch, Patch)])
        cleared = [patch for patch in patches if isinstance(patch, Cleared)]
        if cleared:
            keys = [key for part in cleared for key in keys_within(f"own/{part.layer}", part.box)]
            rebuild(self._store, self._journal, keys, deferred=True)
            self._store.refresh_shown([(part.layer, part.box) for part in cleared])

    def _take_back(self, entry: Entry, patches: list[Patch | Cleared]) -> None:
        self._journal.retract(entry)
        try:
            self._bring_back(_swapped(patches))
        except UserError:
            # The store holds a part of an edit that never was. Without a clean checkpoint, the next start
            # rebuilds the chunks that were written since the last one.
            self._in_step = False

    def _follow(self, entry: Entry) -> None:
        if entry.kind in ("stroke", "accept"):
            self._done.append(entry)
            self._undone.clear()
        elif entry.kind == "undo" and self._done:
            self._undone.append(self._done.pop())
        elif entry.kind == "redo" and self._undone:
            self._done.append(self._undone.pop())


def _swapped(patches: list[Patch | Cleared]) -> list[Patch | Cleared]:
    """Return what takes patches back; a cleared chunk is named again."""
    return [patch.swapped() if isinstance(patch, Patch) else patch for patch in patches]
