"""A session as a folder or an archive that can be handed over: readable without this program.

What a person drew goes in, who drew it and when, and what the models are. Slides do not, nor pictures of
them, nor the paths where they lie, which can name a patient.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from napari_genselfdiff.annotations import Annotations, classes_of
from napari_genselfdiff.annotations.audit import Audit, AuditRecord, audit, read_records
from napari_genselfdiff.annotations.journal import JOURNAL_NAME, free_name
from napari_genselfdiff.annotations.pyramid import rescaled
from napari_genselfdiff.annotations.recovery import EDITS_NAME
from napari_genselfdiff.annotations.store import identity
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Event, Finished, Progress
from napari_genselfdiff.files import atomic_folder, atomic_path
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models.library import version_path
from napari_genselfdiff.models.weights import read_card, sha256_of
from napari_genselfdiff.session.folders import safe_name
from napari_genselfdiff.session.state import SessionState, read_state
from napari_genselfdiff.verbs.auditing import annotation_folders, class_names, slide_names

ARCHIVE = ".zip"
_NOT_LABELLED = 255
_PIXELS_AT_ONCE = 1 << 25
_COLUMNS = (
    *("record", "time_utc", "author", "kind", "of_record", "model", "y", "x", "height", "width"),
    *("magnification", "before_and_after", "chunks_cleared", "remark", "slide_sha256", "record_sha256"),
)

_README = """\
Annotations of a session of napari-genselfdiff, exported {time}.

summary.json               the slides (name, fingerprint, micrometres per pixel) and the versions of the model
slides/NAME/records.csv    one line a change: who (as told), when (clock of the computer), where (level-0
                           pixels), what it was before and after, which model was in use
slides/NAME/journal.ndjson the journal itself, byte for byte: one JSON object a line, each with the SHA-256 of
                           the line before ("prev"); "delta" holds every changed pixel, before and after
slides/NAME/labels-N.*     what is drawn now, one file a place: GeoJSON for QuPath, OME-Zarr for everything
                           else. 0 is background, 255 is not labelled
models/NAME.json           the card of each version: what it was trained from, on how many changes, its
                           scores, and the SHA-256 of its weights
SHA256SUMS                 of every file: sha256sum -c SHA256SUMS

Heads of the journals (SHA-256 of the last line):
{heads}

What this can prove. The chain of hashes shows damage. Whoever can write the file can also compute its hashes
anew, so it shows tampering only where a head hash was kept elsewhere:
napari-genselfdiff session verify FOLDER --head HASH

Slides, pictures of them, their paths, and the weights of the models are not in here.
"""


def export_session(folder: Path, output: Path, *, cancel: CancelToken | None = None) -> Iterator[Event]:
    """Write a session's annotations into a new folder, or an archive when its name ends in ``.zip``.

    Labels are what a replay of the journal gives, so that they are right after a crash too.

    Yields
    ------
    Event
        The result is the path that was written, or None when it was cancelled.

    Raises
    ------
    UserError
        If the folder is not a session, the output exists, or it cannot be written.
    """
    found = annotation_folders(folder)
    state = read_state(folder)
    if output.suffix == ARCHIVE and output.exists():
        raise UserError("the file exists already", output, "choose another name")
    try:
        if output.suffix == ARCHIVE:
            with tempfile.TemporaryDirectory() as temporary, atomic_path(output) as archive:
                inner = Path(temporary) / output.stem
                inner.mkdir()
                yield from _fill(inner, folder, state, found, cancel)
                _pack(inner, archive)
        else:
            with atomic_folder(output) as inner:
                yield from _fill(inner, folder, state, found, cancel)
    except _Stopped:
        yield Finished(None, "stopped; nothing was written", cancelled=True)
    else:
        yield Finished(output, f"exported to {output}")


class _Stopped(Exception):
    """The export was cancelled."""


def _fill(
    target: Path, folder: Path, state: SessionState, found: Sequence[Path], cancel: CancelToken | None
) -> Iterator[Event]:
    classes = class_names(folder, state)
    audits: dict[str, Audit] = {}
    for number, (name, place) in enumerate(slide_names(folder, state, found).items()):
        yield Progress(number, len(found), f"exporting {name}")
        _stop_if(cancel)
        audits[name] = audit(place)
        known = next((slide for slide in state.slides if slide.fingerprint == audits[name].slide), None)
        here = target / "slides" / safe_name(name)
        if here.exists():  # two names may differ in what is not safe
            here = free_name(here)
        here.mkdir(parents=True)
        for path in (place / JOURNAL_NAME, *sorted(place.glob(f"{JOURNAL_NAME}.damaged-*"))):
            shutil.copyfile(path, here / path.name)
        _write_records(here / "records.csv", read_records(place, classes=classes))
        _write_labels(here, place, classes, known.mpp if known else None, cancel)
    _write_models(target, folder, state)
    summary = {
        "classes": list(classes),
        "slides": [
            {
                "name": name,
                "fingerprint": checked.slide,
                "records": len(checked.hashes),
                "head": checked.head,
                "authors": checked.authors,
                "first": checked.first,
                "last": checked.last,
                "mpp": next(
                    (slide.mpp for slide in state.slides if slide.fingerprint == checked.slide), None
                ),
                "problems": checked.problems,
            }
            for name, checked in audits.items()
        ],
        "current": state.current,
        # A path in the library names a user; the hash in the card says which file it is.
        "versions": [asdict(version) | {"path": Path(version.path).name} for version in state.versions],
    }
    _write_json(target / "summary.json", summary)
    heads = "\n".join(f"  {checked.head}  {name}" for name, checked in audits.items()) or "  none"
    time = datetime.now(UTC).isoformat(timespec="seconds")
    (target / "README.txt").write_text(_README.format(time=time, heads=heads), encoding="utf-8")
    files = sorted(path for path in target.rglob("*") if path.is_file())
    sums = "".join(f"{sha256_of(path)}  {path.relative_to(target).as_posix()}\n" for path in files)
    (target / "SHA256SUMS").write_text(sums, encoding="utf-8")


def _write_records(path: Path, records: Iterator[AuditRecord]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(_COLUMNS)
        for record in records:
            box = record.region
            table.writerow(
                (
                    *(record.seq, record.time, _cell(record.author), record.kind, record.of or ""),
                    *(record.model, box.y, box.x, box.height, box.width, f"1/{2**record.layer}"),
                    *(changes(record), record.cleared or "", _cell(record.text)),
                    *(record.slide, record.hash),
                )
            )


def _cell(text: str) -> str:
    """Text that a spreadsheet must not take for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def changes(record: AuditRecord) -> str:
    """What a record changed, in level-0 pixels: ``unseen -> nucleus 1,204 px``."""
    return "; ".join(
        f"{change.before} -> {change.after} {change.pixels * 4**change.layer:,} px"
        for change in record.transitions
    )


