"""Pretext objectives, one file each; a new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from napari_genselfdiff.diffusion.objectives.base import Objective, ObjectiveOptions
from napari_genselfdiff.diffusion.objectives.ddpm import ddpm
from napari_genselfdiff.diffusion.objectives.features import Features
from napari_genselfdiff.diffusion.objectives.masked import masked

OBJECTIVES: dict[str, Callable[[ObjectiveOptions], Objective]] = {
    "ddpm": ddpm,
    "features": Features,
    "masked": masked,
}

OUTPUTS: dict[str, Literal["epsilon", "x0", "masked"]] = {
    "ddpm": "epsilon",
    "features": "x0",
    "masked": "masked",
}
"""What the output layer says: the noise, the clean image, or the clean image behind hidden blocks."""

__all__ = ["OBJECTIVES", "OUTPUTS", "Objective", "ObjectiveOptions"]
