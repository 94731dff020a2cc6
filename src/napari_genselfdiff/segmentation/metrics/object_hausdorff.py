"""Object-level Hausdorff distance of the GlaS contest."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from napari_genselfdiff.segmentation.metrics.inputs import diagonal, distances_to
from napari_genselfdiff.segmentation.metrics.overlap import Ids, Overlap, best_pairs, first_of_runs

# Unit vectors, (y, x): with their opposites, eight directions all around.
AXES = np.array([(0, 1), (1, 0), (0.5**0.5, 0.5**0.5), (0.5**0.5, -(0.5**0.5))])


def object_hausdorff(
    pred_ids: Ids, true_ids: Ids, *, mpp: float | None = None, valid: NDArray[Any] | None = None
) -> float:
    """Object-level Hausdorff distance of the GlaS contest (Sirinukunwattana et al., MedIA 35, 2017).

    Every object is compared with the one of the other map that shares most pixels with it, or, where none
    does, with the one at the smallest Hausdorff distance. The distances are weighted by the object's area,
    and the two directions are averaged.

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
    float
        In micrometres where ``mpp`` is given, otherwise in pixels. 0 where both are empty, the diagonal of
        the image where one is.

    Raises
    ------
    ValueError
        If the shapes differ or an id is negative.

    Notes
    -----
    ``(sum_i w_i H(S_i, G(S_i)) + sum_j v_j H(G_j, S(G_j))) / 2``, where ``w_i`` is the part that ``S_i`` has
    of the predicted area, and ``v_j`` that of ``G_j`` of the true one. H is over all pixels of the two
    objects, as the contest has it; :func:`hausdorff` is over their boundaries, which differs where one has a
    hole. The contest's program gives infinity where one map is empty, of which there is no mean over images.
    """
    distance = object_hausdorff_of(Overlap.of(pred_ids, true_ids, valid))
    return distance if mpp is None else distance * mpp


def object_hausdorff_of(overlap: Overlap) -> float:
    """:func:`object_hausdorff` of maps that are compared already, in pixels."""
    if overlap.both_empty:
        return 0.0
    if overlap.one_empty:
        return diagonal(overlap.pred_map.shape)
    preds, trues = (
        _Objects(overlap.pred_map, overlap.pred_area),
        _Objects(overlap.true_map, overlap.true_area),
    )
    # Most objects are each other's counterpart: the second direction finds the distance here.
    known: dict[tuple[int, int], float] = {}

    def distance(pred: int, true: int) -> float:
        if (pred, true) not in known:
            ways = preds.farthest_from(pred, trues, true), trues.farthest_from(true, preds, pred)
            known[pred, true] = max(ways)
        return known[pred, true]

    def mirrored(true: int, pred: int) -> float:
        return distance(pred, true)

    from_preds = _mean_distance(preds, trues, (overlap.pred, overlap.true, overlap.area), distance)
    from_trues = _mean_distance(trues, preds, (overlap.true, overlap.pred, overlap.area), mirrored)
    return (from_preds + from_trues) / 2


class _Objects:
    """Where every object of a map is.

    Parameters
    ----------
    numbers : ndarray of int, shape (height, width)
        Number of the object plus 1; 0 is background.
    areas : ndarray of int
        Pixels of each object.

    Attributes
    ----------
    boxes : list of (slice, slice)
    reach : ndarray of float, shape (objects, 8)
        How far every object reaches in eight directions.
    """

    def __init__(self, numbers: NDArray[np.intp], areas: NDArray[np.intp]) -> None:
        self.numbers, self.areas = numbers, areas
        self.boxes = ndimage.find_objects(numbers)
        padded = np.pad(numbers, 1)
        inner = np.ones(numbers.shape, bool)
        for neighbour in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
            inner &= neighbour == numbers
        edges = np.argwhere((numbers > 0) & ~inner)
        owners = numbers[edges[:, 0], edges[:, 1]] - 1
        by_row = np.argsort(owners, kind="stable")  # np.argwhere goes by row, then by column
        by_column = np.lexsort((edges[:, 0], edges[:, 1], owners))
        ends = np.concatenate(
            [_ends_of_runs(by_row, owners, edges[:, 0]), _ends_of_runs(by_column, owners, edges[:, 1])]
        )
        self._edges = np.split(edges[by_row], np.cumsum(np.bincount(owners))[:-1])
        ends = ends[np.argsort(owners[ends], kind="stable")]
        self._ends = np.split(edges[ends], np.cumsum(np.bincount(owners[ends]))[:-1])
        self._trees: dict[int, cKDTree] = {}
        along = edges[by_row] @ AXES.T
        starts = np.flatnonzero(first_of_runs(owners[by_row]))
        self.reach: NDArray[np.float64] = np.maximum.reduceat(np.hstack([along, -along]), starts)

    def farthest_from(self, index: int, other: _Objects, other_index: int) -> float:
        """Largest distance of a pixel of one object to another map's object, 0 if it lies inside of that.

        Where a pixel lies below the other object's box, every pixel farther down in its column is farther
        from all of that object; so only the ends of columns and rows count, and what lies in the box. It
        spares nearly all pixels of a prediction that runs over the whole image.
        """
        box = tuple(
            slice(max(a.start, b.start), min(a.stop, b.stop))
            for a, b in zip(self.boxes[index], other.boxes[other_index], strict=True)
        )
        points = self._ends[index]
        if all(side.start < side.stop for side in box):
            inside = np.argwhere(self.numbers[box] == index + 1) + [side.start for side in box]
            points = np.concatenate([points, inside])
        outside = points[other.numbers[points[:, 0], points[:, 1]] != other_index + 1]
        if not len(outside):
            return 0.0
        return float(distances_to(other._boundary_tree(other_index), outside).max())

    def _boundary_tree(self, index: int) -> cKDTree:
        # What is nearest to a pixel outside of an object always lies on its boundary.
        if index not in self._trees:
            self._trees[index] = cKDTree(self._edges[index])
        return self._trees[index]


def _ends_of_runs(
    order: NDArray[np.intp], owners: NDArray[np.intp], lines: NDArray[np.intp]
) -> NDArray[np.intp]:
    """The first and the last pixel of each object in each line, of pixels in an order that follows both."""
    first = first_of_runs(owners[order], lines[order])
    return order[first | np.roll(first, -1)]


def _mean_distance(
    own: _Objects,
    other: _Objects,
    pairs: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]],
    distance: Callable[[int, int], float],
) -> float:
    """Mean distance of own objects to their counterparts, weighted by area.

    ``pairs`` are the own and the other objects that share pixels, and how many.
    """
    best = best_pairs(*pairs)
    counterparts = dict(zip(pairs[0][best].tolist(), pairs[1][best].tolist(), strict=True))
    distances = [
        distance(index, counterparts[index])
        if index in counterparts
        else _smallest(partial(distance, index), np.abs(other.reach - own.reach[index]).max(axis=1))
        for index in range(len(own.areas))
    ]
    return float(np.average(distances, weights=own.areas))


def _smallest(distance_to: Callable[[int], float], at_least: NDArray[np.float64]) -> float:
    """Smallest distance to any object, of which a lower bound of each is known.

    The bound is the difference of how far two objects reach in any one direction: the farthest pixel of the
    one that reaches farther is at least that far from the other. It spares all but a few of the distances.
    """
    smallest = np.inf
    for index in np.argsort(at_least).tolist():
        if at_least[index] >= smallest:
            break
        smallest = min(smallest, distance_to(index))
    return smallest
