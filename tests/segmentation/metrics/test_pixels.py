"""Overlap of masks against hand-computed values and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sklearn_metrics

from napari_genselfdiff.segmentation.metrics import class_scores

MASKS = arrays(bool, (5, 6), elements=st.booleans(), fill=st.just(False))


def test_by_hand() -> None:
    predicted = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool)
    target = np.array([[1, 1, 1, 0], [0, 0, 0, 0]], bool)
    scores = class_scores(predicted, target)
    expected = {"dice": 4 / 6, "f1": 4 / 6, "iou": 2 / 4, "precision": 2 / 3, "sensitivity": 2 / 3}
    assert scores == pytest.approx({**expected, "specificity": 4 / 5, "accuracy": 6 / 8})


def test_precision_is_of_the_prediction_and_sensitivity_of_the_target() -> None:
    target = np.arange(10) < 4
    scores = class_scores([np.arange(10) < 1], [target])
    assert (scores["precision"], scores["sensitivity"], scores["specificity"]) == (1.0, 0.25, 1.0)
    scores = class_scores([np.arange(10) < 7], [target])
    assert (scores["precision"], scores["sensitivity"], scores["specificity"]) == (4 / 7, 1.0, 0.5)


def test_empty_masks() -> None:
    empty = np.zeros((30, 40), bool)
    full = empty.copy()
    full[3:13, 3:13] = True
    names = ("dice", "iou", "precision", "sensitivity", "f1")
    assert set(class_scores(empty, empty).values()) == {1.0}
    assert [class_scores(full, empty)[name] for name in names] == [0.0] * 5
    assert [class_scores(empty, full)[name] for name in names] == [0.0] * 5
    assert class_scores(~empty, ~empty)["specificity"] == 1.0
    assert class_scores(full, empty)["specificity"] == class_scores(empty, full)["accuracy"] == 11 / 12


def test_unlabelled_pixels_count_nowhere() -> None:
    predicted = np.array([[1, 1, 0, 1], [1, 0, 0, 1]], bool)
    target = np.array([[1, 1, 1, 0], [0, 0, 0, 0]], bool)
    valid = np.array([[1, 1, 1, 0], [1, 1, 1, 0]], bool)
    assert class_scores(predicted, target, valid=valid) == class_scores(predicted[:, :3], target[:, :3])
    with pytest.raises(ValueError, match="labelled"):
        class_scores(predicted, target, valid=np.zeros_like(valid))


def test_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="one size"):
        class_scores(np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="one size"):
        class_scores(np.zeros((2, 2)), np.zeros((2, 2)), valid=np.zeros((3, 2)))


@given(MASKS, MASKS, MASKS)
@settings(deadline=None)
def test_scores_agree_with_scikit_learn(predicted: np.ndarray, target: np.ndarray, valid: np.ndarray) -> None:
    valid[0, 0] = True
    said, true = predicted[valid], target[valid]
    alone: dict[str, float] = {"zero_division": float(not said.any() and not true.any())}
    precision, sensitivity, f1, _ = sklearn_metrics.precision_recall_fscore_support(
        true, said, average="binary", pos_label=True, labels=[False, True], **alone
    )
    assert class_scores(predicted, target, valid=valid) == pytest.approx(
        {
            "dice": f1,
            "f1": f1,
            "precision": precision,
            "sensitivity": sensitivity,
            "specificity": sklearn_metrics.recall_score(true, said, pos_label=False, zero_division=1.0),
            "iou": sklearn_metrics.jaccard_score(true, said, labels=[False, True], **alone),
            "accuracy": sklearn_metrics.accuracy_score(true, said),
        }
    )
