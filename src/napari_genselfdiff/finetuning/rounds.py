"""One round of the circle: corrections of all slides train one model, and the gate judges it."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.events import CancelToken, Clock, Event, Finished, Progress, ScorePoint, Snapshot
from napari_genselfdiff.finetuning.again import Again, Refused, ask_again, hearings
from napari_genselfdiff.finetuning.checkpoint import beginning, load_round, save_round
from napari_genselfdiff.finetuning.corrections import Source
from napari_genselfdiff.finetuning.doubt import believed
from napari_genselfdiff.finetuning.exam import Answers, Exam, dice, joined
from napari_genselfdiff.finetuning.gate import FEWEST, Verdict, first_score, judge_round
from napari_genselfdiff.finetuning.preparation import Cut, cut_places
from napari_genselfdiff.finetuning.recipe import MANY, Recipe, recipe_for
from napari_genselfdiff.finetuning.sampling import CorrectionSampler
from napari_genselfdiff.finetuning.teacher import taught
from napari_genselfdiff.finetuning.trainer import Trainer
from napari_genselfdiff.finetuning.training import HALF, Training, grown_share
from napari_genselfdiff.models.versions import LEFT_OUT, RESUMED, Doubt
from napari_genselfdiff.segmentation.network import Segmenter

SECONDS = 40.0
"""Of a round, unless it is told otherwise."""
SAVE_EVERY = 10.0
FIRST_SNAPSHOT = 8.0
"""Seconds of training after which the model is shown for the first time."""
LOOKS = 8
"""A look at the held-out score takes at most one part of so many of the time since the last one."""
ENOUGH = 0.5
"""Share of the wanted steps without which a cross-validation says nothing."""
FIFTH = "the fifth of your corrections that it did not see"
CROSSED = "your corrections, each half judged by a model that learned from the other"
SHARES = (HALF, 0.25, 0.12)
"""Ways from the old weights to the new: half of it, and less while too much changes for what is known."""


@dataclass(frozen=True)
class RoundResult:
    """What came of a round.

    Attributes
    ----------
    segmenter : Segmenter
        The new model, whether it was accepted or not.
    verdict : Verdict
    steps : int
        Given to `train_round` as ``steps`` they make the same weights again.
    seconds : float
    settings : dict
        Plain values for the version's record: all that is needed to repeat it.
    pixels, regions : int
        Model pixels, and cells, that were drawn or accepted and trained on.
    curve : list of tuple
        ``(step, Dice)`` on what was held out.
    positions : dict of str to int
        Position in each source's journal that its examples belong to.
    doubts : list of Doubt
        Places that were left out, as everything else contradicts them.
    begun : bool
        Whether training started from other weights that were given, and not from the model in use.
    again : Again or None
        One that was refused before, and is surely better by what was corrected since.
    """

    segmenter: Segmenter
    verdict: Verdict
    steps: int
    seconds: float
    settings: dict[str, Any]
    pixels: int
    regions: int
    curve: list[tuple[int, float]] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    doubts: list[Doubt] = field(default_factory=list)
    begun: bool = False
    again: Again | None = None


def train_round(
    sources: Sequence[Source],
    segmenter: Segmenter,
    *,
    compute: Compute,
    fresh: bool = False,
    begin: Segmenter | None = None,
    grown: bool = False,
    adapted: bool = False,
    anchor: dict[str, Tensor] | None = None,
    insisted: Sequence[Doubt] = (),
    refused: Sequence[Refused] = (),
    seconds: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    resume: bool = False,
    cancel: CancelToken | None = None,
) -> Iterator[Event]:
    """Train a copy of a segmenter on what was corrected, and judge it.

    Parameters
    ----------
    sources : sequence of Source
        One that cannot be read is left out, and a `Progress` says so.
    segmenter : Segmenter
        The model in use, from which training starts; it is not changed.
    compute : Compute
    fresh : bool
        The output layer is new: what the model says means nothing, and there is nothing to be better than.
    begin : Segmenter, optional
        Weights to start from instead, such as those of an adapted pretext; the model in use still teaches
        where nothing was corrected, and is still to be beaten.
    grown : bool
        The model in use was grown from ``begin`` by a part of these corrections. While they are few, a round
        starts there again: what too few strokes have taught is easier learned anew than unlearned. When they
        are many, or of one class alone, training goes on from the model in use.
    adapted : bool
        Nothing started from ``begin`` yet: it gets its turn when corrections are many, too.
    anchor : dict of str to Tensor, optional
        U-Net weights that training is pulled to; those of ``segmenter`` by default.
    insisted : sequence of Doubt
        Places that are never left out.
    refused : sequence of Refused
        Models that were trained from the one in use before, the last one first. Where the new one started
        there, too, and is refused, they are asked again by what was corrected since.
    seconds : float, optional
        When to end, reading and scoring included; 40 by default when ``steps`` is not given either.
    steps : int, optional
        Steps of the training; as many as help, by default.
    seed : int
    checkpoint : Path, optional
        A ``.safetensors`` file, written about every ten seconds and on cancel, removed at the end.
    resume : bool
        Go on from the checkpoint if it exists.
    cancel : CancelToken, optional
        Honoured within one step.

    Yields
    ------
    Event
        `Progress`, `LossPoint`, `ScorePoint` and `Snapshot`, then `Finished` with a `RoundResult`, or
        None when it was cancelled.

    Raises
    ------
    UserError
        If nothing was corrected, only one class for a model that is new, no slide could be read, the
        training came to nothing, or the checkpoint is not of this round.
    OutOfMemoryError
        If one patch, or the smallest tile, is too much for the device.

    Notes
    -----
    The weights depend on the corrections, the model, the seed, the number of steps, device and threads, not
    on the clock: the learning rate of a step does not depend on how many will follow (warm-up, then
    ``1 / sqrt(1 + step / 50)``; the moving average of the weights does what a fall to zero would do). So
    every moment of a run is a usable model, and a run of as many steps is the same run.
    """
    seconds = SECONDS if seconds is None and steps is None else seconds
    cancel, clock = cancel or CancelToken(), Clock()
    compute.apply()
    cut = yield from cut_places(sources, segmenter, compute=compute, fresh=fresh, seed=seed, cancel=cancel)
    if cut is None:
        yield Finished(None, "stopped; the model stays as it was", cancelled=True)
        return
    if grown and len(cut.classes) < 2:  # one class alone, as the other was undone, teaches nothing anew
        begin, grown = None, False
    elif grown and cut.amount.pixels >= MANY:
        begin, grown = begin if adapted else None, False
    doubts: list[Doubt] = []
    if fresh or grown:
        cut = yield from taught(cut, begin or segmenter, compute=compute, fresh=fresh, cancel=cancel)
    else:
        read = [one for one in sources if one.name in cut.names]
        scales = {one.name: segmenter.spec.scale_for(one.slide.mpp, one.slide.where) for one in read}
        cut, doubts = yield from believed(
            cut, segmenter, scales, insisted=insisted, compute=compute, cancel=cancel
        )
    recipe = recipe_for(cut.amount, fresh=fresh or begin is not None)
    recipe = Recipe(replace(recipe.settings, seed=seed), steps or recipe.steps)
    training = Training(segmenter, recipe, compute, cancel, clock, seconds, anchor, begin, grown)
    asked = refused if begin is None else ()
    yield from train_cut(cut, training, doubts, asked, fresh=fresh, checkpoint=checkpoint, resume=resume)


def train_cut(
    cut: Cut,
    training: Training,
    doubts: Sequence[Doubt] = (),
    refused: Sequence[Refused] = (),
    *,
    fresh: bool = False,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> Iterator[Event]:
    """Train and judge on examples that are cut already; otherwise as `train_round`.

    ``doubts`` are what was left out of them.
    """
    segmenter, recipe, compute = training.segmenter, training.recipe, training.compute
    cancel, clock, seconds = training.cancel, training.clock, training.seconds
    exam = Exam(
        cut.places, [place.held for place in cut.places], classes=len(segmenter.spec.classes), fresh=fresh
    )
    heard = hearings(refused, cut, classes=len(segmenter.spec.classes))

    # Weights that come from elsewhere have no half of the way.
    whole = fresh or (training.begin is not None and not training.grown)
    shares = (1.0,) if whole else (grown_share(cut.amount.pixels),) if training.grown else SHARES
    before, looking, started = None, cut.reading, clock.seconds
    if not fresh:
        before = yield from exam.answers(segmenter, compute, cancel, parent=True)
        looking = clock.seconds - started
    curve: list[tuple[int, float]] = []
    if before is not None and exam.regions:
        curve.append((0, float(dice(before.counts.sum(axis=0)))))
        yield ScorePoint(0, curve[0][1], clock.seconds)
    crossing = not (fresh or training.grown) and exam.regions < FEWEST <= cut.amount.regions
    limit = None
    if seconds is not None:
        looks = (1.5 if fresh else 2.5) + 2 * len(heard)
        left = max(0.0, seconds - clock.seconds - looks * looking)
        limit = clock.seconds + left * (0.45 if crossing else 1.0)

    trainer, sampler = training.start([place.example() for place in cut.places])
    card = _record(segmenter, recipe, compute, fresh) | beginning(training.begin or segmenter)
    card |= {"positions": cut.positions, LEFT_OUT: [doubt.to_list() for doubt in doubts], RESUMED: []}
    if checkpoint is not None and resume and checkpoint.exists():
        found = load_round(checkpoint, trainer, sampler, card)
        card[RESUMED] = [*found[RESUMED], {"steps": trainer.step, "positions": found["positions"]}]
        curve = [tuple(point) for point in found["curve"]]
        yield Progress(
            trainer.step, recipe.steps, _resumed(trainer.step, found["positions"] == cut.positions)
        )
    saved = looked = shown = clock.seconds
    for event in training.train(trainer, sampler, recipe.steps, limit):
        yield event
        if not isinstance(event, Progress):
            continue
        now = clock.seconds
        if checkpoint is not None and now - saved > SAVE_EVERY:
            save_round(checkpoint, trainer, sampler, card | {"curve": curve})
            saved = clock.seconds
        if now - shown > FIRST_SNAPSHOT:
            yield Snapshot(training.result(trainer, shares[0]), trainer.step, now)
            shown = clock.seconds
        if exam.regions and now - looked > max(3.0, LOOKS * looking):
            started = clock.seconds
            answers = yield from exam.answers(training.result(trainer, shares[0]), compute, cancel)
            looking = clock.seconds - started
            if answers is not None and (not fresh or first_score(answers) is not None):
                curve.append((trainer.step, float(dice(answers.counts.sum(axis=0)))))
                yield ScorePoint(*curve[-1], clock.seconds)
            looked = clock.seconds
    if cancel.cancelled:
        yield _stopped(checkpoint, trainer, sampler, card | {"curve": curve})
        return

    yield Progress(recipe.steps, recipe.steps, "scoring the new model")
    judged = yield from _judged(training, trainer, exam, before, shares[:1] if crossing else shares)
    if judged is not None and crossing and not judged[1].decided:
        crossed = yield from _crossed(training, cut, trainer.step, judged[2], judged[3])
        if crossed is not None and crossed.decided:
            judged = judged[0], crossed, *judged[2:]
        elif judged[1].too_far and not whole:
            judged = yield from _judged(training, trainer, exam, before, shares[1:])
    again = None
    if judged is not None and before is not None and not judged[1].accepted:
        again = yield from ask_again(heard, training, exam, before)
    if judged is None or cancel.cancelled:
        yield _stopped(checkpoint, trainer, sampler, card | {"curve": curve})
        return
    model, verdict, share, _ = judged
    if verdict.after is not None:
        curve.append((trainer.step, verdict.after))
        yield ScorePoint(*curve[-1], clock.seconds)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    yield Finished(
        RoundResult(
            model,
            verdict,
            trainer.step,
            clock.seconds,
            card | {"steps": trainer.step, "micro": trainer.micro, "share": share},
            cut.amount.pixels,
            cut.amount.regions,
            curve,
            cut.positions,
            list(doubts),
            begun=training.begin is not None,
            again=again,
        ),
        verdict.message,
    )


def _judged(
    training: Training, trainer: Trainer, exam: Exam, before: Answers | None, shares: Sequence[float]
) -> Generator[Event, None, tuple[Segmenter, Verdict, float, Answers] | None]:
    """The new model, or the part of the way to it that the gate likes best, and the verdict."""
    best: tuple[Segmenter, Verdict, float, Answers] | None = None
    for share in shares:
        model = training.result(trainer, share)
        answers = yield from exam.answers(model, training.compute, training.cancel)
        if answers is None:
            return None
        verdict = judge_round(before, answers, where=FIFTH, grown=training.grown)
        if best is None or _rank(verdict) > _rank(best[1]):
            best = model, verdict, share, answers
        # A small share of any model is near enough to the one before: if nobody understands what was drawn,
        # that is no reason to use it.
        if not best[1].too_far or not (verdict.decided or exam.regions < FEWEST):
            break
    return best


def _rank(verdict: Verdict) -> tuple[bool, float]:
    """What of several models is preferred."""
    return verdict.accepted, (verdict.after or 0.0) - (verdict.before or 0.0)


def _crossed(
    training: Training, cut: Cut, steps: int, share: float, whole: Answers
) -> Generator[Event, None, Verdict | None]:
    """Judge by cross-validation; None when time ran out or a half holds nothing to learn from."""
    old: list[Answers] = []
    new: list[Answers] = []
    halves = cut.halves()
    for index, asked in enumerate(halves):
        pairs = zip(cut.places, asked, strict=True)
        examples = [place.example(~place.held & ~half) for place, half in pairs]
        trainer, sampler = training.start(examples)
        if not len(sampler):
            return None
        exam = Exam(cut.places, asked, classes=len(training.segmenter.spec.classes))
        limit, wanted = None, max(1, steps // len(halves))
        if training.seconds is not None:
            left = training.seconds - training.clock.seconds
            limit = training.clock.seconds + 0.8 * left / (len(halves) - index)
        for event in training.train(trainer, sampler, wanted, limit):
            if isinstance(event, Progress):
                yield replace(event, message="checking whether it is better")
        if trainer.step < ENOUGH * wanted:
            return None
        for model, given in ((training.segmenter, old), (training.result(trainer, share), new)):
            answers = yield from exam.answers(
                model, training.compute, training.cancel, parent=model is training.segmenter
            )
            if answers is None:
                return None
            given.append(answers)
    # How much changes elsewhere is asked of the model that would be used, not of those that stand for it.
    new_answers = replace(joined(new), kept=whole.kept)
    return judge_round(joined(old), new_answers, where=CROSSED, grown=training.grown)


def _record(segmenter: Segmenter, recipe: Recipe, compute: Compute, fresh: bool) -> dict[str, Any]:
    """What a version keeps of how it was made."""
    return {
        "settings": asdict(recipe.settings),
        "classes": list(segmenter.spec.classes),
        "fresh": fresh,
        "seed": recipe.settings.seed,
        "device": compute.device,
        "threads": compute.threads,
        "precision": compute.training_autocast or "float32",
        "torch": torch.__version__,
    }


def _resumed(step: int, same: bool) -> str:
    more = "" if same else ", with what was corrected since"
    return f"going on after {step} steps{more}"


def _stopped(
    checkpoint: Path | None, trainer: Trainer, sampler: CorrectionSampler, card: dict[str, Any]
) -> Finished:
    message = "stopped; the model stays as it was"
    if checkpoint is not None and trainer.step:
        save_round(checkpoint, trainer, sampler, card)
        message += f", and {trainer.step} steps of training are kept to go on from"
    return Finished(None, message, cancelled=True)
