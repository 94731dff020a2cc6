"""How a round is trained, by how much was corrected; partly measured, see docs/benchmarks/circle.md."""

from __future__ import annotations

from dataclasses import dataclass

from napari_genselfdiff.finetuning.trainer import FineTuneSettings

FEW = 1000
"""Model pixels; three nuclei at 0.5 micrometres a pixel are about 300."""
MANY = 20_000
"""An accepted view of 512 x 512 pixels at 40x is 65,000."""


@dataclass(frozen=True)
class Amount:
    """How much was corrected.

    Attributes
    ----------
    pixels, changed : int
        Model pixels that were drawn, and those of them that differ from what the model said.
    regions : int
        Cells of 64 x 64 model pixels in which something was drawn.
    """

    pixels: int
    changed: int
    regions: int


@dataclass(frozen=True)
class Recipe:
    """Settings of a round, and the number of steps after which more do not help."""

    settings: FineTuneSettings
    steps: int


def recipe_for(amount: Amount, *, fresh: bool = False) -> Recipe:
    """Choose learning rate, frozen parts, pull and number of steps.

    Parameters
    ----------
    amount : Amount
    fresh : bool
        The output layer is new.
    """
    if fresh:
        steps = 60 if amount.pixels < FEW else 150 if amount.pixels < MANY else 400
        return Recipe(FineTuneSettings(learning_rate=1e-3, fixed_statistics=False), steps)
    if amount.pixels < FEW:
        return Recipe(FineTuneSettings(learning_rate=1e-4, fixed_statistics=True), 30)
    known = FineTuneSettings(learning_rate=3e-4, fixed_statistics=True)
    return Recipe(known, 80 if amount.pixels < MANY else 300)
