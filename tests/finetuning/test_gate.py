"""The gate says yes to what is surely better, no to what is not, and when it cannot tell."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np

from napari_genselfdiff.finetuning.exam import Answers, dice
from napari_genselfdiff.finetuning.gate import FEWEST, FEWEST_PLAIN, judge_round

REGIONS = 20


def answers(right: list[float], *, kept: float = 1.0) -> Answers:
    """Of a model that gets these shares of each region right, half of it foreground."""
    counts = np.zeros((len(right), 2, 3))
    for region, share in enumerate(right):
        counts[region] = [[500 * share, 500, 500], [500 * share, 500, 500]]
    return Answers(counts, np.array([[1000 * kept, 1000, 1000], [1000 * kept, 1000, 1000]]))


def one_class(found: list[float], *, kept: float = 1.0) -> Answers:
    """Of a model that finds these shares of regions that are all foreground."""
    counts = np.array([[[0, 1000 * (1 - share), 0], [1000 * share] * 2 + [1000]] for share in found])
    return Answers(counts, answers(found, kept=kept).kept)


def some(mean: float, *, spread: float, seed: int = 0, count: int = REGIONS) -> list[float]:
    return np.random.default_rng(seed).normal(mean, spread, count).clip(0, 1).tolist()


def test_a_clear_gain_is_accepted_and_told_in_plain_words() -> None:
    verdict = judge_round(answers(some(0.71, spread=0.02)), answers(some(0.83, spread=0.02, seed=1)))
    assert verdict.accepted
    assert verdict.decided
    assert verdict.regions == REGIONS
    assert verdict.low is not None
    assert verdict.high is not None
    assert verdict.before is not None
    assert verdict.after is not None
    assert 0 < verdict.low < verdict.after - verdict.before < verdict.high
    assert verdict.message == "Better: Dice 0.71 -> 0.83 on the fifth of your corrections that it did not see"


def test_a_loss_is_refused() -> None:
    verdict = judge_round(answers(some(0.8, spread=0.02)), answers(some(0.7, spread=0.02, seed=1)))
    assert not verdict.accepted
    assert verdict.decided
    assert "Not better" in verdict.message
    assert "stays as it was" in verdict.message


def test_a_gain_within_the_noise_is_refused() -> None:
    old = [0.65, 0.85] * 10
    new = [share + change for share, change in zip(old, [0.12, -0.12, 0.1, -0.08] * 5, strict=True)]
    assert np.mean(new) > np.mean(old)
    verdict = judge_round(answers(old), answers(new))
    assert not verdict.accepted
    assert verdict.low is not None
    assert verdict.low < 0
    # The same regions for both: a small gain in each of them is no noise.
    paired = judge_round(answers(old), answers([value + 0.02 for value in old]))
    assert paired.accepted
    hardly = judge_round(answers(old), answers([value + 0.003 for value in old]))
    assert not hardly.accepted
    assert "Hardly better" in hardly.message


def test_with_few_regions_it_is_too_early_to_tell() -> None:
    few = FEWEST - 1
    verdict = judge_round(answers([0.8] * few), answers([0.4] * few))
    assert not verdict.decided
    assert "Too early to tell" in verdict.message
    assert judge_round(answers([0.8] * FEWEST), answers([0.4] * FEWEST)).decided


def test_a_few_regions_do_for_a_gain_that_is_plain() -> None:
    old = answers([0.65] * FEWEST_PLAIN)
    plain = judge_round(old, answers([0.9] * FEWEST_PLAIN, kept=0.5))
    assert plain.accepted
    assert plain.decided
    assert plain.message.startswith("Better: Dice 0.65 -> 0.90")
    # Not for a small one, not where the model before is as good as chance, not without a witness.
    assert not judge_round(old, answers([0.72] * FEWEST_PLAIN, kept=0.9)).decided
    assert not judge_round(answers([0.5] * FEWEST_PLAIN), answers([0.9] * FEWEST_PLAIN, kept=0.9)).decided
    unasked = answers([0.9] * FEWEST_PLAIN)
    assert not judge_round(old, Answers(unasked.counts, np.zeros((2, 3)))).decided
    assert not judge_round(old, unasked, grown=True).decided
    assert not judge_round(answers([0.65] * 2), answers([0.9] * 2, kept=0.9)).decided


def test_a_model_that_contradicts_the_old_one_elsewhere_is_refused() -> None:
    old = answers([0.8] * 10)
    better = judge_round(old, answers([0.85] * 10, kept=0.7))
    assert not better.accepted
    assert better.too_far
    assert "30% of what the model says where you did not correct" in better.message
    assert judge_round(old, answers([0.82] * 10, kept=0.8)).accepted
    # A large gain needs more change, where it is no matter of saying one class everywhere.
    assert judge_round(answers([0.6] * 10), answers([0.9] * 10, kept=0.2)).accepted
    assert not judge_round(one_class([0.6] * 10), one_class([1.0] * 10, kept=0.6)).accepted
    # Nor of saying the opposite: where the model before is no better than chance, it may be the drawing.
    assert judge_round(answers([0.5] * 10), answers([0.9] * 10, kept=0.6)).too_far
    assert judge_round(answers([0.02] * 10), answers([0.9] * 10, kept=0.6)).too_far
    assert judge_round(answers([0.5] * 10), answers([0.9] * 10, kept=0.8)).accepted
    # And less where some of what was held out says the opposite of both: it will have been trained on, too.
    assert judge_round(answers([0.6] * 8 + [0.1] * 2), answers([0.9] * 8 + [0.2] * 2, kept=0.2)).too_far
    assert judge_round(answers([0.6] * 8 + [0.5] * 2), answers([0.9] * 8 + [0.5] * 2, kept=0.2)).accepted
    # While nothing is known about the gain, far less may change.
    early = judge_round(answers([0.2]), answers([0.9], kept=0.9))
    assert not early.decided
    assert not early.accepted
    assert judge_round(answers([0.2]), answers([0.9], kept=0.97)).accepted


def test_a_few_stray_pixels_of_rare_classes_are_no_change() -> None:
    old, new = some(0.8, spread=0.02), some(0.95, spread=0.01, seed=1)
    stray = np.array(
        [[99_982, 99_994, 99_988], [99_988, 100_000, 99_994], [0, 0, 6]], float
    )  # says class 2 no more
    before = answers(old)
    counts = np.concatenate([answers(new).counts, np.zeros((REGIONS, 1, 3))], axis=1)
    before = Answers(np.concatenate([before.counts, np.zeros((REGIONS, 1, 3))], axis=1), stray)
    assert judge_round(before, Answers(counts, stray)).accepted
    much = stray.copy()
    much[2, 2] = 40_000  # a class that it did say
    verdict = judge_round(before, Answers(counts, much))
    assert not verdict.accepted
    assert verdict.too_far


def test_a_model_grown_from_fewer_corrections_is_no_witness() -> None:
    early = judge_round(answers([0.2]), answers([0.9], kept=0.5), grown=True)
    assert early.accepted
    assert not early.decided
    assert "it has seen all that the one before has, and more" in early.message
    old = answers([0.8] * 10)
    assert judge_round(old, answers([0.9] * 10, kept=0.5), grown=True).accepted
    assert not judge_round(old, answers([0.7] * 10, kept=0.5), grown=True).accepted


def test_regions_that_no_model_understands_do_not_count() -> None:
    """A third of the corrections are wrong: the new model is better and so further away from them."""
    old = answers([0.75] * 10 + [0.20] * 5)
    new = answers([0.80] * 10 + [0.05] * 5)
    plain = [float(np.mean([0.8] * 10 + [0.05] * 5)), float(np.mean([0.75] * 10 + [0.2] * 5))]
    assert plain[0] < plain[1]  # all regions taken for granted, the better model would lose
    assert judge_round(old, new).accepted
    # Whoever learned the nonsense loses where the labels are right.
    assert not judge_round(answers([0.75] * 10 + [0.25] * 5), answers([0.3] * 10 + [0.9] * 5)).accepted


def test_the_first_model_of_a_task_is_taken() -> None:
    verdict = judge_round(None, answers([0.6] * 8))
    assert verdict.accepted
    assert verdict.before is None
    assert verdict.message == (
        "A first model: Dice 0.60 on the fifth of your corrections that it did not see"
    )
    assert judge_round(None, None).accepted


def test_the_background_alone_says_nothing_about_a_first_model() -> None:
    background = Answers(np.tile([[1000.0] * 3, [0.0] * 3], (8, 1, 1)), np.zeros((2, 3)))
    verdict = judge_round(None, background)
    assert (verdict.accepted, verdict.decided, verdict.after) == (True, False, None)
    assert verdict.message == "A first model; too early to tell how good it is"


def test_the_verdict_does_not_change_from_run_to_run() -> None:
    old, new = answers(some(0.7, spread=0.1)), answers(some(0.75, spread=0.1, seed=1))
    assert judge_round(old, new) == judge_round(old, new)


def test_a_verdict_can_be_written_down() -> None:
    verdict = judge_round(answers([0.8] * 18), answers([0.82] * 18, kept=0.94))
    assert json.loads(json.dumps(asdict(verdict)))["accepted"] is True


def test_dice_is_the_mean_over_the_classes_that_are_there() -> None:
    counts = np.array([[0.0, 0, 0], [10, 20, 20], [0, 5, 0], [30, 30, 30]])
    assert dice(counts) == (0.5 + 1) / 2
    only_background = np.array([[90.0, 90, 100], [0, 10, 0]])
    assert np.isclose(dice(only_background), 180 / 190)
