"""Scores on what was held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.finetuning import scoring
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.finetuning.scoring import mean_dice, predict_image
from napari_genselfdiff.segmentation.network import Segmenter, SegmenterSpec, build_segmenter
from napari_genselfdiff.segmentation.prediction import Prediction

CPU = Compute("cpu", None, 1)
TINY = replace(COMPACT, name="tiny", widths=(8, 16), full_width=8)


@pytest.fixture
def segmenter(monkeypatch: pytest.MonkeyPatch) -> Segmenter:
    """A segmenter of three classes that says what the image's red channel says."""

    def told(model: Segmenter, rgb: NDArray[np.uint8], compute: Compute) -> Prediction:
        planes = np.stack([(rgb[..., 0] == label) * np.uint8(255) for label in range(3)])
        return Prediction((0, 0), 1.0, planes, None)

    monkeypatch.setattr(scoring, "predict_image", told)
    return build_segmenter(SegmenterSpec(config=TINY, classes=("background", "a", "b"), mpp=0.5), start=None)


def said(predicted: list[int], labels: list[int], weight: list[float] | None = None) -> Example:
    rgb = np.zeros((1, len(predicted), 3), np.uint8)
    rgb[..., 0] = predicted
    counted = np.array([weight or [1] * len(labels)], np.float32)
    return Example("a", rgb, np.array([labels], np.uint8), counted)


def test_dice_is_the_mean_over_the_classes_that_are_there(segmenter: Segmenter) -> None:
    # Class 1: 2 x 1 / (2 + 1); class 2: 2 x 1 / (1 + 2).
    assert mean_dice(segmenter, [said([1, 1, 2, 0], [1, 2, 2, 0])], CPU) == pytest.approx(2 / 3)
    assert mean_dice(segmenter, [said([1, 1, 0], [1, 0, 0])], CPU) == pytest.approx(2 / 3)
    assert mean_dice(segmenter, [said([2, 2], [1, 1])], CPU) == 0


def test_pixels_without_a_label_do_not_count(segmenter: Segmenter) -> None:
    example = said([1, 1, 2, 2], [1, 2, 1, 1], [1, 0, 0, 0])
    assert mean_dice(segmenter, [example], CPU) == 1


def test_images_count_alike(segmenter: Segmenter) -> None:
    right, wrong = said([1], [1]), said([1] * 9, [2] * 9)
    assert mean_dice(segmenter, [right, wrong], CPU) == 0.5
    assert mean_dice(segmenter, [said([0, 0], [0, 0])], CPU) == 1


def test_an_image_is_predicted_at_its_own_size() -> None:
    segmenter = build_segmenter(SegmenterSpec(config=TINY, classes=("background", "a"), mpp=0.5), start=None)
    rgb = np.random.default_rng(0).integers(0, 256, (37, 61, 3), dtype=np.uint8)
    prediction = predict_image(segmenter, rgb, CPU)
    assert prediction.labels.shape == (37, 61)
    assert (prediction.origin, prediction.scale) == ((0, 0), 1.0)
    assert (prediction.confidence > 100).all()
    assert not torch.is_inference(next(segmenter.parameters()))
