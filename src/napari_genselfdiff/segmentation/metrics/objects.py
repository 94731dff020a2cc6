"""Scores of objects: how many were found, and how well each is delineated."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.segmentation.metrics.object_hausdorff import object_hausdorff_of
from napari_genselfdiff.segmentation.metrics.overlap import Ids, Overlap, best_pairs


def instance_scores(
    pred_ids: Ids, true_ids: Ids, *, mpp: float | None = None, valid: NDArray[Any] | None = None
) -> dict[str, float]:
    """All scores of objects, for little more than the work of one.

    Parameters
    ----------
    pred_ids, true_ids : ndarray of int, shape (height, width)
        Number of the object that a pixel belongs to; 0 is background.
    mpp : float, optional
        Micrometres per pixel.
    valid : ndarray of bool, shape (height, width), optional
        Pixels that are labelled; the others count nowhere.

    Returns
    -------
    dict of str to float
        ``aji, pq, dq, sq, object_dice, object_f1``, each 0 to 1; ``object_hausdorff`` in pixels, and where
        ``mpp`` is given ``object_hausdorff_um`` in micrometres.

    Raises
    ------
    ValueError
        If the shapes differ or an id is negative.
    """
    overlap = Overlap.of(pred_ids, true_ids, valid)
    scores = {
        "aji": _aji(overlap),
        **_panoptic_quality(overlap),
        "object_dice": _object_dice(overlap),
        "object_f1": _object_f1(overlap),
        "object_hausdorff": object_hausdorff_of(overlap),
    }
    if mpp is not None:
        scores["object_hausdorff_um"] = scores["object_hausdorff"] * mpp
    return scores


def aji(pred_ids: Ids, true_ids: Ids, *, valid: NDArray[Any] | None = None) -> float:
    """AJI: aggregated Jaccard index (Kumar et al., IEEE TMI 36, 2017, algorithm 1).

    Every true object takes the prediction of the highest IoU. The index is the sum of the intersections over
    the sum of the unions, to which true objects that no prediction touches and predictions that nobody took
    add their area.

    Parameters
    ----------
    pred_ids, true_ids : ndarray of int, shape (height, width)
        Number of the object that a pixel belongs to; 0 is background.
    valid : ndarray of bool, shape (height, width), optional
        Pixels that are labelled; the others count nowhere.

    Returns
    -------
    float
        0 to 1; 1 where both are empty, 0 where one is.

    Raises
    ------
    ValueError
        If the shapes differ or an id is negative.

    Notes
    -----
    A prediction may be taken by several true objects, and then its union counts for each: so has the paper's
    algorithm, and so the script that the MoNuSeg contest distributed last (2018-07-17, "a predicted nuclei is
    allowed to match multiple gts"), and most published numbers. Its first script took a used prediction away,
    so its result depended on the order of the true objects, and it gave those without a partner the
    prediction number 1. Of predictions with the same IoU the smallest id is taken.
    """
    return _aji(Overlap.of(pred_ids, true_ids, valid))


def panoptic_quality(pred_ids: Ids, true_ids: Ids, *, valid: NDArray[Any] | None = None) -> dict[str, float]:
    """Panoptic quality (Kirillov et al., CVPR 2019): objects match where their IoU is above 0.5.

    Parameters and errors are those of :func:`aji`.

    Returns
    -------
    dict of str to float
        ``pq``, ``dq`` (F1 of detection, the paper's recognition quality) and ``sq`` (mean IoU of the
        matches), each 0 to 1; ``pq = dq * sq``. All are 1 where both maps are empty, 0 where nothing matches.

    Notes
    -----
    Above 0.5 no object can have two matches. Unlike the paper, an object that is partly not labelled keeps
    what is labelled of it, however little that is.
    """
    return _panoptic_quality(Overlap.of(pred_ids, true_ids, valid))


def object_dice(pred_ids: Ids, true_ids: Ids, *, valid: NDArray[Any] | None = None) -> float:
    """Object-level Dice of the GlaS contest (Sirinukunwattana et al., Medical Image Analysis 35, 2017).

    Every object is compared with the one of the other map that shares most pixels with it (Dice 0 where none
    does), weighted by its area; the two directions are averaged.

    Parameters and errors are those of :func:`aji`.

    Returns
    -------
    float
        0 to 1; 1 where both are empty, 0 where one is.

    Notes
    -----
    ``(sum_i w_i Dice(S_i, G(S_i)) + sum_j v_j Dice(G_j, S(G_j))) / 2``, where ``w_i`` is the part that
    ``S_i`` has of the predicted area, and ``v_j`` that of ``G_j`` of the true one. Of objects that share as
    many pixels the smallest id is taken, as in the contest's program.
    """
    return _object_dice(Overlap.of(pred_ids, true_ids, valid))


def object_f1(pred_ids: Ids, true_ids: Ids, *, valid: NDArray[Any] | None = None) -> float:
    """F1 of detection of the GlaS contest (Sirinukunwattana et al., Medical Image Analysis 35, 2017).

    A prediction is right where it covers more than half of the true object that it shares most pixels with.
    A true object without a right prediction is missed.

    Parameters and errors are those of :func:`aji`.

    Returns
    -------
    float
        0 to 1; 1 where both are empty, 0 where one is.

    Notes
    -----
    The contest's text and its Matlab program differ twice. The text has "at least 50 %", the program more
    than half; so have we, because two predictions can each have exactly half of an object, which would be
    found twice. The text calls a true object missed if less than half of it is found, the program only if it
    is no prediction's counterpart at all; we follow the text, because the program forgets such objects.
    """
    return _object_f1(Overlap.of(pred_ids, true_ids, valid))


def _aji(overlap: Overlap) -> float:
    if overlap.both_empty:
        return 1.0
    best = best_pairs(overlap.true, overlap.pred, overlap.iou)
    pred, true, shared = overlap.pred[best], overlap.true[best], overlap.area[best]
    unions = overlap.pred_area[pred] + overlap.true_area[true] - shared
    missed = overlap.true_area.sum() - overlap.true_area[true].sum()
    unused = overlap.pred_area.sum() - overlap.pred_area[np.unique(pred)].sum()
    return float(shared.sum() / (unions.sum() + missed + unused))


def _panoptic_quality(overlap: Overlap) -> dict[str, float]:
    if overlap.both_empty:
        return {"pq": 1.0, "dq": 1.0, "sq": 1.0}
    matched = overlap.iou[overlap.iou > 0.5]
    dq = 2 * len(matched) / (len(overlap.pred_area) + len(overlap.true_area))
    sq = float(matched.mean()) if len(matched) else 0.0
    return {"pq": dq * sq, "dq": dq, "sq": sq}


def _object_dice(overlap: Overlap) -> float:
    if overlap.both_empty or overlap.one_empty:
        return float(overlap.both_empty)
    dice = 2 * overlap.area / (overlap.pred_area[overlap.pred] + overlap.true_area[overlap.true])
    total = 0.0
    for own, other, area in (
        (overlap.pred, overlap.true, overlap.pred_area),
        (overlap.true, overlap.pred, overlap.true_area),
    ):
        best = best_pairs(own, other, overlap.area)
        total += float((area[own[best]] * dice[best]).sum() / area.sum())
    return total / 2


def _object_f1(overlap: Overlap) -> float:
    if overlap.both_empty:
        return 1.0
    best = best_pairs(overlap.pred, overlap.true, overlap.area)
    right = int((2 * overlap.area[best] > overlap.true_area[overlap.true[best]]).sum())
    return 2 * right / (len(overlap.pred_area) + len(overlap.true_area))
