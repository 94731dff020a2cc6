"""Scores of one image, and their mean over images.

Scores are always computed per image, never per patch, and distances are between boundary points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Mask = NDArray[np.bool_]
Ids = NDArray[Any]


def class_scores(
    predicted: NDArray[Any], target: NDArray[Any], *, valid: NDArray[Any] | None = None
) -> dict[str, float]:
    """Overlap of two masks.

    Parameters
    ----------
    predicted, target : ndarray of bool, shape (height, width)
    valid : ndarray of bool, shape (height, width), optional
        Pixels that are labelled; the others count nowhere.

    Returns
    -------
    dict of str to float
        ``dice, iou, precision, sensitivity, specificity, accuracy``, each 0 to 1.

    Raises
    ------
    ValueError
        If the shapes differ or no pixel is labelled.

    Notes
    -----
    Where both masks are empty, the first four are 1; where one is, they are 0. Specificity is 1 where the
    target has no background.
    """
    predicted, target, valid = _checked(predicted, target, valid)
    total = int(valid.sum())
    if total == 0:
        raise ValueError("no pixel of the image is labelled, so there is nothing to score")
    hit = int((predicted & target).sum())
    said, there = int(predicted.sum()), int(target.sum())
    both_empty = said == there == 0
    background = total - there

    def ratio(part: float, whole: float) -> float:
        return float(both_empty) if whole == 0 else part / whole

    return {
        "dice": ratio(2 * hit, said + there),
        "iou": ratio(hit, said + there - hit),
        "precision": ratio(hit, said),
        "sensitivity": ratio(hit, there),
        "specificity": (background - (said - hit)) / background if background else 1.0,
        "accuracy": (total - said - there + 2 * hit) / total,
    }


def hausdorff(
    predicted: NDArray[Any],
    target: NDArray[Any],
    *,
    mpp: float | None = None,
    valid: NDArray[Any] | None = None,
) -> float:
    """Hausdorff distance of two masks' boundaries.

    A boundary pixel lies in the mask and has one of its 4 neighbours, or the image's edge, outside.

    Parameters
    ----------
    predicted, target : ndarray of bool, shape (height, width)
    mpp : float, optional
        Micrometres per pixel.
    valid : ndarray of bool, shape (height, width), optional
        Pixels that are labelled; the others belong to neither mask.

    Returns
    -------
    float
        In micrometres where ``mpp`` is given, otherwise in pixels. 0 where both masks are empty, the diagonal
        of the image where one is.
    """
    return _boundary_distance(predicted, target, percentile=100, mpp=mpp, valid=valid)


def hd95(
    predicted: NDArray[Any],
    target: NDArray[Any],
    *,
    mpp: float | None = None,
    valid: NDArray[Any] | None = None,
) -> float:
    """95th percentile of the boundary distances: of each direction by itself, then the larger one.

    Parameters and special cases are those of :func:`hausdorff`.
    """
    return _boundary_distance(predicted, target, percentile=95, mpp=mpp, valid=valid)


def segmentation_scores(
    pred_labels: NDArray[Any],
    true_labels: NDArray[Any],
    *,
    classes: int,
    ignore: int = 255,
    mpp: float | None = None,
) -> dict[str, Any]:
    """Scores of a class map.

    Parameters
    ----------
    pred_labels, true_labels : ndarray of int, shape (height, width)
        Class of every pixel; 0 is background.
    classes : int
        Number of classes, background included.
    ignore : int
        Value of ``true_labels`` where nothing is labelled.
    mpp : float, optional
        Micrometres per pixel, for ``hd95``.

    Returns
    -------
    dict
        The scores of :func:`class_scores` and ``hd95``, averaged over the foreground classes, and under
        ``classes`` the same of each class, by number.

    Raises
    ------
    ValueError
        If the shapes differ, no pixel is labelled, or there is no foreground class.

    Notes
    -----
    A class that is in neither map tells nothing about this image and is left out, unless that leaves none:
    rightly finding nothing scores 1.
    """
    if classes < 2:
        raise ValueError("there is no foreground class to score")
    pred_labels, true_labels = np.asarray(pred_labels), np.asarray(true_labels)
    _, _, valid = _checked(pred_labels, true_labels, true_labels != ignore)
    foreground = range(1, classes)
    seen = set(np.unique(pred_labels[valid])) | set(np.unique(true_labels[valid]))
    each: dict[int, dict[str, float]] = {}
    for index in [c for c in foreground if c in seen] or foreground:
        predicted, target = pred_labels == index, true_labels == index
        each[index] = class_scores(predicted, target, valid=valid)
        each[index]["hd95"] = hd95(predicted, target, mpp=mpp, valid=valid)
    return {**mean_scores(list(each.values())), "classes": each}


def mean_scores(scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean of the scores of several images; each image counts once, whatever its size.

    A score that some images lack (such as a class that is not in them) is averaged over those that have it;
    nested dicts are averaged in the same way.

    Raises
    ------
    ValueError
        If there are no scores.
    """
    if not scores:
        raise ValueError("there are no scores to average")
    mean: dict[str, Any] = {}
    for key in dict.fromkeys(key for image in scores for key in image):
        values = [image[key] for image in scores if key in image]
        mean[key] = mean_scores(values) if isinstance(values[0], dict) else float(np.mean(values))
    return mean


