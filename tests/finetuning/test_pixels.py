"""The light classifier of pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_genselfdiff.finetuning import pixels
from napari_genselfdiff.finetuning.pixels import DECAY, balanced_choice, fit_classes, fit_pixels

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
