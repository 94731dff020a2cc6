"""The fine-tune loop: a copy of the current model is trained and scored on what it did not see."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.pretraining import follow
from napari_genselfdiff.errors import OutOfMemoryError, UserError
from napari_genselfdiff.events import CancelToken, Clock, Event, Finished, LossPoint, Progress
from napari_genselfdiff.finetuning.augmentation import Appearance
from napari_genselfdiff.finetuning.examples import Example, PatchBatch, PatchSampler
from napari_genselfdiff.finetuning.scoring import mean_dice
from napari_genselfdiff.segmentation.losses import LOSSES, Loss, distance_loss
from napari_genselfdiff.segmentation.network import Segmenter, copy_segmenter

LOSS_EVERY = 5


@dataclass(frozen=True)
class FineTuneSettings:
    """How a fine-tune is run, apart from how long.

    Attributes
    ----------
    patch, batch : int
        Side of the patches in pixels, and patches a step.
    learning_rate : float
        AdamW's highest; warmed up over the first twentieth of the run, then falling as a cosine.
    body_rate : float
        Learning rate of all but the output layer, in multiples of ``learning_rate``.
    weight_decay : float
    ema : float
        Decay of the moving average of the weights, which is what is scored and kept.
    loss : {"dice", "paper"}
        Name of a sum of losses, see `losses.LOSSES`. Soft Dice and cross-entropy learn much faster than the
        paper's (``benchmarks/losses.py``).
    fixed_statistics : bool
        Whether batch normalisation keeps the statistics that the model came with: right for one that knows
        the task and now sees a few corrected places, whose statistics are not those of the slide.
    appearance : Appearance
        How far the look of the patches may change.
    seed : int
        Seed of the patches.
    """

    patch: int = 128
    batch: int = 8
    learning_rate: float = 1e-3
    body_rate: float = 1.0
    weight_decay: float = 1e-4
    ema: float = 0.99
    loss: str = "dice"
    fixed_statistics: bool = False
    appearance: Appearance = field(default_factory=Appearance)
    seed: int = 0


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
        If there is nothing to train on.
    OutOfMemoryError
        If the device ran out of memory.
    """
    settings = settings or FineTuneSettings()
    cancel = cancel or CancelToken()
    clock = Clock()
    sampler = PatchSampler(training, size=settings.patch, seed=settings.seed, appearance=settings.appearance)
    if not len(sampler):
        raise UserError("there is nothing to train on", None, "label some pixels of each class first")
    if seconds is None and steps is None:
        raise UserError("the training has no end", None, "give --seconds or --steps")
    device = compute.apply()
    held_out = [example for example in held_out if example.weight.any()]
    try:
        yield Progress(0, 1, "scoring the model as it is")
        before = _score(segmenter, held_out, compute, cancel) if score_before else None
        scoring = clock.seconds if before is not None else 0.02 * (seconds or 0)
        limit = None if seconds is None else max(seconds * 0.5, seconds - clock.seconds - 1.2 * scoring)
        trainee = copy_segmenter(segmenter).to(device)
        average = copy.deepcopy(trainee).requires_grad_(False)
        head = list(trainee.unet.output.parameters())
        own = {id(parameter) for parameter in head}
        body = [parameter for parameter in trainee.parameters() if id(parameter) not in own]
        optimizer = torch.optim.AdamW(
            [{"params": head, "share": 1.0}, {"params": body, "share": settings.body_rate}],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        training_clock, step, losses = Clock(), 0, []
        while not cancel.cancelled:
            share = _share(training_clock.seconds, limit, step, steps)
            if share >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * group["share"] * _learning_rate(share)
            batch = sampler.batch(step, settings.batch)
            _to_training_mode(trainee, fixed_statistics=settings.fixed_statistics)
            losses.append(_train_step(trainee, optimizer, batch, compute, device, LOSSES[settings.loss]))
            step += 1
            follow(average, trainee, min(settings.ema, (1 + step) / (10 + step)))
            if step == 1 or step % LOSS_EVERY == 0:
                yield LossPoint(step, float(np.mean(losses)), clock.seconds)
                losses = []
            done = _share(training_clock.seconds, limit, step, steps)
            yield Progress(min(done, 1.0), 1, "training", training_clock.left(done, 1))
        yield Progress(1, 1, "scoring the new model")
        average.eval()
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


def _to_training_mode(trainee: Segmenter, *, fixed_statistics: bool) -> None:
    trainee.train()
    if fixed_statistics:
        for module in trainee.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def _train_step(
    trainee: Segmenter,
    optimizer: torch.optim.Optimizer,
    batch: PatchBatch,
    compute: Compute,
    device: torch.device,
    terms: tuple[Loss, ...],
) -> float:
    optimizer.zero_grad(set_to_none=True)
    labels, weight = batch.labels.to(device), batch.weight.to(device)
    with compute.autocasting(training=True):
        logits, distance = trainee(batch.images.to(device))
    loss = torch.stack([term(logits, labels, weight) for term in terms]).sum()
    if distance is not None and batch.distance is not None:
        loss = loss + distance_loss(distance, batch.distance.to(device), weight)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


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
