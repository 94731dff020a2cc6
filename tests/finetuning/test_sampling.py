"""Patches of corrections."""

from __future__ import annotations

import numpy as np
import torch

from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.finetuning.sampling import CorrectionSampler, balanced

SIDE = 256


def example(weight: np.ndarray, labels: np.ndarray | None = None) -> Example:
    rgb = np.full((SIDE, SIDE, 3), 180, np.uint8)
    labels = np.zeros((SIDE, SIDE), np.uint8) if labels is None else labels
    return Example("a", rgb, labels, weight.astype(np.float32))


def test_a_scribble_is_not_drowned_by_what_the_model_said_or_by_a_filled_area() -> None:
    weight = np.full((SIDE, SIDE), 0.3)
    weight[100, 100:130] = 1
    patch = balanced(example(weight))
    drawn = patch.weight > 0.5
    assert drawn.sum() == 30
    assert (patch.weight[~drawn] == np.float32(0.3)).all()
    assert patch.weight[drawn].min() > 4  # ten times what the model said, and more

    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[:, 128:] = 1
    weight[:, 128:] = 1
    both = balanced(example(weight, labels))
    assert 3 < both.weight[100, 110] / both.weight[100, 200] <= 4.01


def test_a_patch_that_is_drawn_on_as_a_whole_stays_as_it_is() -> None:
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[:, 128:] = 1
    patch = balanced(example(np.ones((SIDE, SIDE)), labels))
    np.testing.assert_allclose(patch.weight, 1, rtol=1e-5)
    empty = example(np.full((SIDE, SIDE), 0.3))
    assert balanced(empty) is empty


def places(sampler: CorrectionSampler, steps: int = 30) -> np.ndarray:
    """Share of patches that show the scribble in the corner, of two that are far apart."""
    shown = [
        float((patch > 0.5)[:, :].sum() > 0 and patch.shape[0] > 0 and _left(patch))
        for step in range(steps)
        for patch in sampler.batch(step, 4).labels.numpy().astype(float)
    ]
    return np.array(shown)


def _left(labels: np.ndarray) -> bool:
    return bool((labels == 1).any())


def two_scribbles() -> Example:
    weight, labels = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE), np.uint8)
    for label, at in ((1, 20), (2, 220)):
        weight[at, at : at + 10] = 1
        labels[at, at : at + 10] = label
    return example(weight, labels)


def test_hard_places_come_more_often() -> None:
    sampler = CorrectionSampler([two_scribbles()], size=32, seed=0)
    assert len(sampler) == 2
    even = places(sampler).mean()
    for step in range(20):
        batch = sampler.batch(step, 4)
        sampler.tell([5.0 if (labels == 1).any() else 0.1 for labels in batch.labels.numpy()])
    hard = places(sampler).mean()
    assert 0.35 < even < 0.65
    assert hard > even + 0.1
    assert hard < 0.95  # but the easy ones are not forgotten


def test_the_order_depends_on_seed_step_and_losses_alone() -> None:
    first, again = (CorrectionSampler([two_scribbles()], size=32, seed=3) for _ in range(2))
    for step in range(5):
        a, b = first.batch(step, 4), again.batch(step, 4)
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.weight, b.weight)
        first.tell([1.0, 2, 3, 4])
        again.tell([1.0, 2, 3, 4])


def test_what_the_model_said_alone_is_nothing_to_learn_from() -> None:
    assert len(CorrectionSampler([example(np.full((SIDE, SIDE), 0.3))], size=32, seed=0)) == 0
