"""Errors that are shown to a person: what happened, to which file, and what to do."""

from __future__ import annotations

from pathlib import Path


class UserError(Exception):
    """Bad input, told in one line.

    The command line prints it as ``error: what, which, what to do`` and ends with status 2; the dock shows
    the same line. It is not a ``RuntimeError``, because superqt's generator workers swallow those.

    Parameters
    ----------
    what : str
        What happened, without a full stop.
    which : str or Path, optional
        The file, option or layer that it happened to.
    todo : str, optional
        What the user can do about it.
    """

    def __init__(self, what: str, which: str | Path | None = None, todo: str | None = None) -> None:
        self.what, self.which, self.todo = what, which, todo
        super().__init__(str(self))

    def __str__(self) -> str:
        # From the parts, because only they arrive as they were in another process.
        parts = (self.what, str(self.which) if self.which is not None else None, self.todo)
        return ", ".join(part for part in parts if part)


class MissingScaleError(UserError):
    """An image does not say how many micrometres a pixel is wide, and nobody was asked yet."""

    def __init__(self, which: str | Path) -> None:
        super().__init__(
            "the file does not say its resolution",
            which,
            "give it with --mpp (micrometres per pixel; 0.25 is typical of a 40x scan, 0.5 of 20x)",
        )


class TrainingError(UserError):
    """A training came to nothing, and going on with it will not help."""


class OutOfMemoryError(Exception):
    """The device ran out of memory; raised in place of torch's, which is a ``RuntimeError``."""
