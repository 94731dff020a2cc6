"""Versions of a session's model, and the gate between them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Version:
    """One model of the session.

    Attributes
    ----------
    name : str
    path : str
        Weights file, relative to the session's folder; absolute for models of the library.
    parent : str or None
        Version that it was trained from.
    before, after : float or None
        Dice of the parent and of this version on corrections that training did not see.
    corrections : int
        Position in the journal up to which corrections were used.
    steps, seed : int
    seconds : float
    made : str
        Time, ISO 8601, UTC.
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

    @property
    def description(self) -> str:
        """What it was trained on and how it scored, in one line."""
        if self.parent is None:
            return f"{self.name}: a model of the library"
        scores = "" if self.after is None else f", Dice {self.before:.2f} -> {self.after:.2f}"
        return f"{self.name}: trained from {self.parent} on {self.corrections} strokes{scores}"


@dataclass(frozen=True)
class Round:
    """The outcome of a fine-tune.

    Attributes
    ----------
    version : Version
    accepted : bool
        Whether the new model is better than the one before, or nothing was held out to tell.
    message : str
        The answer in plain words.
    """

    version: Version
    accepted: bool
    message: str


def judge(before: float | None, after: float | None) -> tuple[bool, str]:
    """Whether a fine-tuned model replaces the one before, and the answer in plain words."""
    if before is None or after is None:
        return True, "too early to tell whether it is better: correct a few more places"
    scores = f"Dice {before:.2f} -> {after:.2f} on the corrections that it did not see"
    if after > before:
        return True, f"better: {scores}"
    return False, f"not better: {scores}; the model stays as it was"
