"""The journal read as an audit trail, and the checks that it can stand.

Each record repeats the hash of the one before. That shows damage. It shows tampering only where a hash of the
journal was kept elsewhere, because whoever can write the file can also compute its hashes anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from napari_genselfdiff.annotations.checkpoint import read_applied
from napari_genselfdiff.annotations.codes import Codes, classes_of, is_accepted
from napari_genselfdiff.annotations.delta import Patch
from napari_genselfdiff.annotations.journal import JOURNAL_NAME, Journal
from napari_genselfdiff.annotations.pyramid import rescaled
from napari_genselfdiff.annotations.records import FIRST_HASH, Entry, decode_patches, scan
from napari_genselfdiff.annotations.recovery import EDITS_NAME
from napari_genselfdiff.annotations.replay import records_of, replayed
from napari_genselfdiff.annotations.store import EditStore, identity
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.geometry import Region

_TAG = " sha256:"
_TAG_DIGITS = 16
_MODEL = re.compile(rb'"model":("(?:[^"\\]|\\.)*")')


def model_tag(name: str, sha256: str) -> str:
    """What a record says of the model in use: its name and the beginning of its file's hash."""
    return f"{name}{_TAG}{sha256[:_TAG_DIGITS]}"


def split_tag(tag: str) -> tuple[str, str]:
    """Name of a model and beginning of its file's hash; the latter is empty where none was written."""
    name, _, digest = tag.rpartition(_TAG) if _TAG in tag else (tag, "", "")
    return name, digest


@dataclass(frozen=True)
class Transition:
    """How many pixels of a layer went from one meaning to another.

    Attributes
    ----------
    layer : int
    before, after : str
        ``unseen``, a class, or a class with ``(accepted)``.
    pixels : int
        Of that layer; each is ``4**layer`` level-0 pixels.
    """

    layer: int
    before: str
    after: str
    pixels: int


@dataclass(frozen=True)
class AuditRecord:
    """One record, readable.

    Attributes
    ----------
    seq : int
    time : str
        ISO 8601, UTC, by the clock of the computer.
    author : str
        As told.
    kind : str
        ``stroke``, ``accept``, ``undo``, ``redo`` or ``note``.
    of : int or None
        The record that is undone or redone.
    model : str
        What was in use (`model_tag`); empty where the journal does not say.
    slide : str
        Fingerprint of the slide.
    layer : int
        Magnification of the edit: 1 / 2**layer.
    region : Region
        Where, in level-0 pixels.
    transitions : tuple of Transition
        Stored pixels before and after, largest first; finer layers that the edit cleared are listed too.
    cleared : int
        Finer chunks of 512 x 512 pixels that the edit covered wholly, beside those.
    text : str
    hash : str
        SHA-256 of the record.
    """

    seq: int
    time: str
    author: str
    kind: str
    of: int | None
    model: str
    slide: str
    layer: int
    region: Region
    transitions: tuple[Transition, ...]
    cleared: int
    text: str
    hash: str


@dataclass(frozen=True)
class Audit:
    """The outcome of checking the annotations of one slide.

    Attributes
    ----------
    folder : Path
    slide : str
        Fingerprint, as the first record says; empty without records.
    hashes : tuple of str
        Of all good records, the last being the head.
    authors, models : tuple of str
        All that records name.
    first, last : str
        Times of the first and the last record.
    chained : bool
        Whether the chain of hashes holds from the first line to the last.
    replayed, agrees : bool
        Whether the stored pixels were compared with a replay, and whether they are the same.
    problems, notes : tuple of str
        What is wrong, and what is worth knowing, in plain words.
    """

    folder: Path
    slide: str
    hashes: tuple[str, ...]
    authors: tuple[str, ...]
    models: tuple[str, ...]
    first: str
    last: str
    chained: bool
    replayed: bool
    agrees: bool
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def head(self) -> str:
        """Hash of the last good record; zeros before the first."""
        return self.hashes[-1] if self.hashes else FIRST_HASH


def read_records(
    folder: Path, *, last: int | None = None, classes: Sequence[str] = ()
) -> Iterator[AuditRecord]:
    """Read the good records of a journal, one after the other.

    Parameters
    ----------
    folder : Path
        Where ``journal.ndjson`` lies.
    last : int, optional
        Only so many, of the end.
    classes : sequence of str
        Names of the classes.

    Raises
    ------
    UserError
        If the journal cannot be read.
    """
    entries = scan(folder / JOURNAL_NAME).entries
    if not entries:
        return
    with (folder / JOURNAL_NAME).open("rb") as file:
        for entry in entries if last is None else entries[max(0, len(entries) - last) :]:
            file.seek(entry.offset)
            yield _readable(file.read(entry.length), entry, classes)


def models_named(folder: Path) -> set[str]:
    """Names of the models that a journal says were in use, found without reading what was drawn."""
    try:
        with (folder / JOURNAL_NAME).open("rb") as file:
            found = {match[1] for line in file if (match := _MODEL.search(line))}
    except OSError:
        return set()
    return {split_tag(json.loads(tag))[0] for tag in found}


