"""Scores of class maps, and the mean over images."""

from __future__ import annotations

import numpy as np
import pytest

from napari_genselfdiff.segmentation.metrics import (
    class_scores,
    distance_scores,
    mean_scores,
    segmentation_scores,
)


def test_scores_average_the_classes_that_occur() -> None:
    true = np.array([[0, 1, 1, 2], [0, 1, 1, 2], [0, 0, 255, 255]])
    pred = np.array([[0, 1, 1, 0], [0, 1, 1, 2], [0, 0, 1, 2]])
    scores = segmentation_scores(pred, true, classes=4)
    assert set(scores["classes"]) == {1, 2}
    assert scores["classes"][1]["dice"] == 1.0
    assert scores["classes"][2]["dice"] == scores["classes"][2]["f1"] == pytest.approx(2 / 3)
    assert scores["dice"] == pytest.approx((1 + 2 / 3) / 2)
    assert scores["classes"][2]["hausdorff"] == 1.0
    assert scores["hausdorff"] == 0.5
    assert scores["hd95"] == pytest.approx(scores["classes"][2]["hd95"] / 2)


def test_each_class_has_all_scores_in_both_units() -> None:
    true = np.random.default_rng(1).integers(0, 3, (20, 30))
    pred = np.where(np.random.default_rng(2).random((20, 30)) < 0.3, 0, true)
    valid = true != 7
    scores = segmentation_scores(pred, true, classes=3, mpp=0.5)
    for number in (1, 2):
        masks = pred == number, true == number
        expected = class_scores(*masks, valid=valid) | distance_scores(*masks, mpp=0.5)
        assert scores["classes"][number] == expected
    assert scores["hausdorff_um"] == scores["hausdorff"] / 2
    assert not any(name.endswith("_um") for name in segmentation_scores(pred, true, classes=3))


def test_images_without_foreground_have_a_score() -> None:
    nothing, something = np.zeros((3, 4), np.uint8), np.ones((3, 4), np.uint8)
    scores = segmentation_scores(nothing, nothing, classes=3)
    assert (scores["dice"], scores["f1"], scores["hausdorff"], scores["hd95"]) == (1, 1, 0, 0)
    for pair in ((nothing, something), (something, nothing)):
        scores = segmentation_scores(*pair, classes=3)
        assert (scores["dice"], scores["f1"], scores["hausdorff"], scores["hd95"]) == (0, 0, 5, 5)


def test_what_cannot_be_scored_is_refused() -> None:
    image = np.zeros((3, 4), np.uint8)
    with pytest.raises(ValueError, match="foreground class"):
        segmentation_scores(image, image, classes=1)
    with pytest.raises(ValueError, match="no pixel"):
        segmentation_scores(image, image + 255, classes=2)
    with pytest.raises(ValueError, match="one size"):
        segmentation_scores(image, image.T, classes=2)
    with pytest.raises(ValueError, match="no scores"):
        mean_scores([])


def test_the_mean_counts_images_once() -> None:
    """A small image with Dice 1 and a large one with Dice 0 make 0.5, not the Dice of their pixels."""
    small, large = np.ones((2, 2), np.uint8), np.ones((50, 50), np.uint8)
    each = [
        segmentation_scores(small, small, classes=2),
        segmentation_scores(np.zeros_like(large), large, classes=2),
    ]
    assert mean_scores(each)["dice"] == 0.5


def test_a_score_is_averaged_over_the_images_that_have_it() -> None:
    first = {"dice": 1.0, "classes": {1: {"dice": 1.0}}}
    second = {"dice": 0.5, "classes": {1: {"dice": 0.0}, 2: {"dice": 0.25}}}
    mean = mean_scores([first, second])
    assert mean == {"dice": 0.75, "classes": {1: {"dice": 0.5}, 2: {"dice": 0.25}}}
