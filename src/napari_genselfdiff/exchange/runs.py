"""Connected parts of a label map as runs of pixels in rows.

What is held grows with the outlines of the parts and not with their areas, so that a map of a whole slide,
which lies in a file, is never copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BAND_PIXELS = 2**22
"""Pixels of the rows that are looked at together."""


@dataclass(frozen=True)
class Runs:
    """Runs of equal labels other than 0 in rows, in raster order.

    Attributes
    ----------
    first, last : ndarray of int64, shape (n,)
        Numbers of their first and last pixels, counted in raster order.
    value : ndarray, shape (n,)
        Their labels.
    part : ndarray of int64, shape (n,)
        Which 4-connected part each belongs to; parts are numbered from 0 by their first pixels.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    value: NDArray[Any]
    part: NDArray[np.int64]

    def part_at(self, pixels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Parts of pixels that lie in a run."""
        found: NDArray[np.int64] = self.part[np.searchsorted(self.first, pixels, side="right") - 1]
        return found


def bands(labels: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Rows of a map, some at a time, with the number of the first."""
    height = max(1, BAND_PIXELS // max(1, labels.shape[1]))
    for top in range(0, labels.shape[0], height):
        yield top, np.asarray(labels[top : top + height])


def runs_of(labels: NDArray[Any]) -> Runs:
    """Find the runs of a map, shape (height, width), and their parts."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    width = labels.shape[1]
    firsts, lasts, values = [], [], []
    for top, band in bands(labels):
        changes = np.ones((band.shape[0], width + 1), bool)
        changes[:, 1:-1] = band[:, 1:] != band[:, :-1]
        labelled = band != 0
        first = np.flatnonzero(changes[:, :-1] & labelled)
        firsts.append(first + top * width)
        lasts.append(np.flatnonzero(changes[:, 1:] & labelled) + top * width)
        values.append(band.ravel()[first])
    first, last = (np.concatenate([np.zeros(0, np.int64), *found]) for found in (firsts, lasts))
    value = np.concatenate([np.zeros(0, labels.dtype), *values])
    # Runs of the next row that lie below a run.
    low = np.searchsorted(last, first + width)
    count = np.maximum(np.searchsorted(first, last + width, side="right") - low, 0)
    above = np.repeat(np.arange(len(first)), count)
    below = np.arange(len(above)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
    same = value[above] == value[below]
    links = coo_matrix((np.ones(int(same.sum()), bool), (above[same], below[same])), shape=(len(first),) * 2)
    found = connected_components(links, directed=False)[1] if len(first) else np.zeros(0, np.int64)
    return Runs(first, last, value, by_first(found))


def by_first(groups: NDArray[Any]) -> NDArray[np.int64]:
    """Number groups anew, from 0, in the order in which they come."""
    _, place, group = np.unique(groups, return_index=True, return_inverse=True)
    rank = np.empty(len(place), np.int64)
    rank[np.argsort(place)] = np.arange(len(place))
    numbered: NDArray[np.int64] = rank[group]
    return numbered