def aji(pred_ids: Ids, true_ids: Ids, *, valid: NDArray[Any] | None = None) -> float:
    """AJI: aggregated Jaccard index (Kumar et al., IEEE TMI 36, 2017), as MoNuSeg computes it.

    Every true object, in the order of the ids, takes the prediction of the highest IoU that is not taken yet.
    The index is the sum of the intersections over the sum of the unions, to which true objects without a
    partner and predictions that nobody took add their area.

    Parameters
    ----------
    pred_ids, true_ids : ndarray of int, shape (height, width)
        Number of the object that a pixel belongs to; 0 is background.
    valid : ndarray of bool, shape (height, width), optional
        Pixels that are labelled; the others count nowhere.

    Returns
    -------
    float
        0 to 1; 1 where both are empty.
    """
    overlap = _Overlap.of(pred_ids, true_ids, valid)
    if overlap.both_empty:
        return 1.0
    order = np.lexsort((overlap.pred, -overlap.iou, overlap.true))
    taken: set[int] = set()
    served: set[int] = set()
    intersection, union = 0, int(overlap.true_area.sum() + overlap.pred_area.sum())
    for index in order:
        pred, true = int(overlap.pred[index]), int(overlap.true[index])
        if true not in served and pred not in taken:
            served.add(true)
            taken.add(pred)
            intersection += int(overlap.area[index])
    # |A or B| = |A| + |B| - |A and B|, and whoever is alone adds its own area: one sum serves all.
    return intersection / (union - intersection)


def panoptic_quality(pred_ids: Ids, true_ids: Ids, *, valid: NDArray[Any] | None = None) -> dict[str, float]:
    """Panoptic quality (Kirillov et al. 2019): objects match where their IoU is above 0.5.

    Parameters are those of :func:`aji`.

    Returns
    -------
    dict of str to float
        ``dq``: F1 of the matches; ``sq``: mean IoU of the matches (0 where there is none); ``pq``: their
        product. All are 1 where both are empty.
    """
    overlap = _Overlap.of(pred_ids, true_ids, valid)
    if overlap.both_empty:
        return {"pq": 1.0, "dq": 1.0, "sq": 1.0}
    matched = overlap.iou[overlap.iou > 0.5]
    dq = 2 * len(matched) / (len(overlap.pred_area) + len(overlap.true_area))
    sq = float(matched.mean()) if len(matched) else 0.0
    return {"pq": dq * sq, "dq": dq, "sq": sq}


def object_dice(pred_ids: Ids, true_ids: Ids, *, valid: NDArray[Any] | None = None) -> float:
    """Object-level Dice of the GlaS contest (Sirinukunwattana et al., Medical Image Analysis 35, 2017).

    Every object is compared with the one of the other map that shares most pixels with it (Dice 0 where none
    does), weighted by its area; the two directions are averaged.

    Parameters are those of :func:`aji`.

    Returns
    -------
    float
        0 to 1; 1 where both are empty, 0 where one is.
    """
    overlap = _Overlap.of(pred_ids, true_ids, valid)
    if overlap.both_empty:
        return 1.0
    if not len(overlap.area):
        return 0.0
    dice = 2 * overlap.area / (overlap.pred_area[overlap.pred] + overlap.true_area[overlap.true])
    total = 0.0
    for own, other, area in (
        (overlap.pred, overlap.true, overlap.pred_area),
        (overlap.true, overlap.pred, overlap.true_area),
    ):
        best = overlap.best(own, other)
        total += float((area[own[best]] * dice[best]).sum() / area.sum())
    return total / 2