def audit(folder: Path, *, replay: bool = False) -> Audit:
    """Check a journal, and the stored pixels against it; nothing is written.

    Parameters
    ----------
    folder : Path
        Where ``journal.ndjson`` lies.
    replay : bool
        Compute all pixels again from the journal and compare them with what is stored.

    Raises
    ------
    UserError
        If the journal cannot be read.
    """
    found = scan(folder / JOURNAL_NAME)
    entries, problems, notes = found.entries, [], []
    if found.report.problem:
        problems.append(f"line {found.report.line} of the journal: {found.report.problem}")
    slides = {entry.slide for entry in entries}
    if len(slides) > 1:
        problems.append("the journal is about several slides")
    applied = read_applied(folder / EDITS_NAME)
    if applied is not None and applied.seq > len(entries):
        problems.append(
            f"records at the end are missing: the stored pixels know of {applied.seq}, the journal holds"
            f" {len(entries)}"
        )
    elif applied is not None and applied.seq and entries[applied.seq - 1].hash != applied.hash:
        problems.append(f"the stored pixels belong to another journal: record {applied.seq} differs")
    if entries and (applied is None or not applied.clean or applied.seq != len(entries)):
        notes.append("the session is open, or was not closed: opening it brings the stored pixels in step")
        replay = False
    notes += [f"kept aside: {path.name}" for path in sorted(folder.glob("*.damaged-*"))]
    differences = _differences(folder) if replay else []
    authors: dict[str, None] = {}
    models: dict[str, None] = {}
    times = []
    for record in _lines(folder, len(entries)):
        authors.setdefault(str(record.get("author", "")))
        models.setdefault(str(record.get("model", "")))
        times.append(str(record.get("time", "")))
    return Audit(
        folder=folder,
        slide=entries[0].slide if entries else "",
        hashes=tuple(entry.hash for entry in entries),
        authors=tuple(filter(None, authors)),
        models=tuple(filter(None, models)),
        first=times[0] if times else "",
        last=times[-1] if times else "",
        chained=found.report.ok,
        replayed=replay,
        agrees=replay and not differences,
        problems=(*problems, *differences),
        notes=tuple(notes),
    )


def _differences(folder: Path) -> list[str]:
    """Where stored pixels differ from a replay of the journal."""
    known = identity(folder / EDITS_NAME)
    if known is None:
        return ["the stored pixels cannot be read"]
    _, shape, slide = known
    store = EditStore.open(folder / EDITS_NAME, shape=shape, slide_id=slide, read_only=True)
    journal = Journal(folder / JOURNAL_NAME, slide_id=slide, read_only=True)
    records = records_of(journal)
    keys = set(records).union(*(store.chunks.keys(f"own/{layer}") for layer in range(store.layers)))
    wrong: list[str] = []
    for key, chunk in replayed(journal, keys, records):
        try:
            same = np.array_equal(store.chunks.get(key), chunk)
        except UserError:
            same = False
        if not same:
            wrong.append(f"{key.array}/{key.row}/{key.column}")
    if not wrong:
        return []
    listed = ", ".join(wrong[:3]) + (" and others" if len(wrong) > 3 else "")
    return [f"{len(wrong)} stored chunks differ from a replay of the journal ({listed})"]


def _lines(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """The first records of a journal as they are written."""
    if count:
        with (folder / JOURNAL_NAME).open("rb") as file:
            yield from (json.loads(line) for line in islice(file, count))


def _readable(line: bytes, entry: Entry, classes: Sequence[str]) -> AuditRecord:
    record = json.loads(line)
    try:
        patches = decode_patches(line, entry)
    except ValueError as error:
        raise UserError(f"record {entry.seq} of the journal cannot be read ({error})") from error
    transitions: dict[tuple[int, str, str], int] = {}
    for patch in patches:
        if not isinstance(patch, Patch):
            continue
        pairs = patch.before.astype(np.uint16) << 8 | patch.after
        for pair, pixels in zip(*np.unique(pairs, return_counts=True), strict=True):
            key = patch.layer, _meaning(pair >> 8, classes), _meaning(pair & 255, classes)
            transitions[key] = transitions.get(key, 0) + int(pixels)
    ordered = sorted(transitions.items(), key=lambda item: -item[1] * 4 ** item[0][0])
    return AuditRecord(
        seq=entry.seq,
        time=str(record.get("time", "")),
        author=str(record.get("author", "")),
        kind=entry.kind,
        of=entry.of,
        model=str(record.get("model", "")),
        slide=entry.slide,
        layer=entry.layer,
        region=rescaled(entry.box, entry.layer, 0),
        transitions=tuple(Transition(*key, pixels) for key, pixels in ordered),
        cleared=entry.cleared,
        text=str(record.get("text", "")),
        hash=entry.hash,
    )


def _meaning(code: Any, classes: Sequence[str]) -> str:
    codes: Codes = np.asarray([code], np.uint8)
    number = int(classes_of(codes)[0])
    if number < 0:
        return "unseen"
    name = classes[number] if number < len(classes) else f"class {number}"
    return f"{name} (accepted)" if bool(is_accepted(codes)[0]) else name
