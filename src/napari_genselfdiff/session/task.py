"""What is to be told apart, before there is a model that does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from napari_genselfdiff.errors import UserError

BACKGROUND = "background"
MOST_CLASSES = 16
"""Beside the background."""

STRUCTURES = {
    "cells and nuclei": 0.5,
    "glands and vessels": 1.6,
    "tissue regions": 4.0,
}
"""Micrometres per pixel at which such structures and their surroundings fit into what the network sees."""


@dataclass(frozen=True)
class Task:
    """A segmentation task that starts without a model.

    Attributes
    ----------
    classes : tuple of str
        Names; the first is the background.
    mpp : float or None
        Micrometres per pixel to work at; None to take the slide's pixels as they are.
    instances : bool
        Whether objects that touch are told apart.
    pretext : str
        Model of the library, or a file, that the network's weights come from.
    """

    classes: tuple[str, ...]
    mpp: float | None
    instances: bool = False
    pretext: str = "pretext"

    def __post_init__(self) -> None:
        names = [name.strip() for name in self.classes]
        if not 2 <= len(names) <= MOST_CLASSES + 1:
            raise UserError(
                f"a task has 1 to {MOST_CLASSES} classes beside the background",
                f"{len(names) - 1} were named",
                "name at least one, and merge some if there are more",
            )
        if not all(names):
            raise UserError("a class has no name", None, "name every class")
        folded = [name.casefold() for name in names]
        if len(set(folded)) < len(names):
            twice = next(name for name in names if folded.count(name.casefold()) > 1)
            raise UserError("two classes have the same name", twice, "give each a name of its own")
        object.__setattr__(self, "classes", tuple(names))

    @classmethod
    def named(cls, names: Sequence[str], **options: Any) -> Task:
        """A task of some classes and the background."""
        return cls((BACKGROUND, *names), **options)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"classes": list(self.classes)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Task:
        """Inverse of `to_dict`."""
        return cls(**{**values, "classes": tuple(values["classes"])})
