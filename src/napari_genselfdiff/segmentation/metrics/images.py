"""Scores of a class map, and the mean over images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.segmentation.metrics.boundaries import distance_scores
from napari_genselfdiff.segmentation.metrics.inputs import labelled_pixels
from napari_genselfdiff.segmentation.metrics.pixels import class_scores


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
        Micrometres per pixel.

    Returns
    -------
    dict
        The scores of :func:`class_scores` and :func:`distance_scores`, averaged over the foreground classes,
        and under ``classes`` the same of each class, by number.

    Raises
    ------
    ValueError
        If the shapes differ, no pixel is labelled, or there is no foreground class.

    Notes
    -----
    A class that is in neither map tells nothing about this image and is left out, unless that leaves none:
    rightly finding nothing scores 1, at distance 0.
    """
    if classes < 2:
        raise ValueError("there is no foreground class to score")
    pred_labels, true_labels = np.asarray(pred_labels), np.asarray(true_labels)
    valid = labelled_pixels(pred_labels, true_labels, true_labels != ignore)
    foreground = range(1, classes)
    seen = set(np.unique(pred_labels[valid])) | set(np.unique(true_labels[valid]))
    each: dict[int, dict[str, float]] = {}
    for index in [c for c in foreground if c in seen] or foreground:
        predicted, target = pred_labels == index, true_labels == index
        each[index] = class_scores(predicted, target, valid=valid)
        each[index] |= distance_scores(predicted, target, valid=valid, mpp=mpp)
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
