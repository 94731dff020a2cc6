"""Parts of a round's training."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from tests.finetuning.conftest import CPU, SPEC, same

from napari_genselfdiff.errors import TrainingError
from napari_genselfdiff.finetuning.examples import PatchBatch
from napari_genselfdiff.finetuning.recipe import Amount, recipe_for
from napari_genselfdiff.finetuning.trainer import FAILURES, SKIPPED, Trainer
from napari_genselfdiff.finetuning.training import blended, learning_rate
from napari_genselfdiff.segmentation.network import Segmenter, build_segmenter


def test_the_learning_rate_does_not_depend_on_how_many_steps_will_follow() -> None:
    rates = [learning_rate(step) for step in range(300)]
    assert rates[0] < 0.2
    assert max(rates) == max(rates[5:15])
    assert all(a > b for a, b in pairwise(rates[15:]))


def test_half_the_way_lies_between_two_models(make: Any, network: Segmenter) -> None:
    other = build_segmenter(SPEC, start=None, seed=1)
    assert same(blended(network, other, 1.0), other)
    assert same(blended(network, other, 0.0), network)
    half = blended(network, other, 0.5).unet.output.weight
    expected = (network.unet.output.weight + other.unet.output.weight) / 2
    torch.testing.assert_close(half, expected)


def test_the_anchor_holds_the_weights(make: Any, network: Segmenter) -> None:
    settings = recipe_for(Amount(1, 1, 1)).settings
    batch = PatchBatch(
        torch.zeros(2, 3, 32, 32), torch.ones(2, 32, 32, dtype=torch.int64), torch.ones(2, 32, 32), None
    )
    moved = []
    for pull in (0.0, 300.0):
        trainer = Trainer(network, CPU, replace(settings, pull=pull, learning_rate=1e-2))
        for _ in range(5):
            trainer.train_step(batch, 0.2)
        pairs = zip(network.parameters(), trainer.trainee.parameters(), strict=True)
        moved.append(sum(float((a - b).detach().abs().sum()) for a, b in pairs))
    assert moved[1] < 0.6 * moved[0]


def one_batch(value: float = 0.0) -> PatchBatch:
    labels = torch.zeros(2, 32, 32, dtype=torch.int64)
    labels[:, :16] = 1
    return PatchBatch(torch.full((2, 3, 32, 32), value), labels, torch.ones(2, 32, 32), None)


def test_a_step_that_is_not_finite_changes_nothing(network: Segmenter) -> None:
    trainer = Trainer(network, CPU, recipe_for(Amount(1, 1, 1), fresh=True).settings)
    assert trainer.train_step(one_batch(), 1.0) is not None
    before = {name: value.clone() for name, value in trainer.to_tensors().items()}
    assert trainer.train_step(one_batch(float("nan")), 1.0) is None
    assert (trainer.step, trainer.skipped) == (2, 1)
    after = trainer.to_tensors()
    assert all(torch.equal(after[name], value) for name, value in before.items() if name != SKIPPED)
    # Going on from what is on disk is going on, though a step was left out.
    again = Trainer(network, CPU, trainer.settings)
    again.load({name: value.clone() for name, value in after.items()}, trainer.step)
    for one in (trainer, again):
        assert one.train_step(one_batch(0.5), 1.0) is not None
        one.check()
    assert same(trainer.trainee, again.trainee)


def test_a_training_that_comes_to_nothing_is_given_up(network: Segmenter) -> None:
    trainer = Trainer(network, CPU, recipe_for(Amount(1, 1, 1), fresh=True).settings)
    trainer.check()
    for _ in range(FAILURES - 1):
        assert trainer.train_step(one_batch(float("nan")), 1.0) is None
    with pytest.raises(TrainingError, match="came to nothing"):
        trainer.check()  # it is what it began with
    again = Trainer(network, CPU, trainer.settings)
    again.load(trainer.to_tensors(), trainer.step)
    assert again.train_step(one_batch(), 1.0) is not None
    with pytest.raises(TrainingError, match="its numbers are not finite, start it again"):
        trainer.train_step(one_batch(float("nan")), 1.0)
    with torch.no_grad():
        again.average.unet.output.weight[0] = float("inf")
    with pytest.raises(TrainingError, match="came to nothing"):
        again.check()


def test_more_corrections_mean_more_steps() -> None:
    amounts = [Amount(150, 150, 1), Amount(5000, 1000, 5), Amount(100_000, 9000, 40)]
    for fresh in (False, True):
        steps = [recipe_for(amount, fresh=fresh).steps for amount in amounts]
        assert steps == sorted(steps)
        assert steps[0] < steps[-1]
