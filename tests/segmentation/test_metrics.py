"""Scores against hand-computed values and independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from skimage.metrics import hausdorff_distance

from napari_genselfdiff.segmentation.metrics import (
    aji,
    class_scores,
    hausdorff,
    hd95,
    mean_scores,
    object_dice,
    object_f1,
    panoptic_quality,
    segmentation_scores,
)

ID_MAPS = arrays(np.int32, (9, 11), elements=st.integers(0, 5))


def square(y: int, x: int, size: int = 10, shape: tuple[int, int] = (200, 200)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[y : y + size, x : x + size] = True
    return mask


def blobs(seed: int) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((60, 80)), 3)
    return noise > 0.05


def naive_boundary(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)


def test_class_scores_by_hand() -> None:
    predicted = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool)
    target = np.array([[1, 1, 1, 0], [0, 0, 0, 0]], bool)
    scores = class_scores(predicted, target)
    expected = {"dice": 4 / 6, "iou": 2 / 4, "precision": 2 / 3, "sensitivity": 2 / 3}
    assert scores == pytest.approx({**expected, "specificity": 4 / 5, "accuracy": 6 / 8})


def test_unlabelled_pixels_count_nowhere() -> None:
    predicted = np.array([[1, 1, 0, 1], [1, 0, 0, 1]], bool)
    target = np.array([[1, 1, 1, 0], [0, 0, 0, 0]], bool)
    valid = np.array([[1, 1, 1, 0], [1, 1, 1, 0]], bool)
    assert class_scores(predicted, target, valid=valid) == class_scores(predicted[:, :3], target[:, :3])
    assert hausdorff(predicted, target, valid=valid) == hausdorff(predicted[:, :3], target[:, :3])
    ids, true = predicted * 3, target * 7
    assert aji(ids, true, valid=valid) == aji(ids[:, :3], true[:, :3])
    with pytest.raises(ValueError, match="labelled"):
        class_scores(predicted, target, valid=np.zeros_like(valid))


def test_empty_masks() -> None:
    empty, full = np.zeros((30, 40), bool), square(3, 3, shape=(30, 40))
    names = ("dice", "iou", "precision", "sensitivity")
    assert [class_scores(empty, empty)[name] for name in names] == [1.0] * 4
    assert [class_scores(full, empty)[name] for name in names] == [0.0] * 4
    assert [class_scores(empty, full)[name] for name in names] == [0.0] * 4
    assert class_scores(~empty, ~empty)["specificity"] == 1.0
    for distance in (hausdorff, hd95):
        assert distance(empty, empty) == 0.0
        assert distance(full, empty) == distance(empty, full) == 50.0
        assert distance(full, empty, mpp=0.5) == 25.0
    for score in (aji, object_dice, object_f1):
        assert score(empty, empty) == 1.0
        assert score(full, empty) == score(empty, full) == 0.0
    assert panoptic_quality(empty, empty) == {"pq": 1.0, "dq": 1.0, "sq": 1.0}
    assert panoptic_quality(full, empty) == {"pq": 0.0, "dq": 0.0, "sq": 0.0}


def test_a_moved_blob_is_as_far_as_it_moved() -> None:
    assert hausdorff(square(5, 5), square(5, 175)) == 170
    assert hausdorff(square(5, 5), square(175, 5), mpp=0.25) == 42.5
    assert hd95(square(5, 5), square(5, 5)) == 0


@pytest.mark.parametrize("seed", range(5))
def test_hausdorff_agrees_with_scikit_image(seed: int) -> None:
    a, b = blobs(seed), blobs(seed + 100)
    assert hausdorff(a, b) == pytest.approx(hausdorff_distance(naive_boundary(a), naive_boundary(b)))


@pytest.mark.parametrize("seed", range(5))
def test_hd95_agrees_with_distance_transforms(seed: int) -> None:
    a, b = naive_boundary(blobs(seed)), naive_boundary(blobs(seed + 100))
    ways = [ndimage.distance_transform_edt(~there)[here] for here, there in ((a, b), (b, a))]
    expected = max(np.percentile(distances, 95) for distances in ways)
    assert hd95(blobs(seed), blobs(seed + 100), mpp=2.0) == pytest.approx(2 * expected)


def test_segmentation_scores_average_the_classes_that_occur() -> None:
    true = np.array([[0, 1, 1, 2], [0, 1, 1, 2], [0, 0, 255, 255]])
    pred = np.array([[0, 1, 1, 0], [0, 1, 1, 2], [0, 0, 1, 2]])
    scores = segmentation_scores(pred, true, classes=4)
    assert set(scores["classes"]) == {1, 2}
    assert scores["classes"][1]["dice"] == 1.0
    assert scores["classes"][2]["dice"] == pytest.approx(2 / 3)
    assert scores["dice"] == pytest.approx((1 + 2 / 3) / 2)
    assert scores["hd95"] == pytest.approx(scores["classes"][2]["hd95"] / 2)
    nothing = np.zeros((4, 4), np.uint8)
    assert segmentation_scores(nothing, nothing, classes=3)["dice"] == 1.0


def test_mean_scores_counts_images_once() -> None:
    first = {"dice": 1.0, "classes": {1: {"dice": 1.0}}}
    second = {"dice": 0.5, "classes": {1: {"dice": 0.0}, 2: {"dice": 0.25}}}
    mean = mean_scores([first, second])
    assert mean == {"dice": 0.75, "classes": {1: {"dice": 0.5}, 2: {"dice": 0.25}}}


def test_instance_scores_by_hand() -> None:
    true, pred = np.zeros((10, 40), int), np.zeros((10, 40), int)
    true[:, 0:10], true[:, 20:30] = 5, 9
    pred[:, 0:8], pred[:, 8:10], pred[:, 35:40] = 70, 3, 4  # 80 of the first object, 20 of it, 50 of nothing
    assert aji(pred, true) == pytest.approx(80 / (100 + 100 + 20 + 50))
    assert panoptic_quality(pred, true) == pytest.approx({"dq": 2 / 5, "sq": 0.8, "pq": 0.32})
    assert object_f1(pred, true) == pytest.approx(2 * 1 / (3 + 2))
    dice = 2 * 80 / 180
    assert object_dice(pred, true) == pytest.approx((80 / 150 * dice + 20 / 150 * 40 / 120 + dice / 2) / 2)


def test_a_prediction_serves_one_true_object() -> None:
    true = np.repeat([[1, 1, 1, 2, 2, 0]], 4, axis=0)
    pred = np.where(true > 0, 1, 0)
    assert aji(pred, true) == pytest.approx(12 / (20 + 8))


def naive_aji(pred: np.ndarray, true: np.ndarray) -> float:
    used: set[int] = set()
    intersection = union = 0
    for t in np.unique(true[true > 0]):
        best, score = 0, 0.0
        for p in np.unique(pred[pred > 0]):
            iou = ((pred == p) & (true == t)).sum() / ((pred == p) | (true == t)).sum()
            if p not in used and iou > score:
                best, score = p, iou
        if best:
            used.add(best)
            intersection += ((pred == best) & (true == t)).sum()
            union += ((pred == best) | (true == t)).sum()
        else:
            union += (true == t).sum()
    union += sum((pred == p).sum() for p in np.unique(pred[pred > 0]) if p not in used)
    return intersection / union if union else 1.0


def naive_glas(pred: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    def partner(mask: np.ndarray, other: np.ndarray) -> np.ndarray:
        counts = np.bincount(other[mask], minlength=7)
        counts[0] = 0
        return other == counts.argmax() if counts.any() else np.zeros_like(mask)

    preds, trues = np.unique(pred[pred > 0]), np.unique(true[true > 0])
    if not len(preds) or not len(trues):
        return (float(len(preds) == len(trues)),) * 2
    right, dice = 0, 0.0
    for ids, names, other in ((pred, preds, true), (true, trues, pred)):
        for name in names:
            mask = ids == name
            match = partner(mask, other)
            overlap = (mask & match).sum()
            dice += mask.sum() / (ids > 0).sum() * 2 * overlap / (mask.sum() + match.sum()) / 2
            right += ids is pred and match.any() and overlap / match.sum() > 0.5
    return dice, 2 * right / (len(preds) + len(trues))


def naive_pq(pred: np.ndarray, true: np.ndarray) -> float:
    preds, trues = np.unique(pred[pred > 0]), np.unique(true[true > 0])
    ious = [
        ((pred == p) & (true == t)).sum() / ((pred == p) | (true == t)).sum() for p in preds for t in trues
    ]
    total = (len(preds) + len(trues)) / 2
    return sum(iou for iou in ious if iou > 0.5) / total if total else 1.0


@given(ID_MAPS, ID_MAPS, st.booleans())
@settings(max_examples=150, deadline=None)
def test_instance_scores_agree_with_naive_loops(pred: np.ndarray, true: np.ndarray, alike: bool) -> None:
    if alike:  # random maps hardly overlap
        pred = np.where(pred > 3, pred, true)
    assert aji(pred, true) == pytest.approx(naive_aji(pred, true))
    assert panoptic_quality(pred, true)["pq"] == pytest.approx(naive_pq(pred, true))
    dice, f1 = naive_glas(pred, true)
    assert object_dice(pred, true) == pytest.approx(dice)
    assert object_f1(pred, true) == pytest.approx(f1)


@given(ID_MAPS)
@settings(max_examples=30, deadline=None)
def test_scores_do_not_depend_on_the_numbering_of_predictions(ids: np.ndarray) -> None:
    renamed = np.array([0, 90_000_000, 4, 17, 3, 1], np.int64)[ids]
    for score in (aji, object_dice, object_f1):
        assert score(renamed, ids) == 1.0


def test_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="one size"):
        class_scores(np.zeros((2, 2)), np.zeros((2, 3)))
