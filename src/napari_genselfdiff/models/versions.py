"""Versions of a session's model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from napari_genselfdiff.geometry import Region

PRETEXT = "pretext"
"""Entry of a version's settings: the pretext whose weights its training began with."""
EARLY = "early"
"""Another, true where it was taken over because it changed little, when it was too early to tell."""
REFUSED = "refused"
"""Another, true where the gate refused it, until it is used all the same."""
FOLLOWS = "follows"
"""Another: the version that was in use when it was trained, where that is not its parent."""
LEFT_OUT = "left_out"
"""Another: what was drawn and not trained on, each as slide, y, x, height and width."""
RESUMED = "resumed"
"""Another: for each time that the training was stopped and went on, the steps that were done by then, and the
positions in the journals that they belong to."""


@dataclass(frozen=True)
class Doubt:
    """A corrected place that a round left out, as everything else contradicts it.

    Attributes
    ----------
    slide : str
        Name of its source; in a session the slide's fingerprint.
    region : Region
        Around what was drawn there, in level-0 pixels.
    """

    slide: str
    region: Region

    def to_list(self) -> list[str | int]:
        """Plain values for JSON."""
        box = self.region
        return [self.slide, box.y, box.x, box.height, box.width]


@dataclass(frozen=True)
class Version:
    """One model of the session.

    Attributes
    ----------
    name : str
        What files and other versions call it; never changed.
    path : str
        Weights file, relative to the session's folder; absolute for models of the library.
    parent : str or None
        Version that it was trained from.
    before, after : float or None
        Dice of the parent and of this version on corrections that training did not see.
    corrections : int
        How many records of the journals were used.
    steps, seed : int
    seconds : float
    made : str
        Time, ISO 8601, UTC.
    title : str
        What the user calls it; empty for its name.
    positions : dict of str to int
        Slide's fingerprint to the position in its journal up to which corrections were used.
    settings : dict
        What else is needed to make the same weights again: settings of the recipe, device, threads.
    answer : str
        What the gate said, in plain words.
    kind : {"library", "round", "branch", "imported", "classes"}
        How it came into the session.
    sha256 : str
        Of a library model's file when it came into the session; else, and in old sessions, empty.
    """

    name: str
    path: str
    parent: str | None = None
    before: float | None = None
    after: float | None = None
    corrections: int = 0
    steps: int = 0
    seed: int = 0
    seconds: float = 0.0
    made: str = ""
    title: str = ""
    positions: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    answer: str = ""
    kind: str = "library"
    sha256: str = ""

    @property
    def shown(self) -> str:
        """What the user calls it."""
        return self.title or self.name

    @property
    def scores(self) -> str:
        """Dice of the parent and of this version, or nothing."""
        if self.after is None:
            return ""
        before = "" if self.before is None else f"{self.before:.2f} -> "
        return f"Dice {before}{self.after:.2f}"

    @property
    def description(self) -> str:
        """Where it comes from and how it scored, in one line."""
        known = {
            "library": "a model of the library",
            "imported": "an imported model",
            "branch": f"a branch of {self.parent}",
            "classes": f"{self.parent} with other classes",
        }
        what = known.get(self.kind, f"trained from {self.parent} on {self.corrections} strokes")
        return f"{self.shown}: {what}" + (f", {self.scores}" if self.scores else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Version:
        """Inverse of `to_dict`; what an older or newer program wrote beside it is left out."""
        known = {entry.name for entry in fields(cls)}
        kind = {} if "kind" in values or not values.get("parent") else {"kind": "round"}
        return cls(**{name: value for name, value in values.items() if name in known} | kind)


@dataclass(frozen=True)
class Round:
    """The outcome of a fine-tune.

    Attributes
    ----------
    version : Version
    accepted : bool
        Whether the new model is put to use.
    message : str
        The answer in plain words.
    doubts : tuple of Doubt
        Places that were left out.
    instead : str or None
        An earlier version that was refused, and that is put to use now.
    """

    version: Version
    accepted: bool
    message: str
    doubts: tuple[Doubt, ...] = ()
    instead: str | None = None

    @property
    def used(self) -> str | None:
        """The version that is put to use, if any."""
        return self.version.name if self.accepted else self.instead
