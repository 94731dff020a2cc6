"""``session.json``: what a session remembers beside annotations, predictions and weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.files import write_text
from napari_genselfdiff.models.versions import Version
from napari_genselfdiff.session.task import Task

FILE_NAME = "session.json"
FORMAT = 2
_AS_THEY_ARE = ("active", "current", "previous", "colours", "pretext", "numbers")


@dataclass
class SlideState:
    """What is remembered of one slide.

    Attributes
    ----------
    name, path : str, str or None
        As it was opened last; None for an image that is in memory.
    fingerprint : str
        See `slide_fingerprint`.
    folder : str
        Where its annotations and predictions lie, relative to the session.
    mpp : float or None
        Micrometres per level-0 pixel, as the file or the user said.
    shape : list of int
        ``[height, width]`` in level-0 pixels; empty where it was never written down.
    view : dict
        Camera.
    tissue_sensitivity : float
    visited : list of list of int
        Places that were suggested, ``[y, x, height, width]`` in level-0 pixels.
    insisted : list of list of int
        Corrected places of which the user said that they are right, so that no fine-tune leaves them out.
    """

    name: str
    path: str | None
    fingerprint: str
    folder: str
    mpp: float | None = None
    shape: list[int] = field(default_factory=list)
    view: dict[str, Any] = field(default_factory=dict)
    tissue_sensitivity: float = 0.5
    visited: list[list[int]] = field(default_factory=list)
    insisted: list[list[int]] = field(default_factory=list)


@dataclass
class SessionState:
    """What ``session.json`` holds.

    Attributes
    ----------
    slides : list of SlideState
    active : str or None
        Fingerprint of the slide that is looked at.
    versions : list of Version
    current, previous : str or None
        Names of the version in use, and of the one before it.
    task : Task or None
        What was named when the session started without a model.
    colours : dict of str to str
        Class name to ``#RRGGBB``, where the user chose one.
    pretext : str or None
        Pretext that the next model starts from, when another than the task's (after adapting to a cohort).
    numbers : dict of str to int
        The highest number that a deleted version had, by what stands before it in its name.
    """

    slides: list[SlideState] = field(default_factory=list)
    active: str | None = None
    versions: list[Version] = field(default_factory=list)
    current: str | None = None
    previous: str | None = None
    task: Task | None = None
    colours: dict[str, str] = field(default_factory=dict)
    pretext: str | None = None
    numbers: dict[str, int] = field(default_factory=dict)

    def slide(self, fingerprint: str) -> SlideState | None:
        """The slide with this fingerprint."""
        return next((slide for slide in self.slides if slide.fingerprint == fingerprint), None)

    def write(self, folder: Path) -> None:
        """Write ``session.json`` atomically.

        Raises
        ------
        UserError
            If it cannot be written.
        """
        values = {
            "format": FORMAT,
            **{name: getattr(self, name) for name in _AS_THEY_ARE},
            "slides": [asdict(slide) for slide in self.slides],
            "versions": [version.to_dict() for version in self.versions],
            "task": self.task.to_dict() if self.task is not None else None,
        }
        write_text(folder / FILE_NAME, json.dumps(values, indent=1))


def read_state(folder: Path) -> SessionState:
    """Read a session's state; that of a new one when there is none.

    Raises
    ------
    UserError
        If the file is damaged, or of a later version of the program.
    """
    path = folder / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return SessionState()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("the session file cannot be read", path, "restore it from a copy") from error
    try:
        values = json.loads(text)
        if values["format"] > FORMAT:
            raise UserError("the session was made by a later version", path, "install the latest one")
        return _decoded(_as_second_format(values))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError("the session file is damaged", path, "restore it from a copy") from error


def _decoded(values: dict[str, Any]) -> SessionState:
    state = SessionState(
        slides=[SlideState(**slide) for slide in values["slides"]],
        active=values["active"],
        versions=[Version.from_dict(version) for version in values["versions"]],
        current=values["current"],
        previous=values["previous"],
        task=Task.from_dict(values["task"]) if values["task"] else None,
        colours=dict(values["colours"]),
        pretext=values["pretext"],
        numbers={stem: int(number) for stem, number in values.get("numbers", {}).items()},
    )
    for slide in state.slides:
        if not isinstance(slide.fingerprint, str) or not isinstance(slide.folder, str):
            raise TypeError("a slide without a fingerprint")
    return state


def _as_second_format(values: dict[str, Any]) -> dict[str, Any]:
    """A session of the first format has one slide, whose annotations lie at its top."""
    if values["format"] == 1:
        slide = values["slide"]
        entry = {
            **{name: slide[name] for name in ("name", "path", "fingerprint", "mpp")},
            "folder": ".",
            "view": values.get("view", {}),
            "tissue_sensitivity": values.get("tissue_sensitivity", 0.5),
        }
        values = {
            "slides": [entry],
            "active": slide["fingerprint"],
            **{name: values[name] for name in ("versions", "current", "previous")},
            "task": None,
            "colours": {},
            "pretext": None,
        }
    return values
