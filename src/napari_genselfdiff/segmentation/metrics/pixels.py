"""Overlap of two masks, counted in pixels."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from napari_genselfdiff.segmentation.metrics.inputs import labelled_masks


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
        ``dice, iou, precision, sensitivity, specificity, accuracy, f1``, each 0 to 1.

    Raises
    ------
    ValueError
        If the shapes differ or no pixel is labelled.

    Notes
    -----
    With the pixels that are rightly (t) or wrongly (f) called positive (p) or negative (n):

    - Dice = 2 tp / (2 tp + fp + fn) (Dice, Ecology 26, 1945), IoU = tp / (tp + fp + fn) (Jaccard 1912);
    - precision = tp / (tp + fp), sensitivity (or recall) = tp / (tp + fn), specificity = tn / (tn + fp),
      accuracy = (tp + tn) / all;
    - F1, the harmonic mean of precision and sensitivity, is Dice under another name: papers on segmentation
      report either.

    Where both masks are empty, all are 1: rightly finding nothing is no fault. Where one is, all but
    specificity and accuracy are 0. Specificity is 1 where the target has no background.
    """
    predicted, target, valid = labelled_masks(predicted, target, valid)
    total = int(valid.sum())
    if total == 0:
        raise ValueError("no pixel of the image is labelled, so there is nothing to score")
    hit = int((predicted & target).sum())
    said, there = int(predicted.sum()), int(target.sum())
    both_empty = said == there == 0
    background = total - there

    def ratio(part: float, whole: float) -> float:
        return float(both_empty) if whole == 0 else part / whole

    dice = ratio(2 * hit, said + there)
    return {
        "dice": dice,
        "iou": ratio(hit, said + there - hit),
        "precision": ratio(hit, said),
        "sensitivity": ratio(hit, there),
        "specificity": (background - (said - hit)) / background if background else 1.0,
        "accuracy": (total - said - there + 2 * hit) / total,
        "f1": dice,
    }
