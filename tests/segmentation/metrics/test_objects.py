"""Scores of objects against hand-computed values, torchmetrics, and literal published definitions."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.spatial.distance import directed_hausdorff
from torchmetrics.detection import PanopticQuality

from napari_genselfdiff.segmentation.metrics import (
    aji,
    instance_scores,
    object_dice,
    object_f1,
    object_hausdorff,
    panoptic_quality,
)

SHAPE = (14, 18)
RECTANGLES = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 16), st.integers(1, 6), st.integers(1, 6)), max_size=5
)


def painted(rectangles: list[tuple[int, int, int, int]]) -> np.ndarray:
    """Objects far apart, side by side, over each other, or none."""
    ids = np.zeros(SHAPE, np.int32)
    for number, (y, x, height, width) in enumerate(rectangles, start=3):
        ids[y : y + height, x : x + width] = number
    return ids


def scattered(elements: int) -> st.SearchStrategy[np.ndarray]:
    """Objects of many pieces, with holes, between each other."""
    return arrays(np.int32, SHAPE, elements=st.integers(0, elements), fill=st.just(0))


MAPS = st.one_of(RECTANGLES.map(painted), scattered(2), scattered(5))
PAIRS = st.one_of(
    st.tuples(MAPS, MAPS),
    # Independent maps hardly ever match; these do in part.
    st.tuples(MAPS, MAPS, arrays(bool, SHAPE)).map(lambda m: (np.where(m[2], m[0], m[1]), m[1])),
)


def masks_of(ids: np.ndarray) -> list[np.ndarray]:
    return [ids == number for number in np.unique(ids) if number > 0]


def aji_by_the_paper(pred: np.ndarray, true: np.ndarray) -> float:
    """Kumar et al. 2017, algorithm 1."""
    predictions = masks_of(pred)
    used = [False] * len(predictions)
    intersections = unions = 0
    for truth in masks_of(true):
        iou = [(truth & other).sum() / (truth | other).sum() for other in predictions]
        if max(iou, default=0) == 0:
            unions += truth.sum()
            continue
        best = iou.index(max(iou))
        intersections += (truth & predictions[best]).sum()
        unions += (truth | predictions[best]).sum()
        used[best] = True
    for prediction, taken in zip(predictions, used, strict=True):
        if not taken:
            unions += prediction.sum()
    return intersections / unions if unions else 1.0


def distance_of_points(a: np.ndarray, b: np.ndarray) -> float:
    points = np.argwhere(a), np.argwhere(b)
    return max(directed_hausdorff(*points)[0], directed_hausdorff(*points[::-1])[0])


def labelled_blobs(seed: int) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((60, 80)), 3)
    return ndimage.label(noise > 0.08)[0]


def glas_by_the_paper(pred: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Sirinukunwattana et al. 2017, sections on detection, segmentation and shape."""
    predictions, truths = masks_of(pred), masks_of(true)
    if not predictions or not truths:
        alike = float(len(predictions) == len(truths))
        far = (1 - alike) * float(np.hypot(*true.shape))
        return {"object_dice": alike, "object_f1": alike, "object_hausdorff": far}
    dice, distance = [0.0, 0.0], [0.0, 0.0]
    for way, (objects, others) in enumerate(((predictions, truths), (truths, predictions))):
        area = sum(mask.sum() for mask in objects)
        for mask in objects:
            shared = [int((mask & other).sum()) for other in others]
            overlapping = others[shared.index(max(shared))]
            weight = mask.sum() / area
            dice[way] += weight * 2 * max(shared) / (mask.sum() + overlapping.sum())
            if max(shared) > 0:
                distance[way] += weight * distance_of_points(mask, overlapping)
            else:
                distance[way] += weight * min(distance_of_points(mask, other) for other in others)
    found = set()
    for mask in predictions:
        shared = [int((mask & truth).sum()) for truth in truths]
        index = shared.index(max(shared))
        if max(shared) / truths[index].sum() > 0.5:
            found.add(index)
    right = len(found)
    wrong, missed = len(predictions) - right, len(truths) - right
    return {
        "object_dice": sum(dice) / 2,
        "object_f1": 2 * right / (2 * right + wrong + missed),
        "object_hausdorff": sum(distance) / 2,
    }


