"""Distances between the boundaries of two masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_genselfdiff.segmentation.metrics.inputs import Mask, diagonal, distances_to, labelled_masks


def hausdorff(
    predicted: NDArray[Any],
    target: NDArray[Any],
    *,
    mpp: float | None = None,
    valid: NDArray[Any] | None = None,
) -> float:
    """Hausdorff distance of two masks' boundaries: the farthest that a point of one is from the other.

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

    Raises
    ------
    ValueError
        If the shapes differ.

    Notes
    -----
    ``max(max_p min_t |p - t|, max_t min_p |p - t|)`` over boundary points p and t (Huttenlocher et al., IEEE
    TPAMI 15, 1993).
    """
    return _largest(_ways(predicted, target, valid), 100) * (1.0 if mpp is None else mpp)


def hd95(
    predicted: NDArray[Any],
    target: NDArray[Any],
    *,
    mpp: float | None = None,
    valid: NDArray[Any] | None = None,
) -> float:
    """95th percentile of the boundary distances: of each direction by itself, then the larger one.

    Parameters, special cases and errors are those of :func:`hausdorff`. Other programs take the percentile of
    both directions together, which is smaller (Maier-Hein et al., Nature Methods 21, 2024, discuss both).
    """
    return _largest(_ways(predicted, target, valid), 95) * (1.0 if mpp is None else mpp)


def distance_scores(
    predicted: NDArray[Any],
    target: NDArray[Any],
    *,
    mpp: float | None = None,
    valid: NDArray[Any] | None = None,
) -> dict[str, float]:
    """Both distances of two masks, for the work of one.

    Parameters, special cases and errors are those of :func:`hausdorff`.

    Returns
    -------
    dict of str to float
        ``hausdorff, hd95`` in pixels, and where ``mpp`` is given ``hausdorff_um, hd95_um`` in micrometres.
    """
    ways = _ways(predicted, target, valid)
    scores = {"hausdorff": _largest(ways, 100), "hd95": _largest(ways, 95)}
    if mpp is not None:
        scores |= {f"{name}_um": value * mpp for name, value in scores.items()}
    return scores


def boundary(mask: Mask) -> NDArray[np.intp]:
    """Coordinates of the boundary pixels, shape (n, 2)."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inner)


def _ways(
    predicted: NDArray[Any], target: NDArray[Any], valid: NDArray[Any] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance in pixels of every boundary point of either mask to the other one's boundary."""
    predicted, target, _ = labelled_masks(predicted, target, valid)
    if not predicted.any() or not target.any():
        alone = predicted.any() or target.any()
        far = np.array([diagonal(predicted.shape) if alone else 0.0])
        return far, far
    points = [boundary(mask) for mask in (predicted, target)]
    trees = [cKDTree(p) for p in points]
    return distances_to(trees[1], points[0]), distances_to(trees[0], points[1])


def _largest(ways: tuple[NDArray[np.float64], NDArray[np.float64]], percentile: float) -> float:
    return float(max(np.percentile(distances, percentile) for distances in ways))
