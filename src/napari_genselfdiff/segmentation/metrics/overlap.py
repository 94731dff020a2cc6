"""Which objects of two maps share how many pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.segmentation.metrics.inputs import Mask, labelled_pixels

Ids = NDArray[Any]


@dataclass(frozen=True)
class Overlap:
    """Objects of a prediction and of the truth, numbered from 0 in the order of their ids.

    Attributes
    ----------
    pred_map, true_map : ndarray of int, shape (height, width)
        Number of the object plus 1; 0 is background, and what is not labelled.
    pred_area, true_area : ndarray of int
        Pixels of each object.
    pred, true, area : ndarray of int
        One entry for each pair of objects that share pixels: their numbers, and how many pixels; in the order
        of ``pred``, then of ``true``.
    """

    pred_map: NDArray[np.intp]
    true_map: NDArray[np.intp]
    pred_area: NDArray[np.intp]
    true_area: NDArray[np.intp]
    pred: NDArray[np.intp]
    true: NDArray[np.intp]
    area: NDArray[np.intp]

    @classmethod
    def of(cls, pred_ids: Ids, true_ids: Ids, valid: NDArray[Any] | None = None) -> Overlap:
        """Compare two maps of ids, shape (height, width), where they are labelled.

        Raises
        ------
        ValueError
            If the shapes differ or an id is negative.
        """
        pred_ids, true_ids = np.asarray(pred_ids), np.asarray(true_ids)
        labelled = labelled_pixels(pred_ids, true_ids, valid)
        pred_map, true_map = (_renumbered(ids, labelled) for ids in (pred_ids, true_ids))
        pred_area, true_area = (np.bincount(ids.ravel(), minlength=1)[1:] for ids in (pred_map, true_map))
        both = (pred_map > 0) & (true_map > 0)
        base = max(len(true_area), 1)
        keys, area = np.unique((pred_map[both] - 1) * base + true_map[both] - 1, return_counts=True)
        pred, true = np.divmod(keys, base)
        return cls(pred_map, true_map, pred_area, true_area, pred, true, area)

    @property
    def both_empty(self) -> bool:
        """Whether neither map has an object."""
        return not len(self.pred_area) and not len(self.true_area)

    @property
    def one_empty(self) -> bool:
        """Whether just one map has an object."""
        return bool(len(self.pred_area)) != bool(len(self.true_area))

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each pair."""
        return self.area / (self.pred_area[self.pred] + self.true_area[self.true] - self.area)


def best_pairs(
    own: NDArray[np.intp], other: NDArray[np.intp], score: NDArray[np.float64] | NDArray[np.intp]
) -> NDArray[np.intp]:
    """For every object in ``own``, the pair of its highest score; of equal ones, that of the smallest id.

    Parameters
    ----------
    own, other, score : ndarray, shape (pairs,)

    Returns
    -------
    ndarray of int
        Positions in the three, in the order of ``own``.
    """
    order = np.lexsort((other, -score, own))
    return order[first_of_runs(own[order])]


def first_of_runs(*sorted_by: NDArray[np.intp]) -> Mask:
    """Whether an entry differs in any of the arrays from the one before it; shape (n,) each."""
    first = np.zeros(len(sorted_by[0]), bool)
    first[:1] = True
    for values in sorted_by:
        first[1:] |= values[1:] != values[:-1]
    return first


def _renumbered(ids: Ids, labelled: Mask) -> NDArray[np.intp]:
    """The objects that are labelled somewhere, as 1, 2, ... in the order of their ids."""
    ids = np.where(labelled, ids, 0).astype(np.int64)
    if ids.size and ids.min() < 0:
        raise ValueError("ids must not be negative")
    highest = int(ids.max(initial=0))
    if highest > 4 * ids.size + 1000:  # too many for a table
        numbers = np.zeros(ids.shape, np.intp)
        numbers[ids > 0] = np.unique(ids[ids > 0], return_inverse=True)[1] + 1
        return numbers
    there = np.zeros(highest + 1, bool)
    there[ids] = True
    there[0] = False
    return np.where(there, np.cumsum(there), 0)[ids]
