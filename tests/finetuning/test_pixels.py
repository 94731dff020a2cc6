"""The light classifier of pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor

from napari_genselfdiff.finetuning import pixels
from napari_genselfdiff.finetuning.pixels import (
    DECAY,
    agreement,
    balanced_choice,
    cross_fitted,
    fit_classes,
    fit_pixels,
)

INFORMATIVE = 20


def pixels_of(count: int, *, artefact: bool, seed: int) -> tuple[Tensor, Tensor]:
    """Features that each tell two classes apart a little, and one that does so under the strokes alone."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(count) % 2
    features = torch.randn((count, INFORMATIVE + 1), generator=generator)
    features[:, 1:] += 0.3 * (2 * classes[:, None] - 1)
    if artefact:
        features[:, 0] = 8 * (2 * classes - 1) + 0.1 * features[:, 0]
    return features, classes


def accuracy() -> float:
    features, classes = pixels_of(300, artefact=True, seed=0)
    model = fit_pixels(features, classes, torch.ones(300), count=2)
    asked, truth = pixels_of(2_000, artefact=False, seed=1)
    asked[:, 0] = -8 * (2 * truth - 1)  # elsewhere what was special about the strokes is the other way round
    return float((model.of(asked).argmax(dim=1) == truth).float().mean())


def test_no_feature_decides_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    features, classes = pixels_of(300, artefact=True, seed=0)
    model = fit_pixels(features, classes, torch.ones(300), count=2)
    weights = model.first * (features.std(dim=0, correction=0) + pixels.SPREAD)
    assert weights.abs().max() < 1.3 / DECAY
    assert accuracy() > 0.8
    monkeypatch.setattr(pixels, "DECAY", 1.0)
    assert accuracy() < 0.6


def test_the_same_pixels_give_the_same_classifier() -> None:
    features, classes = pixels_of(200, artefact=False, seed=0)
    first, second = (fit_pixels(features, classes, torch.ones(200), count=2) for _ in range(2))
    assert torch.equal(first.of(features), second.of(features))


def test_classes_count_the_same_and_keep_their_numbers() -> None:
    features, classes = pixels_of(400, artefact=False, seed=0)
    some = torch.cat([torch.nonzero(classes == 0).ravel(), torch.nonzero(classes == 1).ravel()[:40]])
    numbers = np.where(classes[some] == 0, 2, 7).astype(np.int16)
    model, present = fit_classes(features[some], numbers, np.ones(len(some), np.float32))
    assert present.tolist() == [2, 7]
    asked, truth = pixels_of(2_000, artefact=False, seed=1)
    said = model.of(asked).argmax(dim=1)
    assert (said[truth == 1] == 1).float().mean() > 0.75
    assert (said[truth == 0] == 0).float().mean() > 0.75


def test_a_rare_class_gives_all_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "LEARNED", 100)
    classes = np.repeat(np.array([0, 1, 2], np.int16), [1_000, 10, 500])
    chosen = balanced_choice(classes)
    assert np.bincount(classes[chosen]).tolist() == [45, 10, 45]
    assert len(np.unique(chosen)) == 100


def test_pixels_are_told_by_other_groups_alone() -> None:
    features, classes = pixels_of(400, artefact=False, seed=0)
    numbers, groups = classes.numpy().astype(np.int16), np.arange(400) // 40
    assert (cross_fitted(features, numbers, groups) == numbers).mean() > 0.75
    # Features that know the group alone tell everything that was learned from, and nothing else.
    groups = np.arange(1_200) // 20
    own = torch.nn.functional.one_hot(torch.from_numpy(groups)).float()
    numbers = (groups % 2).astype(np.int16)
    model, present = fit_classes(own, numbers, np.ones(1_200, np.float32))
    assert (present[model.of(own).argmax(dim=1).numpy()] == numbers).all()
    assert (cross_fitted(own, numbers, groups) == numbers).mean() < 0.7


def test_what_others_have_not_drawn_they_do_not_tell() -> None:
    features, classes = pixels_of(400, artefact=False, seed=0)
    numbers, groups = classes.numpy().astype(np.int16), np.arange(400) // 40
    numbers[groups == 3] += 7  # two classes of its own
    said = cross_fitted(features, numbers, groups)
    assert (said[groups == 3] == -1).all()
    assert (said[groups != 3] >= 0).all()
    teaches = groups == 5
    said = cross_fitted(features, np.zeros(400, np.int16), groups, teaches)
    assert (said == -1).all()
    said = cross_fitted(features, classes.numpy().astype(np.int16), groups, teaches)
    assert (said[groups == 5] == -1).all()
    assert (said >= 0).sum() == 320  # a fold of two groups is not told by itself
    assert not len(cross_fitted(features[:0], numbers[:0], groups[:0]))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_agreement_is_balanced_accuracy_without_chance(count: int) -> None:
    rng = np.random.default_rng(count)
    drawn = rng.integers(0, count, 400)
    said = np.where(rng.random(400) < 0.6, drawn, rng.integers(0, count, 400))
    assert agreement(said, drawn) == pytest.approx(balanced_accuracy_score(drawn, said, adjusted=True))
    assert agreement(drawn, drawn) == 1
    assert agreement(np.zeros(8, int), np.repeat(range(4), 2)) == pytest.approx(0)
    assert agreement(np.array([1, 1, 1, 0]), np.ones(4, int)) == 0.75
