"""What a pretext run does; saved in the card of its weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PretrainSettings:
    """What a pretext run does, apart from how long.

    Attributes
    ----------
    patch : int
        Side of the patches in pixels.
    batch : int
        Patches of one step.
    learning_rate : float
        Adam's, after a linear warm-up of ``warmup`` steps.
    warmup : int
        Steps of the warm-up.
    ema : float
        Decay of the moving average of the weights; ramps up from 0 as ``(1 + step) / (10 + step)``.
    zoom : tuple of float
        Range of magnifications, see `PatchSource`.
    objective, schedule, weighting : str
        See `objectives` and `schedules`.
    stain : float
        Strength of the stain jitter of the network's inputs; 0 for none.
    seed : int
        Seed of the first weights, the data order and the noise.
    """

    patch: int
    batch: int
    learning_rate: float
    warmup: int
    zoom: tuple[float, float]
    ema: float = 0.999
    objective: str = "ddpm"
    schedule: str = "quadratic"
    weighting: str = "p2"
    stain: float = 0.0
    seed: int = 0


SETTINGS = {
    "paper": PretrainSettings(patch=256, batch=8, learning_rate=1e-4, warmup=0, zoom=(1.0, 1.0)),
    "compact": PretrainSettings(
        patch=128, batch=16, learning_rate=5e-4, warmup=200, zoom=(1.0, 4.0), objective="features", stain=0.15
    ),
}
