"""What is known of a cohort: a JSON file beside the outputs, from which a later run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.files import write_text

NAME = "cohort.json"
VERSION = 1
SCHEME = "://"


class State(StrEnum):
    """How far a slide is."""

    waiting = "waiting"
    started = "started"
    done = "done"
    failed = "failed"


@dataclass
class Entry:
    """A slide of the cohort.

    Attributes
    ----------
    slide : str
        Its file.
    output : str
        Name of its store, beside the manifest.
    state : State
    cells : int
        How many cells have tissue; 0 before anybody looked.
    fingerprint : str or None
        Of the slide that was segmented.
    error : str or None
        Why it failed.
    """

    slide: str
    output: str
    state: State = State.waiting
    cells: int = 0
    fingerprint: str | None = None
    error: str | None = None


@dataclass
class Manifest:
    """The cohort of a folder, or of an fsspec address; saved after every change of a slide's state.

    Use `opened`.
    """

    folder: str
    settings: dict[str, Any]
    entries: dict[str, Entry] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def opened(
        cls, folder: str, slides: Sequence[str], *, model: str, sha256: str, mpp: float | None
    ) -> Iterator[Manifest]:
        """Read the manifest of a folder, or make it, and keep other runs away.

        Parameters
        ----------
        folder : str
        slides : sequence of str
            Those of this run; they are added where they are new.
        model, sha256, mpp
            What is written down, and must be what was written down.

        Raises
        ------
        UserError
            If the folder cannot be written, another run writes there, or it holds what another model, or the
            same with another resolution, has predicted.
        """
        manifest = cls(folder, {"model": model, "sha256": sha256, "mpp": mpp})
        with manifest._locked():
            manifest._read()
            taken = {entry.output for entry in manifest.entries.values()}
            for slide in slides:
                if slide not in manifest.entries:
                    manifest.entries[slide] = Entry(slide, _new_name(slide, taken))
            manifest.save()
            yield manifest

    def address(self, entry: Entry) -> str:
        """Folder or address of a slide's store."""
        return join(self.folder, entry.output)

    def set(self, entry: Entry, state: State, error: str | None = None, **known: Any) -> None:
        """Write down how far a slide is."""
        entry.state, entry.error = state, error
        for name, value in known.items():
            setattr(entry, name, value)
        self.save()

    def save(self) -> None:
        """Write the file, atomically."""
        values = {
            "version": VERSION,
            **self.settings,
            "slides": [asdict(entry) for entry in self.entries.values()],
        }
        _write(join(self.folder, NAME), json.dumps(values, indent=1))

    def _read(self) -> None:
        path = join(self.folder, NAME)
        text = _text(path)
        if text is None:
            return
        try:
            values = json.loads(text)
            before = {name: values[name] for name in self.settings}
            entries = [Entry(**{**e, "state": State(e["state"])}) for e in values["slides"]]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError("this is no list of a cohort", path, "name another folder") from error
        for name, what in (("sha256", f"the model {before['model']}"), ("mpp", f"--mpp {before['mpp']}")):
            if before[name] != self.settings[name]:
                raise UserError(
                    f"the folder holds predictions with {what}, and not with what was given now",
                    self.folder,
                    "name another folder",
                )
        self.entries = {entry.slide: entry for entry in entries}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other runs away, where there are files to lock."""
        from filelock import FileLock, Timeout

        if is_address(self.folder):
            yield
            return
        lock = FileLock(Path(self.folder) / f".{NAME}.lock", timeout=0)
        try:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout as error:
            raise UserError(
                "another run writes to this folder", self.folder, "wait for it, or name another folder"
            ) from error
        except OSError as error:
            raise UserError(
                f"the folder cannot be written to ({error.strerror})", self.folder, "write elsewhere"
            ) from error
        try:
            yield
        finally:
            lock.release()


def is_address(place: str) -> bool:
    """Whether this is an fsspec address and not a folder of this machine."""
    return SCHEME in place


def place(output: str) -> str:
    """An output as it is the same for every process: an address, or an absolute path."""
    output = output.removeprefix("file://")
    return output if is_address(output) else str(Path(output).absolute())


def join(folder: str, name: str) -> str:
    """Path or address of something in a folder."""
    return f"{folder.rstrip('/')}/{name}" if is_address(folder) else str(Path(folder) / name)


def _new_name(slide: str, taken: set[str]) -> str:
    stem = PurePosixPath(slide.replace("\\", "/")).stem
    name, number = f"{stem}.zarr", 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}.zarr"
    taken.add(name)
    return name


def _text(path: str) -> str | None:
    """Contents of a file; None where there is none."""
    try:
        if is_address(path):
            with _told(path):
                system, inside = _system(path)
                return str(system.cat_file(inside).decode())
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _write(path: str, text: str) -> None:
    if not is_address(path):
        write_text(path, text)
        return
    with _told(path):
        system, inside = _system(path)
        system.makedirs(inside.rpartition("/")[0], exist_ok=True)
        system.pipe_file(inside, text.encode())


def _system(address: str) -> tuple[Any, str]:
    import fsspec

    system, inside = fsspec.core.url_to_fs(address)
    return system, str(inside)


@contextmanager
def _told(address: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (ImportError, ValueError, OSError) as error:
        raise UserError(
            f"the output cannot be reached ({error})",
            address,
            "check the address and the rights to write there",
        ) from error
