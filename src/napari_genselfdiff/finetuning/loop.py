"""The fine-tune loop: a copy of the current model is trained and scored on what it did not see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.errors import OutOfMemoryError, UserError
from napari_genselfdiff.events import CancelToken, Clock, Event, Finished, LossPoint, Progress
from napari_genselfdiff.finetuning.examples import Example, PatchSampler
from napari_genselfdiff.finetuning.scoring import mean_dice
from napari_genselfdiff.finetuning.trainer import FineTuneSettings, Trainer, check_end
from napari_genselfdiff.segmentation.network import Segmenter

LOSS_EVERY = 5
SMALLER_BATCH = "the device has little memory: going on with {} patches at a time, which takes longer"


@dataclass(frozen=True)
class FineTuneResult:
    """What came of a fine-tune.

    Attributes
    ----------
    segmenter : Segmenter
        The trained copy.
    before, after : float or None
        Mean Dice on what was held out, of the model that it began with (None when there was none) and of the
        trained one; None when nothing was held out.
    steps : int
    seconds : float
    """

    segmenter: Segmenter
    before: float | None
    after: float | None
    steps: int
    seconds: float


def fine_tune(
    segmenter: Segmenter,
    training: Sequence[Example],
    held_out: Sequence[Example],
    *,
    compute: Compute,
    settings: FineTuneSettings | None = None,
    seconds: float | None = None,
    steps: int | None = None,
    score_before: bool = True,
    cancel: CancelToken | None = None,
) -> Iterator[Event]:
    """Train a copy of a segmenter; the one given is not changed.

    Parameters
    ----------
    segmenter : Segmenter
        The model to start from.
    training, held_out : sequence of Example
        At the model's resolution.
    compute : Compute
    settings : FineTuneSettings, optional
    seconds, steps : float, int, optional
        When to stop; whichever comes first. ``seconds`` includes scoring.
    score_before : bool
        Whether to score the model that it begins with.
    cancel : CancelToken, optional
        Honoured within one step; the copy trained so far is the result.

    Yields
    ------
    Event
        `Progress` and `LossPoint`, then `Finished` with a `FineTuneResult`.

    Raises
    ------
    UserError
        If there is nothing to train on, or the training came to nothing.
    OutOfMemoryError
        If the device ran out of memory.
    """
    settings = settings or FineTuneSettings()
    cancel = cancel or CancelToken()
    clock = Clock()
    sampler = PatchSampler(training, size=settings.patch, seed=settings.seed, appearance=settings.appearance)
    if not len(sampler):
        raise UserError("there is nothing to train on", None, "label some pixels of each class first")
    check_end(seconds, steps)
    held_out = [example for example in held_out if example.weight.any()]
    try:
        yield Progress(0, 1, "scoring the model as it is")
        before = _score(segmenter, held_out, compute, cancel) if score_before else None
        scoring = clock.seconds if before is not None else 0.02 * (seconds or 0)
        limit = None if seconds is None else max(seconds * 0.5, seconds - clock.seconds - 1.2 * scoring)
        trainer = Trainer(segmenter, compute, settings)
        training_clock, step, losses = Clock(), 0, []
        while not cancel.cancelled:
            share = _share(training_clock.seconds, limit, step, steps)
            if share >= 1:
                break
            batch = sampler.batch(step, settings.batch)
            try:
                loss = trainer.train_step(batch, _learning_rate(share))
            except OutOfMemoryError:
                if not trainer.shrink():
                    raise
                yield Progress(min(share, 1.0), 1, SMALLER_BATCH.format(trainer.micro))
                continue
            step += 1
            losses += [] if loss is None else [loss.loss]
            if losses and (step == 1 or step % LOSS_EVERY == 0):
                yield LossPoint(step, float(np.mean(losses)), clock.seconds)
                losses = []
            done = _share(training_clock.seconds, limit, step, steps)
            yield Progress(min(done, 1.0), 1, "training", training_clock.left(done, 1))
        if not cancel.cancelled:
            trainer.check()
        yield Progress(1, 1, "scoring the new model")
        average = trainer.average.eval()
        after = _score(average, held_out, compute, cancel)
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError("the device ran out of memory: use a smaller batch, or the CPU") from error
    yield Finished(
        result=FineTuneResult(average, before, after, step, clock.seconds),
        message=f"{step} steps in {clock.seconds:.0f} s",
        cancelled=cancel.cancelled,
    )


def _score(
    segmenter: Segmenter, held_out: Sequence[Example], compute: Compute, cancel: CancelToken
) -> float | None:
    """Mean Dice; None when nothing was held out, or when it was cancelled on the way."""
    scores = []
    for example in held_out:
        if cancel.cancelled:
            return None
        scores.append(mean_dice(segmenter, [example], compute))
    return float(np.mean(scores)) if scores else None


def warm_up() -> None:
    """Import what the first fine-tune needs.

    torch imports its compiler with the first optimiser. That holds the interpreter for a third of a second
    at a time, so a window does it before work runs.
    """
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])


def _share(elapsed: float, limit: float | None, step: int, steps: int | None) -> float:
    def part(done: float, total: float | None) -> float:
        if total is None:
            return 0.0
        return done / total if total > 0 else 1.0

    return max(part(elapsed, limit), part(step, steps))


def _learning_rate(share: float) -> float:
    """Warm-up over the first twentieth, then a cosine to zero."""
    if share < 0.05:
        return max(share / 0.05, 0.02)
    return float(0.5 * (1 + np.cos(np.pi * (share - 0.05) / 0.95)))


__all__ = ["FineTuneResult", "FineTuneSettings", "fine_tune", "warm_up"]