def _write_labels(
    target: Path, place: Path, classes: Sequence[str], mpp: float | None, cancel: CancelToken | None
) -> None:
    """Write what is drawn, each connected place as files of its own, at the finest layer that fits them."""
    from napari_genselfdiff.exchange.labels import write_labels

    known = identity(place / EDITS_NAME)
    if known is None:
        return  # nothing was ever drawn, or an export is exported: the journal says it all
    _, shape, slide = known
    with tempfile.TemporaryDirectory() as temporary:
        shutil.copyfile(place / JOURNAL_NAME, Path(temporary) / JOURNAL_NAME)
        with Annotations.open(temporary, shape=shape, slide_id=slide) as drawn:
            for number, hull in enumerate(_places(drawn.supervised_boxes()), 1):
                _stop_if(cancel)
                layer = 0
                while (hull.height >> layer) * (hull.width >> layer) > _PIXELS_AT_ONCE:
                    layer += 1
                box = rescaled(hull, 0, layer)
                shown = classes_of(drawn.read(layer, box))
                labels = np.where(shown < 0, _NOT_LABELLED, shown).astype(np.uint8)
                for suffix in (".geojson", ".ome.zarr"):
                    write_labels(
                        target / f"labels-{number}{suffix}",
                        labels,
                        mpp=mpp and mpp * 2**layer,
                        class_names=tuple(classes),
                        offset=(box.y << layer, box.x << layer),
                        downsample=2**layer,
                    )


def _places(boxes: Sequence[Region]) -> list[Region]:
    """Hulls of boxes that overlap or touch, in reading order."""
    places: list[Region] = []
    for box in boxes:
        while near := [place for place in places if place.grown(1).intersection(box) is not None]:
            places = [place for place in places if place not in near]
            top, left = min(p.y for p in (*near, box)), min(p.x for p in (*near, box))
            bottom, right = max(p.bottom for p in (*near, box)), max(p.right for p in (*near, box))
            box = Region(top, left, bottom - top, right - left)
        places.append(box)
    return sorted(places, key=lambda place: (place.y, place.x))


def _write_models(target: Path, folder: Path, state: SessionState) -> None:
    for version in state.versions:
        path = version_path(folder, version)
        try:
            card: dict[str, Any] = {"card": read_card(path), "sha256": sha256_of(path)}
        except UserError as error:
            card = {"problem": error.what}
        _write_json(target / "models" / f"{version.name}.json", card)


def _write_json(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _pack(folder: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, Path(folder.name) / path.relative_to(folder))


def _stop_if(cancel: CancelToken | None) -> None:
    if cancel is not None and cancel.cancelled:
        raise _Stopped
