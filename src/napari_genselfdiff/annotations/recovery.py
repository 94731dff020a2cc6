"""Bringing store and journal back in step after a crash, a power cut or damage.

The journal is the truth: whatever it says happened, did, and nothing else. After an unclean end the store
may lag behind it (a chunk was not written), run ahead of it (a chunk reached the disk and its record did
not), or hold a chunk that was cut off. All chunks that this can have happened to are computed again from
their records. Only where the journal itself is missing or damaged, the store is believed: what it holds
becomes the first records of a new journal.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from napari_genselfdiff.annotations.checkpoint import Applied, read_applied, write_applied
from napari_genselfdiff.annotations.chunks import CHUNK, Key, keys_within
from napari_genselfdiff.annotations.delta import Patch
from napari_genselfdiff.annotations.journal import (
    JOURNAL_NAME,
    Journal,
    free_name,
    refuse_foreign,
    set_tail_aside,
)
from napari_genselfdiff.annotations.pyramid import layer_shape
from napari_genselfdiff.annotations.records import Scan, scan
from napari_genselfdiff.annotations.replay import rebuild
from napari_genselfdiff.annotations.store import EditStore, is_store
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.geometry import Region

EDITS_NAME = "edits"
_CLOCK_SLACK_NS = 2_000_000_000  # file systems keep times to 2 s (FAT) or better


def open_for_writing(
    folder: Path, *, shape: tuple[int, int], slide_id: str, author: str
) -> tuple[EditStore, Journal, str | None]:
    """Open store and journal in step with each other.

    The caller holds the folder's `WriterLock`.

    Returns
    -------
    EditStore
    Journal
    str or None
        What had to be recovered, in plain words.

    Raises
    ------
    UserError
        If the folder belongs to another slide, cannot be written, or both store and journal are damaged.
    """
    path = folder / JOURNAL_NAME
    now = time.time_ns()
    found = scan(path)
    refuse_foreign(found, slide_id, path)
    # A store of which not even the description can be read is no loss where the journal is whole.
    if found.entries and (folder / EDITS_NAME).exists() and not is_store(folder / EDITS_NAME):
        (folder / EDITS_NAME).rename(free_name(folder / f"{EDITS_NAME}.damaged"))
    rebuilt = not (folder / EDITS_NAME).exists() and bool(found.entries)
    store = EditStore.open(folder / EDITS_NAME, shape=shape, slide_id=slide_id)
    store.chunks.sweep()
    applied = read_applied(store.folder)
    lost = _journal_lost(found, applied, store)
    message = None
    if lost:
        drawn = _snapshot_is_readable(store)
        aside = f"; the old one is kept as {set_tail_aside(path, 0).name}" if found.size else ""
        message = (
            f"the journal was missing or damaged{aside}. What was drawn is all there, but what was drawn"
            " before now cannot be undone"
        )
        found = scan(path)
    elif not found.report.ok:
        cut = found.size - found.good
        aside = set_tail_aside(path, found.good).name
        message = (
            f"the journal's end was cut off ({cut} bytes, kept as {aside}); the {found.report.records}"
            " changes before it are all there"
        )
        found = scan(path)
    journal = Journal(path, slide_id=slide_id, author=author, scanned=found)
    try:
        if lost:
            _adopt(store, journal, drawn)
        elif applied is None or not applied.clean or applied.seq < journal.seq:
            _bring_in_step(store, journal, applied)
            if rebuilt:
                message = (
                    message or f"the annotations were rebuilt from the {journal.seq} changes in the journal"
                )
            elif journal.seq:
                message = (
                    message or f"the session had not been closed; its {journal.seq} changes are all there"
                )
        journal.flush()
        store.chunks.flush()
        store.chunks.sync()
        write_applied(store.folder, Applied(journal.seq, journal.head, clean=False, time_ns=now))
    except BaseException:
        journal.close()
        raise
    return store, journal, message


def _journal_lost(found: Scan, applied: Applied | None, store: EditStore) -> bool:
    """Whether the store knows more than the journal."""
    if applied is not None:
        if applied.seq > len(found.entries):
            return True
        return applied.seq > 0 and found.entries[applied.seq - 1].hash != applied.hash
    return bool(_own_keys(store)) and not (found.entries and found.report.ok)


def _own_keys(store: EditStore) -> list[Key]:
    return [key for layer in range(store.layers) for key in sorted(store.chunks.keys(f"own/{layer}"))]


def _snapshot_is_readable(store: EditStore) -> list[Key]:
    """Own chunks, after each was read once: before the journal is moved, the store must be known good."""
    keys = _own_keys(store)
    for key in keys:
        store.chunks.get(key)
    return keys


def _adopt(store: EditStore, journal: Journal, keys: Iterable[Key]) -> None:
    """Begin a journal with what the store holds, so that it can be rebuilt from the journal again."""
    shown = [key for layer in range(1, store.layers) for key in store.chunks.keys(f"shown/{layer}")]
    for key in shown:
        store.chunks.forget(key)
    empty = np.zeros((CHUNK, CHUNK), np.uint8)
    boxes = []
    for key in keys:
        layer = _layer_of(key)
        patch = Patch.between(layer, key.box.y, key.box.x, empty, store.chunks.get(key))
        if patch is not None:
            journal.append("note", layer=layer, box=patch.box, patches=[patch], text="found in the store")
            boxes.append((layer, patch.box))
    store.refresh_shown(boxes)


def _bring_in_step(store: EditStore, journal: Journal, applied: Applied | None) -> None:
    """Rebuild the chunks that may differ from what the journal says."""
    since = applied.time_ns - _CLOCK_SLACK_NS if applied is not None else 0
    position = applied.seq if applied is not None else 0
    modified = store.chunks.modified_since(since)
    suspects = {key for key in modified if key.array.startswith("own/")}
    present = set(_own_keys(store))
    # At the checkpoint views were in step. Since then they changed where the journal says so, or in chunks
    # that were written since; what lies around a stroke needs no look.
    changed: set[tuple[int, Region]] = set()
    for entry in journal.entries:
        drawn = len(entry.parts) - entry.cleared
        for number, (layer, box) in enumerate(entry.parts):
            inside = box.clipped(*layer_shape(store.shape, layer)) if layer < store.layers else None
            # A cleared chunk on the edge reaches beyond the slide.
            if inside is None or (number < drawn and inside != box):
                raise UserError(
                    f"record {entry.seq} of the journal lies outside the slide",
                    journal.path,
                    "open the session with its own slide, or choose another session folder",
                )
            if entry.seq > position:
                changed.add((layer, box))
            for key in keys_within(f"own/{layer}", box):
                # A chunk that is not there may rightly be empty, or its file may never have reached the disk.
                if key not in present:
                    changed.add((layer, key.box))
                    suspects.add(key)
                elif entry.seq > position:
                    suspects.add(key)
    rebuild(store, journal, suspects)
    derived = modified - suspects
    for key in derived:
        store.chunks.forget(key)
        changed.add((_layer_of(key), key.box))
    store.refresh_shown(sorted(changed, key=lambda place: (place[0], place[1].y, place[1].x)))


def _layer_of(key: Key) -> int:
    return int(key.array.partition("/")[2])