def test_by_hand() -> None:
    true, pred = np.zeros((10, 40), int), np.zeros((10, 40), int)
    true[:, 0:10], true[:, 20:30] = 5, 9
    pred[:, 0:8], pred[:, 8:10], pred[:, 35:40] = 70, 3, 4  # 80 of the first object, 20 of it, 50 of nothing
    assert aji(pred, true) == pytest.approx(80 / (100 + 100 + 20 + 50))
    assert panoptic_quality(pred, true) == pytest.approx({"dq": 2 / 5, "sq": 0.8, "pq": 0.32})
    assert object_f1(pred, true) == pytest.approx(2 * 1 / (3 + 2))
    dice = 2 * 80 / 180
    assert object_dice(pred, true) == pytest.approx((80 / 150 * dice + 20 / 150 * 40 / 120 + dice / 2) / 2)
    # The first prediction ends 2 columns before its object; the second begins 8 behind its start; the third
    # touches nothing, and the nearest object begins 15 columns before it. The second object touches nothing:
    # the third prediction is 15 away, the second one 20.
    distance = (80 * 2 + 20 * 8 + 50 * 15) / 150 / 2 + (100 * 2 + 100 * 15) / 200 / 2
    assert object_hausdorff(pred, true) == pytest.approx(distance)
    assert object_hausdorff(pred, true, mpp=0.5) == pytest.approx(distance / 2)


def test_a_prediction_may_serve_several_objects_and_its_union_counts_for_each() -> None:
    true = np.repeat([[1, 1, 1, 2, 2, 0]], 4, axis=0)
    pred = np.where(true > 0, 1, 0)
    assert aji(pred, true) == pytest.approx((12 + 8) / (20 + 20))
    assert aji(pred, true[:, ::-1]) == aji(pred[:, ::-1], true)


def test_half_of_an_object_does_not_find_it() -> None:
    true = np.ones((2, 10), int)
    pred = np.repeat([[1] * 5 + [2] * 5], 2, axis=0)
    assert object_f1(pred, true) == 0
    pred[0, 5] = 1
    assert object_f1(pred, true) == pytest.approx(2 / 3)


def test_an_object_that_is_found_in_small_part_is_missed() -> None:
    """The contest's program would forget the second object, and say 1 rather than 2/3."""
    true = np.array([[1] * 5 + [2] * 5])
    pred = np.array([[1] * 5 + [2] * 2 + [0] * 3])
    assert object_f1(pred, true) == pytest.approx(2 * 1 / (2 + 2))


def test_distance_is_over_all_pixels_of_an_object() -> None:
    """The middle of a disc is a radius away from a ring, though their boundaries may be close."""
    y, x = np.mgrid[:41, :41]
    radius = np.hypot(y - 20, x - 20)
    disc, ring = (radius <= 16).astype(int), ((radius <= 16) & (radius > 14)).astype(int)
    assert object_hausdorff(disc, ring) == pytest.approx(directed_hausdorff([(20, 20)], np.argwhere(ring))[0])


def test_empty_maps() -> None:
    empty, full = np.zeros((30, 40), int), np.zeros((30, 40), int)
    full[3:13, 3:13] = 2
    best = dict.fromkeys(("aji", "pq", "dq", "sq", "object_dice", "object_f1"), 1.0)
    worst = dict.fromkeys(best, 0.0)
    assert instance_scores(empty, empty, mpp=0.5) == best | dict.fromkeys(
        ("object_hausdorff", "object_hausdorff_um"), 0.0
    )
    for pair in ((full, empty), (empty, full)):
        assert instance_scores(*pair, mpp=0.5) == worst | {
            "object_hausdorff": 50.0,
            "object_hausdorff_um": 25.0,
        }


