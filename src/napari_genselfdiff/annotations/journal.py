"""The journal: an append-only file that says who drew what, where and when, and holds every pixel of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from napari_genselfdiff.annotations.background import GroupedTask
from napari_genselfdiff.annotations.delta import Cleared, Patch
from napari_genselfdiff.annotations.records import (
    FIRST_HASH,
    Entry,
    Kind,
    Report,
    Scan,
    decode_patches,
    encode_record,
    scan,
)
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.files import atomic_path, make_folder, not_written, sync_directory
from napari_genselfdiff.geometry import Region

JOURNAL_NAME = "journal.ndjson"
_GROUPING = 0.5  # seconds: every record is on disk within a second of its stroke


class Journal:
    """Append-only records of one slide's annotations; each repeats the hash of the one before.

    Parameters
    ----------
    path : str or Path
        The file; it is made with the first record.
    slide_id, author : str
        Written into every record.
    read_only : bool
        Look only; a cut-off or damaged end is left where it is.
    scanned : Scan, optional
        What `scan` said of the file, when it is known already.

    Raises
    ------
    UserError
        If the file cannot be read or written, belongs to another slide, or is damaged and to be written
        to (see `set_tail_aside`).

    Attributes
    ----------
    model : str
        Written into every record: which model was in use.

    Notes
    -----
    `append` writes into the system's buffer, where a killed process loses nothing. A background thread
    makes records durable against a power cut in groups, half a second after the first.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        slide_id: str,
        author: str = "",
        read_only: bool = False,
        scanned: Scan | None = None,
    ) -> None:
        self.path = Path(path)
        self._slide, self._author = slide_id, author
        self.model = ""
        scanned = scanned or scan(self.path)
        self.entries: list[Entry] = scanned.entries
        self.durable = 0
        self._size = scanned.good
        self._ragged = False
        self._lock = threading.RLock()
        self._sync = GroupedTask(self.flush, delay=_GROUPING, name="journal-sync")
        self._file = None
        refuse_foreign(scanned, slide_id, self.path)
        if read_only:
            return
        if not scanned.report.ok:
            raise UserError(f"the journal is damaged: {scanned.report.problem}", self.path)
        try:
            make_folder(self.path.parent)
            # Not buffered: what `append` wrote must survive the process.
            self._file = self.path.open("ab", buffering=0)
            self.flush()
            sync_directory(self.path.parent)
        except OSError as error:
            raise self._unwritable(error) from error

    @property
    def seq(self) -> int:
        """Number of records."""
        return len(self.entries)

    @property
    def head(self) -> str:
        """Hash of the last record."""
        return self.entries[-1].hash if self.entries else FIRST_HASH

    def append(
        self,
        kind: Kind,
        *,
        layer: int = 0,
        box: Region | None = None,
        patches: Sequence[Patch | Cleared] = (),
        of: int | None = None,
        text: str = "",
    ) -> Entry:
        """Write one record.

        Parameters
        ----------
        kind : str
        layer, box : int, Region
            Where the view changes, in the pixels of that layer.
        patches : sequence of Patch or Cleared
            What changed.
        of : int, optional
            The record that is undone or redone.
        text : str
            A remark.

        Raises
        ------
        UserError
            If it cannot be written (the journal is then as it was), or if records before it could not be
            made durable.
        """
        failure = self._sync.failure()
        if failure is not None:
            raise failure
        with self._lock:
            entry, line = encode_record(
                kind,
                seq=self.seq + 1,
                layer=layer,
                box=box or Region(0, 0, 0, 0),
                patches=patches,
                of=of,
                text=text,
                slide=self._slide,
                author=self._author,
                model=self.model,
                prev=self.head,
                offset=self._size,
            )
            try:
                self._cut_rest()
                self._ragged = True
                self._write(line)
                self._ragged = False
            except OSError as error:
                with suppress(OSError):  # then before the next record
                    self._cut_rest()
                raise self._unwritable(error) from error
            self.entries.append(entry)
            self._size += len(line)
        self._sync.request()
        return entry

    def retract(self, entry: Entry) -> None:
        """Take the last record back, because what it says could not be done."""
        with self._lock:
            if self.entries[-1] is not entry:
                raise ValueError("only the last record can be taken back")
            self.entries.pop()
            self._size = entry.offset
            self.durable = min(self.durable, self.seq)
            self._ragged = True
            with suppress(OSError):
                self._cut_rest()

    def patches(self, entry: Entry) -> list[Patch | Cleared]:
        """Read the pixels of a record.

        Raises
        ------
        UserError
            If the file cannot be read or the record is damaged.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(entry.offset)
                return decode_patches(file.read(entry.length), entry)
        except (OSError, ValueError) as error:
            raise UserError(
                f"record {entry.seq} of the journal cannot be read ({error})",
                self.path,
                "close the session and open it again: it keeps what was drawn",
            ) from error

    def flush(self) -> None:
        """Make all records durable.

        Raises
        ------
        UserError
            If the system cannot.
        """
        with self._lock:
            seq = self.seq
            if self._file is None or (seq and seq == self.durable):
                return
            descriptor = self._file.fileno()
        # Outside the lock: a stroke does not wait for the disk. The file is closed after the thread ended.
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise self._unwritable(error) from error
        with self._lock:
            self.durable = min(max(self.durable, seq), self.seq)

    def verify(self) -> Report:
        """Read the file again and check the chain of hashes, and that nothing is missing at its end."""
        with self._lock:
            found, seq, head = scan(self.path), self.seq, self.head
        if not found.report.ok:
            return found.report
        if found.report.records < seq:
            line = found.report.records + 1
            return Report(found.report.records, "records at the end are missing", line)
        if seq and found.entries[seq - 1].hash != head:
            return Report(seq - 1, "the journal was replaced while it was open", seq)
        return found.report

    def close(self) -> None:
        """Make all records durable and close the file."""
        self._sync.close()
        try:
            self.flush()
        finally:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _write(self, line: bytes) -> None:
        if self._file is None:
            raise UserError("the session is open for looking only", self.path, "close it where it is open")
        view = memoryview(line)
        while view:
            view = view[self._file.write(view) :]

    def _cut_rest(self) -> None:
        """Remove what follows the last record: a part of one that could not be written."""
        if self._ragged and self._file is not None:
            self._file.truncate(self._size)
            self._ragged = False

    def _unwritable(self, error: OSError) -> UserError:
        return not_written("the journal", self.path, error)


def refuse_foreign(scanned: Scan, slide_id: str, path: Path) -> None:
    """Raise a `UserError` when a journal is about another slide."""
    foreign = next((entry.slide for entry in scanned.entries if entry.slide != slide_id), None)
    if foreign is not None:
        raise UserError(
            f"the journal belongs to another slide ({foreign})",
            path,
            "open the session with its own slide, or choose another session folder",
        )


def set_tail_aside(path: Path, good: int) -> Path:
    """Move what follows the good records of a journal into a file ``<name>.damaged-N`` beside it.

    Parameters
    ----------
    path : Path
        The journal.
    good : int
        Bytes to keep; with 0 the whole file is moved.

    Raises
    ------
    UserError
        If it cannot be written.
    """
    aside = free_name(path.with_name(f"{path.name}.damaged"))
    with atomic_path(aside) as temporary, path.open("rb") as file:
        file.seek(good)
        with temporary.open("wb") as out:
            while block := file.read(1 << 20):
                out.write(block)
    with path.open("rb+") as file:
        file.truncate(good)
        os.fsync(file.fileno())
    return aside


def free_name(path: Path) -> Path:
    """Add the first number to a path with which there is nothing of its name."""
    return next(free for number in count(1) if not (free := path.with_name(f"{path.name}-{number}")).exists())
