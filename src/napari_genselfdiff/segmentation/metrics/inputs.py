"""What every score asks of its images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Mask = NDArray[np.bool_]


def labelled_pixels(predicted: NDArray[Any], target: NDArray[Any], valid: NDArray[Any] | None) -> Mask:
    """Where something is labelled: everywhere, unless ``valid`` says otherwise.

    Returns
    -------
    ndarray of bool, shape (height, width)

    Raises
    ------
    ValueError
        If the three are not images of one size.
    """
    labelled = np.ones(target.shape, bool) if valid is None else np.asarray(valid, bool)
    if not predicted.shape == target.shape == labelled.shape or target.ndim != 2:
        raise ValueError(
            f"prediction {predicted.shape}, target {target.shape} and valid {labelled.shape} must be images "
            "of one size"
        )
    return labelled


def labelled_masks(
    predicted: NDArray[Any], target: NDArray[Any], valid: NDArray[Any] | None
) -> tuple[Mask, Mask, Mask]:
    """Both masks, cut to what is labelled, and where that is.

    Raises
    ------
    ValueError
        As :func:`labelled_pixels`.
    """
    predicted, target = np.asarray(predicted) != 0, np.asarray(target) != 0
    valid = labelled_pixels(predicted, target, valid)
    return predicted & valid, target & valid, valid


def diagonal(shape: tuple[int, ...]) -> float:
    """Length of an image's diagonal in pixels: the distance to what is not there.

    No two pixels are as far apart, so missing all of an image is worse than any placing of it, and, unlike
    infinity, it leaves a mean over images that tells something.
    """
    return math.hypot(*shape)


def distances_to(tree: cKDTree, points: NDArray[np.intp]) -> NDArray[np.float64]:
    """Distance of each point, shape (n, 2), to the nearest one of a tree; shape (n,)."""
    distances, _ = tree.query(points)
    return np.asarray(distances, np.float64)