@given(PAIRS, st.booleans())
@settings(max_examples=150, deadline=None)
def test_scores_agree_with_the_published_definitions(
    pair: tuple[np.ndarray, np.ndarray], masked: bool
) -> None:
    pred, true = pair
    valid = np.ones(SHAPE, bool)
    valid[:, :4] = not masked
    pred_seen, true_seen = np.where(valid, pred, 0), np.where(valid, true, 0)
    expected = {"aji": aji_by_the_paper(pred_seen, true_seen), **glas_by_the_paper(pred_seen, true_seen)}
    scores = instance_scores(pred, true, valid=valid)
    assert {name: scores[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(6))
def test_scores_of_blobs_agree_with_the_published_definitions(seed: int) -> None:
    true = labelled_blobs(seed)
    for pred in (labelled_blobs(seed + 100), np.where(labelled_blobs(seed + 100) > 0, 0, true)):
        expected = {"aji": aji_by_the_paper(pred, true), **glas_by_the_paper(pred, true)}
        scores = instance_scores(pred, true)
        assert {name: scores[name] for name in expected} == pytest.approx(expected)


@given(PAIRS)
@example((np.zeros(SHAPE, int), painted([(0, 0, 3, 3)])))
@settings(max_examples=100, deadline=None)
def test_panoptic_quality_agrees_with_torchmetrics(pair: tuple[np.ndarray, np.ndarray]) -> None:
    pred, true = pair
    reference = PanopticQuality(things={1}, stuffs={0}, return_sq_and_rq=True, return_per_class=True)
    as_categories = [torch.from_numpy(np.stack([ids > 0, ids], axis=-1)[None].astype(int)) for ids in pair]
    reference.update(*as_categories)
    pq, sq, dq = reference.compute()[0].tolist()
    if not pred.any() and not true.any():
        pq = sq = dq = 1.0
    assert panoptic_quality(pred, true) == pytest.approx({"pq": pq, "dq": dq, "sq": sq})


@given(PAIRS)
@settings(max_examples=30, deadline=None)
def test_all_scores_are_those_of_each_function(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert instance_scores(*pair, mpp=0.25) == {
        "aji": aji(*pair),
        **panoptic_quality(*pair),
        "object_dice": object_dice(*pair),
        "object_f1": object_f1(*pair),
        "object_hausdorff": object_hausdorff(*pair),
        "object_hausdorff_um": object_hausdorff(*pair, mpp=0.25),
    }


@given(scattered(5))
@settings(max_examples=30, deadline=None)
def test_a_perfect_prediction_may_be_numbered_in_any_way(ids: np.ndarray) -> None:
    renamed = np.array([0, 5_000_000_000, 4, 17, 3, 1], np.int64)[ids]
    for pair in ((renamed, ids), (ids, renamed)):
        scores = instance_scores(*pair)
        assert scores.pop("object_hausdorff") == 0
        assert set(scores.values()) == {1.0}


def test_impossible_maps_are_refused() -> None:
    ids = np.zeros((2, 3), int)
    for score in (aji, panoptic_quality, object_dice, object_f1, object_hausdorff, instance_scores):
        with pytest.raises(ValueError, match="one size"):
            score(ids, ids.T)
        with pytest.raises(ValueError, match="negative"):
            score(ids - 1, ids)


def grid_of_nuclei(size: int, step: int, shift: tuple[int, int] = (0, 0)) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    y, x = y + shift[0], x + shift[1]
    inside = (y % step - step / 2) ** 2 + (x % step - step / 2) ** 2 < (step / 3) ** 2
    return np.where(inside, y // step * (size // step + 2) + x // step + 1, 0)


@pytest.mark.parametrize("case", ["near", "apart", "merged"])
def test_a_thousand_nuclei_are_scored_quickly(case: str) -> None:
    """0.2 to 0.9 s on a slow core. Going through all pairs of objects or all pixels takes minutes."""
    true = grid_of_nuclei(1000, 31)
    assert len(np.unique(true)) > 1000
    pred = {
        "near": grid_of_nuclei(1000, 31, (2, 3)),
        "apart": np.where(true > 0, 0, grid_of_nuclei(1000, 31, (15, 16))),
        "merged": np.ones_like(true),
    }[case]
    start = time.process_time()
    scores = instance_scores(pred, true)
    assert time.process_time() - start < 10
    expected = {"near": np.hypot(2, 3), "apart": np.hypot(15, 15), "merged": 1000}[case]
    assert scores["object_hausdorff"] == pytest.approx(expected, rel=0.35)