def object_f1(pred_ids: Ids, true_ids: Ids, *, valid: NDArray[Any] | None = None) -> float:
    """F1 of detection of the GlaS contest (Sirinukunwattana et al., Medical Image Analysis 35, 2017).

    A prediction is right where it covers more than half of the true object that it shares most pixels with.

    Parameters are those of :func:`aji`.

    Returns
    -------
    float
        0 to 1; 1 where both are empty, 0 where one is.
    """
    overlap = _Overlap.of(pred_ids, true_ids, valid)
    if overlap.both_empty:
        return 1.0
    best = overlap.best(overlap.pred, overlap.true)
    right = int((2 * overlap.area[best] > overlap.true_area[overlap.true[best]]).sum())
    return 2 * right / (len(overlap.pred_area) + len(overlap.true_area))


@dataclass(frozen=True)
class _Overlap:
    """Which objects share how many pixels; objects are numbered from 0 in the order of their ids.

    ``pred``, ``true`` and ``area`` have one entry a pair of objects that share pixels.
    """

    pred_area: NDArray[np.int64]
    true_area: NDArray[np.int64]
    pred: NDArray[np.intp]
    true: NDArray[np.intp]
    area: NDArray[np.int64]

    @classmethod
    def of(cls, pred_ids: Ids, true_ids: Ids, valid: NDArray[Any] | None) -> _Overlap:
        pred_ids, true_ids = np.asarray(pred_ids), np.asarray(true_ids)
        _, _, valid = _checked(pred_ids, true_ids, valid)
        pred, true = (ids[valid].astype(np.int64) for ids in (pred_ids, true_ids))
        if pred.size and min(pred.min(), true.min()) < 0:
            raise ValueError("ids must not be negative")
        pred, true = (ids[(pred > 0) | (true > 0)] for ids in (pred, true))
        base = int(true.max()) + 1 if true.size else 1
        keys, counts = np.unique(pred * base + true, return_counts=True)
        pred, true = np.divmod(keys, base)
        pred_names, pred = np.unique(pred, return_inverse=True)
        true_names, true = np.unique(true, return_inverse=True)
        pred_area = np.bincount(pred, counts, len(pred_names)).astype(np.int64)
        true_area = np.bincount(true, counts, len(true_names)).astype(np.int64)
        both = (pred_names[pred] > 0) & (true_names[true] > 0)
        pred_zero, true_zero = (int(0 in names[:1]) for names in (pred_names, true_names))
        return cls(
            pred_area[pred_zero:],
            true_area[true_zero:],
            pred[both] - pred_zero,
            true[both] - true_zero,
            counts[both],
        )

    @property
    def both_empty(self) -> bool:
        return not len(self.pred_area) and not len(self.true_area)

    @property
    def iou(self) -> NDArray[np.float64]:
        return self.area / (self.pred_area[self.pred] + self.true_area[self.true] - self.area)

    def best(self, own: NDArray[np.intp], other: NDArray[np.intp]) -> NDArray[np.intp]:
        """Of every object of ``own``, the pair of the largest area (of equal ones, the smallest id)."""
        order = np.lexsort((other, -self.area, own))
        first = np.ones(len(order), bool)
        first[1:] = own[order][1:] != own[order][:-1]
        return order[first]


def _boundary_distance(
    predicted: NDArray[Any],
    target: NDArray[Any],
    *,
    percentile: float,
    mpp: float | None,
    valid: NDArray[Any] | None,
) -> float:
    predicted, target, _ = _checked(predicted, target, valid)
    scale = 1.0 if mpp is None else mpp
    if not predicted.any() or not target.any():
        return 0.0 if predicted.any() == target.any() else float(np.hypot(*predicted.shape)) * scale
    points = [_boundary(mask) for mask in (predicted, target)]
    trees = [cKDTree(p) for p in points]
    ways = (trees[1].query(points[0])[0], trees[0].query(points[1])[0])
    return float(max(np.percentile(distances, percentile) for distances in ways)) * scale


def _boundary(mask: Mask) -> NDArray[np.intp]:
    """Coordinates of the boundary pixels, shape (n, 2)."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inner)


def _checked(
    predicted: NDArray[Any], target: NDArray[Any], valid: NDArray[Any] | None
) -> tuple[Mask, Mask, Mask]:
    predicted, target = np.asarray(predicted) != 0, np.asarray(target) != 0
    valid = np.ones(target.shape, bool) if valid is None else np.asarray(valid, bool)
    if not predicted.shape == target.shape == valid.shape or target.ndim != 2:
        raise ValueError(
            f"prediction {predicted.shape}, target {target.shape} and valid {valid.shape} must be images "
            "of one size"
        )
    return predicted & valid, target & valid, valid
