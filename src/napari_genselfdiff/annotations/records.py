"""Lines of the journal: how one is written, and how a file of them is read and checked."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from napari_genselfdiff.annotations.chunks import CHUNK
from napari_genselfdiff.annotations.delta import Cleared, Part, Patch, pack, unpack
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.geometry import Region

Kind = Literal["stroke", "accept", "undo", "redo", "note"]
KINDS: tuple[str, ...] = get_args(Kind)
FIRST_HASH = "0" * 64


@dataclass(frozen=True)
class Entry:
    """What is kept in memory of one record; its pixels stay in the file.

    Attributes
    ----------
    seq : int
        Position in the journal, from 1.
    kind : str
        ``stroke``, ``accept``, ``undo``, ``redo`` or ``note``.
    layer, box : int, Region
        Where the view changes, in the pixels of that layer.
    parts : tuple of (int, Region)
        Layer and box of every patch, and then of every cleared chunk.
    cleared : int
        How many of the parts, the last ones, are cleared chunks.
    of : int or None
        The record that an ``undo`` or ``redo`` is about.
    slide : str
        What identifies the slide.
    model : str
        Which model was in use; "" is none.
    hash : str
        SHA-256 of the line, which the next record repeats as ``prev``.
    offset, length : int
        Place of the line in the file, with its end of line.
    """

    seq: int
    kind: str
    layer: int
    box: Region
    parts: tuple[Part, ...]
    cleared: int
    of: int | None
    slide: str
    model: str
    hash: str
    offset: int
    length: int


@dataclass(frozen=True)
class Report:
    """The outcome of checking a journal.

    Attributes
    ----------
    records : int
        Whole records before the first problem.
    problem : str or None
        What is wrong, in plain words; None when the chain of hashes holds from the first line to the last.
    line : int or None
        The first line that is wrong, from 1.
    """

    records: int
    problem: str | None = None
    line: int | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.problem is None


@dataclass(frozen=True)
class Scan:
    """Everything good that a journal file holds, up to the first problem.

    Attributes
    ----------
    entries : list of Entry
    good, size : int
        Bytes before the first problem, and of the whole file.
    report : Report
    """

    entries: list[Entry]
    good: int
    size: int
    report: Report


def encode_record(
    kind: Kind,
    *,
    seq: int,
    layer: int,
    box: Region,
    patches: Sequence[Patch | Cleared],
    of: int | None,
    text: str,
    slide: str,
    author: str,
    model: str,
    prev: str,
    offset: int,
) -> tuple[Entry, bytes]:
    """One record as a line of JSON, with its end of line."""
    drawn = [patch for patch in patches if isinstance(patch, Patch)]
    cleared = [patch for patch in patches if isinstance(patch, Cleared)]
    parts = (
        *((patch.layer, patch.box) for patch in drawn),
        *((part.layer, part.box) for part in cleared),
    )
    record: dict[str, Any] = {
        "seq": seq,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "kind": kind,
        "layer": layer,
        "box": _numbers(box),
        "parts": [[patch.layer, *_numbers(patch.box)] for patch in drawn],
        "delta": pack(drawn),
        "slide": slide,
        "author": author,
        "model": model,
        "prev": prev,
    }
    if of is not None:
        record["of"] = of
    if text:
        record["text"] = text
    if cleared:
        record["cleared"] = [[part.layer, part.box.y // CHUNK, part.box.x // CHUNK] for part in cleared]
    line = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    entry = Entry(
        seq, kind, layer, box, parts, len(cleared), of, slide, model, _hash(line), offset, len(line)
    )
    return entry, line


def decode_patches(line: bytes, entry: Entry) -> list[Patch | Cleared]:
    """Read the pixels of a record.

    Raises
    ------
    ValueError
        If they are damaged.
    """
    drawn = len(entry.parts) - entry.cleared
    patches = unpack(json.loads(line)["delta"], entry.parts[:drawn])
    return [*patches, *(Cleared(layer, box) for layer, box in entry.parts[drawn:])]


def scan(path: Path) -> Scan:
    """Read a journal file and check its chain of hashes; a file that is not there is empty.

    Raises
    ------
    UserError
        If the file cannot be read.
    """
    entries: list[Entry] = []
    good = 0
    prev = FIRST_HASH
    problem: str | None = None
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            for line in file:
                try:
                    entry = _decode(line, seq=len(entries) + 1, prev=prev, offset=good)
                except ValueError as error:
                    problem = str(error)
                    break
                entries.append(entry)
                prev = entry.hash
                good += len(line)
    except FileNotFoundError:
        size = 0
    except OSError as error:
        raise UserError(
            f"the journal cannot be read ({error.strerror or error})", path, "check the folder"
        ) from error
    report = Report(len(entries), problem, len(entries) + 1 if problem else None)
    return Scan(entries, good, size, report)


def _decode(line: bytes, *, seq: int, prev: str, offset: int) -> Entry:
    if not line.endswith(b"\n"):
        raise ValueError("the last record was cut off while it was written")
    try:
        record = json.loads(line)
        drawn = [(int(part[0]), _box(part[1:])) for part in record["parts"]]
        cleared = [
            (int(layer), _box((int(row) * CHUNK, int(column) * CHUNK, CHUNK, CHUNK)))
            for layer, row, column in record.get("cleared", ())
        ]
        entry = Entry(
            seq=record["seq"],
            kind=record["kind"],
            layer=int(record["layer"]),
            box=_box(record["box"]),
            parts=(*drawn, *cleared),
            cleared=len(cleared),
            of=record.get("of"),
            slide=record["slide"],
            model=sys.intern(record.get("model", "")),
            hash=_hash(line),
            offset=offset,
            length=len(line),
        )
        previous = record["prev"]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError("a record is damaged") from error
    if entry.seq != seq or previous != prev or entry.kind not in KINDS:
        raise ValueError("a record does not follow from the one before it: one of the two was changed")
    return entry


def _hash(line: bytes) -> str:
    return hashlib.sha256(line.rstrip(b"\n")).hexdigest()


def _numbers(box: Region) -> list[int]:
    return [box.y, box.x, box.height, box.width]


def _box(numbers: Sequence[int]) -> Region:
    y, x, height, width = map(int, numbers)
    if y < 0 or x < 0 or height < 0 or width < 0:
        raise ValueError("a box with a negative number")
    return Region(y, x, height, width)
