"""The steps of a round's training, the same ones whatever the clock says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.errors import OutOfMemoryError
from napari_genselfdiff.events import CancelToken, Clock, Event, LossPoint, Progress
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.finetuning.loop import LOSS_EVERY, SMALLER_BATCH
from napari_genselfdiff.finetuning.recipe import Recipe
from napari_genselfdiff.finetuning.sampling import CorrectionSampler
from napari_genselfdiff.finetuning.trainer import Trainer
from napari_genselfdiff.segmentation.network import Segmenter, copy_segmenter

HALF, GROWN_SHARE = 0.5, 0.6
"""Shares of the way from the model in use to the trained weights that a round goes: half of it gains nearly
as much on slides that nobody corrected, and loses much less where a round harms; a little more of it while
the model in use was itself grown from few corrections (``docs/benchmarks/circle.md``)."""
STEADY = 4_000
"""Drawn pixels from which on a grown model goes less far in a round, in inverse proportion."""
WARMUP, HALVING = 10, 50
"""Steps until the learning rate is at its highest; and until its square has halved."""


@dataclass(frozen=True)
class Training:
    """What the trainings of one round have in common.

    Attributes
    ----------
    segmenter : Segmenter
        The model in use, which the new one has to be better than.
    recipe : Recipe
    compute : Compute
    cancel : CancelToken
    clock : Clock
        Of the round.
    seconds : float or None
        When the round has to end.
    anchor : dict of str to Tensor, or None
    begin : Segmenter, optional
        The weights to start from, where they are not those of the model in use.
    grown : bool
        The model in use was grown from ``begin`` by a part of the corrections.
    """

    segmenter: Segmenter
    recipe: Recipe
    compute: Compute
    cancel: CancelToken
    clock: Clock
    seconds: float | None
    anchor: dict[str, Tensor] | None
    begin: Segmenter | None = None
    grown: bool = False

    def start(self, examples: Sequence[Example]) -> tuple[Trainer, CorrectionSampler]:
        """A training that has not begun, and its patches."""
        settings = self.recipe.settings
        sampler = CorrectionSampler(
            examples, size=settings.patch, seed=settings.seed, appearance=settings.appearance
        )
        return Trainer(self.begin or self.segmenter, self.compute, settings, anchor=self.anchor), sampler

    def train(
        self, trainer: Trainer, sampler: CorrectionSampler, steps: int, limit: float | None
    ) -> Iterator[Event]:
        """Train until there were so many steps, the clock says ``limit``, or it is cancelled."""
        losses: list[float] = []
        first, began = trainer.step, self.clock.seconds
        while trainer.step < steps and not self.cancel.cancelled:
            now = self.clock.seconds
            if limit is not None and now >= limit and trainer.step > first:
                break
            batch = sampler.batch(trainer.step, self.recipe.settings.batch)
            try:
                loss = trainer.train_step(batch, learning_rate(trainer.step))
            except OutOfMemoryError:
                if not trainer.shrink():
                    raise
                yield Progress(trainer.step, steps, SMALLER_BATCH.format(trainer.micro))
                continue
            if loss is not None:
                sampler.tell(loss.patches)
                losses.append(loss.loss)
            if losses and (trainer.step == 1 or trainer.step % LOSS_EVERY == 0):
                yield LossPoint(trainer.step, float(np.mean(losses)), self.clock.seconds)
                losses = []
            yield Progress(
                trainer.step, steps, "training", self._left(trainer.step, first, began, steps, limit)
            )
        if not self.cancel.cancelled:
            trainer.check()

    def result(self, trainer: Trainer, share: float) -> Segmenter:
        """The model that lies so much of the way from the one in use to the trained weights."""
        trained = trainer.snapshot()
        return trained if share >= 1 else blended(self.segmenter, trained, share)

    def _left(self, step: int, first: int, began: float, steps: int, limit: float | None) -> float:
        now = self.clock.seconds
        by_steps = (now - began) / (step - first) * (steps - step)
        return by_steps if limit is None else max(0.0, min(by_steps, limit - now))


def grown_share(pixels: int) -> float:
    """Share of the way that a round of a grown model goes, by what was drawn and is trained on.

    Rounds disagree by chance, and what is drawn late is hard and one-sided: so the weights become the mean of
    ever more rounds, and a late one cannot undo the others (averaged stochastic approximation, Polyak and
    Juditsky 1992).
    """
    return GROWN_SHARE * min(1.0, STEADY / max(pixels, 1))


def learning_rate(step: int) -> float:
    """Share of the highest learning rate at a step, whatever the number of steps."""
    return min(1.0, (step + 1) / WARMUP) / float(np.sqrt(1 + step / HALVING))


def blended(old: Segmenter, new: Segmenter, share: float) -> Segmenter:
    """A model on the way from one to another (WiSE-FT, Wortsman et al. 2022).

    Parameters
    ----------
    old, new : Segmenter
        Of one shape.
    share : float
        0 gives the old one, 1 the new one.
    """
    mixed = copy_segmenter(new)
    start = old.state_dict()
    with torch.no_grad():
        for name, value in mixed.state_dict().items():
            if value.is_floating_point():
                value.lerp_(start[name].to(value), 1 - share)
    return mixed.eval()
