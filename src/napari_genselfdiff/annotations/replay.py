"""Chunks computed again from the journal: after a crash, and where an edit that cleared them is undone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from napari_genselfdiff.annotations.chunks import CHUNK, Key, keys_within
from napari_genselfdiff.annotations.codes import Codes
from napari_genselfdiff.annotations.delta import Cleared
from napari_genselfdiff.annotations.journal import Journal
from napari_genselfdiff.annotations.store import EditStore

_BATCH = 256  # chunks rebuilt at a time: 64 MiB

Records = dict[Key, list[tuple[int, int]]]
"""Of every chunk the records that are about it: index in the journal, and number of the part."""


def records_of(journal: Journal) -> Records:
    """Find the records of all chunks."""
    records: Records = {}
    for index, entry in enumerate(journal.entries):
        for number, (layer, box) in enumerate(entry.parts):
            for key in keys_within(f"own/{layer}", box):
                records.setdefault(key, []).append((index, number))
    return records


def rebuild(
    store: EditStore,
    journal: Journal,
    keys: Iterable[Key],
    records: Records | None = None,
    *,
    deferred: bool = False,
) -> None:
    """Bring own chunks to what the journal says, whatever they hold; `refresh_shown` is left to the caller.

    Parameters
    ----------
    store : EditStore
    journal : Journal
    keys : iterable of Key
    records : dict, optional
        What `records_of` found.
    deferred : bool
        Leave them in memory until the next flush.
    """
    records = records_of(journal) if records is None else records
    for key, chunk in replayed(journal, keys, records):
        # The old file may be damaged, and must not be read while the new one is written.
        store.chunks.forget(key)
        store.put_own(key, chunk, deferred=deferred)


def replayed(journal: Journal, keys: Iterable[Key], records: Records) -> Iterator[tuple[Key, Codes]]:
    """Yield what the journal says that own chunks hold, in the order of their keys."""
    ordered = sorted(keys)
    for start in range(0, len(ordered), _BATCH):
        yield from _replayed(journal, ordered[start : start + _BATCH], records).items()


def _replayed(journal: Journal, keys: list[Key], records: Records) -> dict[Key, Codes]:
    chunks: dict[Key, Codes] = {key: np.zeros((CHUNK, CHUNK), np.uint8) for key in keys}
    held: dict[tuple[Key, int], Codes] = {}
    wanted: dict[int, list[tuple[int, Key]]] = {}
    for key in keys:
        for index, number in records.get(key, ()):
            wanted.setdefault(index, []).append((number, key))
    for index in sorted(wanted):
        entry = journal.entries[index]
        patches = journal.patches(entry)
        for number, key in wanted[index]:
            patch = patches[number]
            if isinstance(patch, Cleared):
                # The edit, its undo and its redo all name the chunk; an undo brings back what it held.
                if entry.kind == "undo":
                    chunks[key] = held.pop((key, entry.of or 0))
                    continue
                held[key, entry.of or entry.seq] = chunks[key].copy()
            patch.draw(chunks[key], key.box)
    return chunks
