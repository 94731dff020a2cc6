"""Checking a session's folder: journals, stored pixels, files of the models. Nothing is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_genselfdiff.annotations.audit import Audit, audit, split_tag
from napari_genselfdiff.annotations.journal import JOURNAL_NAME
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.models.library import version_path
from napari_genselfdiff.models.weights import read_card, read_weights, sha256_of
from napari_genselfdiff.session.state import FILE_NAME, SessionState, read_state

_WITHOUT_JOURNALS = ("edits", "predictions", "models")


@dataclass(frozen=True)
class ModelCheck:
    """A version's weights file.

    Attributes
    ----------
    name : str
    path : Path
    sha256 : str
        Empty when the file cannot be read.
    problem : str or None
    """

    name: str
    path: Path
    sha256: str
    problem: str | None = None


@dataclass(frozen=True)
class SessionCheck:
    """The outcome of checking a session.

    Attributes
    ----------
    folder : Path
    audits : dict of str to Audit
        One for each slide that has a journal, by the slide's name.
    models : tuple of ModelCheck
    problems : tuple of str
        Everything that is wrong, in plain words.
    """

    folder: Path
    audits: dict[str, Audit]
    models: tuple[ModelCheck, ...]
    problems: tuple[str, ...]


def annotation_folders(folder: Path) -> list[Path]:
    """Folders with a journal: a session's own, or one for each of its slides.

    Raises
    ------
    UserError
        If the folder is neither a session nor holds a journal.
    """
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name not in _WITHOUT_JOURNALS and not name.endswith(".zarr")
        )
        if JOURNAL_NAME in files:
            found.append(Path(where))
    if not found and not (folder / FILE_NAME).is_file():
        raise UserError("this is no session", folder, f"name a folder that holds {FILE_NAME}")
    return found


def slide_names(folder: Path, state: SessionState, found: Sequence[Path]) -> dict[str, Path]:
    """Names of the slides of annotation folders, as the session knows them, or else after their folders."""
    known = {(folder / slide.folder).resolve(): slide.name for slide in state.slides}
    names: dict[str, Path] = {}
    for place in found:
        # "annotations" lies in the folder of its slide, which is the session itself in the first format.
        name = known.get(place.resolve(), known.get(place.parent.resolve(), ""))
        relative = place.relative_to(folder)
        name = name or str(relative.parent if relative.name == "annotations" else relative)
        if name in (".", "") or name in names:
            name = str(relative)
        names[name] = place
    return names


def check_session(folder: Path, *, replay: bool = False, heads: Sequence[str] = ()) -> SessionCheck:
    """Check a session, or what was exported of one.

    Parameters
    ----------
    folder : Path
    replay : bool
        Compare the stored pixels with a replay of the journal.
    heads : sequence of str
        Hashes that were kept elsewhere, at least 8 digits each. A journal that still holds a record with
        such a hash is unchanged up to there.

    Raises
    ------
    UserError
        If the folder is not a session.
    """
    found = annotation_folders(folder)
    problems: list[str] = []
    try:
        state = read_state(folder)
    except UserError as error:
        state = SessionState()
        problems.append(str(error))
    audits = {name: audit(place, replay=replay) for name, place in slide_names(folder, state, found).items()}
    for name, checked in audits.items():
        problems += [f"{name}: {problem}" for problem in checked.problems]
    models = tuple(_checked(folder, state))
    problems += [f"{model.name}: {model.problem}" for model in models if model.problem]
    problems += _other_models(models, audits)
    problems += _other_heads(heads, audits)
    return SessionCheck(folder, audits, models, tuple(problems))


def readable_state(folder: Path) -> SessionState:
    """A session's state; an empty one where it is damaged, or is an export's."""
    try:
        return read_state(folder)
    except UserError:
        return SessionState()


def class_names(folder: Path, state: SessionState) -> tuple[str, ...]:
    """Names of the classes: those of the model in use, or of the task; empty where neither can be read."""
    for version in state.versions:
        if version.name == state.current:
            try:
                card = read_card(version_path(folder, version))
                return tuple(str(name) for name in card.get("classes", ()))
            except UserError:
                break
    return state.task.classes if state.task is not None else ()


def _checked(folder: Path, state: SessionState) -> list[ModelCheck]:
    checks = []
    for version in state.versions:
        path = version_path(folder, version)
        try:
            read_weights(path)  # all of it: the header of a file that was cut off may be whole
            checks.append(ModelCheck(version.name, path, sha256_of(path)))
        except UserError as error:
            checks.append(ModelCheck(version.name, path, "", str(error)))
    return checks


def _other_models(models: Sequence[ModelCheck], audits: dict[str, Audit]) -> list[str]:
    """Weights that are not those that the records name."""
    problems = []
    now = {model.name: model.sha256 for model in models if model.sha256}
    for slide, checked in audits.items():
        for tag in checked.models:
            name, digest = split_tag(tag)
            if digest and name in now and not now[name].startswith(digest):
                problems.append(f"{name}: its weights are not those that records of {slide} name ({digest})")
    return problems


def _other_heads(heads: Sequence[str], audits: dict[str, Audit]) -> list[str]:
    problems = []
    for head in heads:
        wanted = head.strip().lower()
        if len(wanted) < 8 or set(wanted) - set("0123456789abcdef"):
            raise UserError("this is not a head hash", head, "give the 64 digits that verify printed")
        if not any(known.startswith(wanted) for checked in audits.values() for known in checked.hashes):
            problems.append(f"no journal holds a record with the hash that was kept: {head}")
    return problems
