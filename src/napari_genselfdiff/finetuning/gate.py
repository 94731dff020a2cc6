"""The gate: a new model replaces the one before only if it is better on what it was not trained on.

Corrections can be wrong, and those that judge a model are wrong as often as those that train it. So a second
witness is heard: what the model before says at places that nobody corrected. A round that learned nonsense
scores high on the nonsense that was held out, and gives itself away there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.finetuning.exam import Answers, dice

DRAWS = 2000
SLIDES = 3
"""From so many slides on, the bootstrap draws slides: the regions of one are alike."""
NOISE = 20.0
"""Percentile of the bootstrap that must lie above no gain; the interval has as much on its other side."""
LEAST_GAIN = 0.005
"""A smaller one is not worth a change, however sure: regions of one window are more alike than they look."""
FEWEST = 5
"""Regions below which nothing can be told, but for what is plain."""
FEWEST_PLAIN, PLAIN = 3, 0.1
"""Regions that do for a gain that is surely so large, where it explains the change elsewhere."""
KEPT = 0.75
"""Dice with the model before where nobody corrected that is asked of a model that is surely better."""
PER_GAIN, PER_SURE = 5.5, 2.5
"""More may be changed by so many times a gain that is sure; and by so many times the lower bound of it, where
some of what was held out is contradicted by both models, as some of what was trained on is wrong then."""
MIXED, ALIKE = 0.05, 0.1
"""Share of what was held out that is foreground, and that is background; and the agreement of the model
before with it (Youden's J). Below these no gain explains a change."""
KEPT_EARLY = 0.96
"""Dice with the model before where nobody corrected that is asked for while it is too early to tell."""
RARE = 0.01
"""Share of the foreground below which a class has no say in that."""
DOUBTFUL, TRUSTED = 0.6, 0.8
"""Agreement of the better model with a region: below it does not count, above it counts fully."""
CONTRADICTED, FEW = 0.3, 0.1
"""Agreement of the better model with a region that it contradicts; and the share of regions that is none."""


@dataclass(frozen=True)
class Verdict:
    """Whether a new model replaces the one before.

    Attributes
    ----------
    accepted : bool
    decided : bool
        Whether there were regions enough to tell; if not, ``accepted`` rests on the second witness alone.
    before, after : float or None
        Dice of the model before and of the new one on what the new one was not trained on.
    low, high : float or None
        Bounds of the gain, from a bootstrap over the regions.
    regions : int
        Regions that were asked about.
    kept : float or None
        Dice of the new model with what the one before says, where nobody corrected.
    too_far : bool
        Refused because it changes more elsewhere than the gain explains.
    message : str
        The answer in plain words.
    """

    accepted: bool
    decided: bool
    before: float | None = None
    after: float | None = None
    low: float | None = None
    high: float | None = None
    regions: int = 0
    kept: float | None = None
    too_far: bool = False
    message: str = ""


def judge_round(
    before: Answers | None,
    after: Answers | None,
    *,
    where: str = "the fifth of your corrections that it did not see",
    grown: bool = False,
) -> Verdict:
    """Decide by what two models answered to the same exam.

    Parameters
    ----------
    before : Answers or None
        Of the model before; None when there was none for this task.
    after : Answers or None
        Of the new model; None when nothing was asked.
    where : str
        What the exam was about, for the message.
    grown : bool
        The model before was grown from a part of these corrections: it is no witness, and while it is too
        early to tell the new one is used, which has seen all that the other has and more.

    Notes
    -----
    The gain is the difference of two Dice scores, each over all regions together, in which a region counts by
    the square root of its size and by how far it can be trusted: where neither model finds what was drawn,
    the drawing is as likely wrong as both models, and says nothing about which is better. Its noise is that
    of a paired bootstrap: the same regions, or slides where there are several, drawn with replacement.
    """
    kept = None if after is None or not after.kept.any() else _kept(after.kept)
    if before is None:
        return _first(after, where)
    witness = None if grown else kept
    regions = 0 if after is None else len(after.counts)
    weight = np.zeros(0) if after is None else trust(before, after)
    known = int(np.count_nonzero(weight))
    if after is None or known < FEWEST_PLAIN:
        return _early(kept, regions, grown)
    old, new = (float(dice(np.tensordot(weight, answers.counts, 1))) for answers in (before, after))
    draws = _draws(after, regions) * weight
    gains = dice(np.tensordot(draws, after.counts, 1)) - dice(np.tensordot(draws, before.counts, 1))
    low, high = (float(value) for value in np.percentile(gains, [NOISE, 100 - NOISE]))
    scores = f"Dice {old:.2f} -> {new:.2f} on {where}"
    explained = _explained(before, after, weight, new - old, low)
    if known < FEWEST and (witness is None or low < PLAIN or 1 - witness > explained):
        return _early(kept, regions, grown)
    too_far = witness is not None and 1 - witness > max(1 - KEPT, explained)
    accepted = low > 0 and new - old >= LEAST_GAIN and not too_far
    if accepted:
        message = f"Better: {scores}"
    elif new <= old:
        message = f"Not better: {scores}; the model stays as it was"
    elif too_far:
        message = (
            f"Not taken over: {scores}, but it changes {1 - (witness or 0):.0%} of what the model says "
            "where you did not correct; look at both, and correct some of that if the new one is right"
        )
    elif low > 0:
        message = f"Hardly better: {scores}; the model stays as it was"
    else:
        message = f"Not surely better: {scores}, which is within the noise; the model stays as it was"
    return Verdict(accepted, True, old, new, low, high, regions, kept, too_far, message)


def _early(kept: float | None, regions: int, grown: bool) -> Verdict:
    """While it is too early to tell, what counts is how much is changed elsewhere."""
    careful = grown or (kept is not None and kept >= KEPT_EARLY)
    seen = "it has seen all that the one before has, and more"
    why = seen if grown else "it changes little elsewhere"
    done = f"it is used, as {why}" if careful else "the model stays as it was"
    return Verdict(
        careful,
        False,
        regions=regions,
        kept=kept,
        too_far=not careful,
        message=f"Too early to tell whether it is better, and {done}: correct a few more places",
    )


def _kept(counts: NDArray[np.float64]) -> float:
    """How much of what the model before says is still said: the Dice of the classes that it says often.

    Of a class that it says in a few stray pixels nothing may be left, and nothing has happened.
    """
    return float(dice(counts[_often(counts)]))


def _often(counts: NDArray[np.float64]) -> NDArray[np.bool_]:
    often: NDArray[np.bool_] = counts[:, 2] >= RARE * counts[1:, 2].sum()
    often[0] = True
    return often


def _explained(
    before: Answers, after: Answers, weight: NDArray[np.float64], gain: float, low: float
) -> float:
    """How much change elsewhere a gain on what was held out explains.

    None where nearly all of it is foreground, or background: whoever says that everywhere is right there.
    None for a class that the model before says often and that was not held out. And none where the model
    before is as good as chance: what says the opposite is as likely a slip as that model is all wrong.
    """
    counts = np.tensordot(weight, before.counts, 1)
    right, true = counts[:, 0], counts[:, 2]
    if low <= 0 or min(true[0], true[1:].sum()) < MIXED * true.sum() or not true[_often(after.kept)].all():
        return 0.0
    asked = true > 0
    recall, chance = float((right[asked] / true[asked]).mean()), 1 / np.count_nonzero(asked)
    if recall - chance < ALIKE * (1 - chance):
        return 0.0
    opposed = (_agreed(before, after) < CONTRADICTED).mean() > FEW
    return PER_SURE * low if opposed else PER_GAIN * gain


def first_score(after: Answers | None) -> float | None:
    """Dice of a first model; None where no class was asked about: the background's is not the model's."""
    if after is None or not after.counts[:, 1:, 2].any():
        return None
    return float(dice(after.counts.sum(axis=0)))


def _first(after: Answers | None, where: str) -> Verdict:
    """The first model of a task: there is nothing that it could be worse than."""
    score = first_score(after)
    if after is None or score is None:
        return Verdict(True, False, message="A first model; too early to tell how good it is")
    return Verdict(
        True,
        False,
        after=score,
        regions=len(after.counts),
        message=f"A first model: Dice {score:.2f} on {where}",
    )


def _draws(answers: Answers, regions: int) -> NDArray[np.float64]:
    """How often each region is drawn, in each of the bootstrap's samples."""
    rng = np.random.default_rng(0)
    group = np.arange(regions)
    if answers.slides is not None and len(np.unique(answers.slides)) >= SLIDES:
        group = np.unique(answers.slides, return_inverse=True)[1]
    count = int(group.max()) + 1
    return rng.multinomial(count, np.full(count, 1 / count), DRAWS)[:, group].astype(float)


def trust(before: Answers, after: Answers) -> NDArray[np.float64]:
    """How much each region counts; nothing where neither of two models finds what was drawn.

    Agreement is the mean Dice of all classes that are drawn or predicted there, the background among them:
    the share of right pixels would be high where nuclei were wiped out.
    """
    size = np.maximum(after.counts[..., 2].sum(axis=1), 1)
    trusted = np.clip((_agreed(before, after) - DOUBTFUL) / (TRUSTED - DOUBTFUL), 0, 1)
    return np.asarray(trusted / np.sqrt(size), np.float64)


def _agreed(before: Answers, after: Answers) -> NDArray[np.float64]:
    """Agreement of the better model with each region."""
    return np.maximum(_agreement(before.counts), _agreement(after.counts))


def _agreement(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    right, predicted, true = np.moveaxis(counts, -1, 0)
    there = predicted + true > 0
    each = 2 * right / np.maximum(predicted + true, 1)
    return np.asarray(each.sum(axis=-1) / np.maximum(there.sum(axis=-1), 1), np.float64)
