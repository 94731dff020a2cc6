"""Outlines of label maps along pixel edges, and back, exactly.

Coordinates are ``(x, y)``; the pixel in row ``r`` and column ``c`` is the square from ``(c, r)`` to
``(c + 1, r + 1)``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Outline:
    """A connected part of a label.

    Attributes
    ----------
    value : int
        The label.
    rings : list of list of (int, int)
        Closed rings (the first point is repeated as the last); the first is the outside, the others are
        holes. The part lies to the left of its rings in coordinates whose y axis points up.
    """

    value: int
    rings: list[list[tuple[int, int]]]


def trace_outlines(labels: NDArray[Any]) -> list[Outline]:
    """Outline every 4-connected part of every label but 0.

    Parameters
    ----------
    labels : ndarray of int, shape (height, width)

    Returns
    -------
    list of Outline
        In the raster order of the parts' first pixels. Each is a valid polygon: where two of its pixels
        touch at a corner only, the rings touch there and do not cross.
    """
    from skimage.measure import label

    labels = np.asarray(labels)
    parts = np.pad(label(labels, background=0, connectivity=1), 1)
    width = parts.shape[1]
    flat = parts.ravel()
    # An edge is a pixel and a direction in which the pixel lies to the left: its top side is walked
    # east, its right side south, its bottom side west, its left side north.
    ahead = (1, width, -1, -width)
    outside = (-width, 1, width, -1)
    inside = np.flatnonzero(flat)
    edges = [inside[flat[inside + outside[d]] != flat[inside]] for d in range(4)]
    starts = np.cumsum([0, *(len(pixels) for pixels in edges)])
    following = np.empty(starts[-1], np.int64)
    for d, pixels in enumerate(edges):
        straight, across = pixels + ahead[d], pixels + ahead[d] + outside[d]
        goes_straight = flat[straight] == flat[pixels]
        turns_out = flat[across] == flat[pixels]  # first, so that rings of one part never cross at a corner
        turn = np.where(turns_out, (d - 1) % 4, np.where(goes_straight, d, (d + 1) % 4))
        onto = np.where(turns_out, across, np.where(goes_straight, straight, pixels))
        for to in range(4):
            chosen = turn == to
            following[starts[d] : starts[d + 1]][chosen] = starts[to] + np.searchsorted(
                edges[to], onto[chosen]
            )
    direction = np.repeat(np.arange(4), np.diff(starts))
    pixel = np.concatenate(edges)
    y = (pixel // width - 1 + (direction >= 2)).tolist()
    x = (pixel % width - 1 + ((direction == 1) | (direction == 2))).tolist()
    is_corner = np.empty(len(pixel), bool)
    is_corner[following] = direction[following] != direction

    follow, corner = following.tolist(), is_corner.tolist()
    part_of = flat[edges[0]].tolist()
    value_of = np.pad(labels, 1).ravel()[edges[0]].tolist()
    visited = bytearray(len(pixel))
    outlines: dict[int, Outline] = {}
    # Every ring has a top side, and a part's first top side is on its outside.
    for first in range(len(edges[0])):
        if visited[first]:
            continue
        ring, edge = [], first
        while not visited[edge]:
            visited[edge] = 1
            if corner[edge]:
                ring.append((x[edge], y[edge]))
            edge = follow[edge]
        ring.append(ring[0])
        outlines.setdefault(part_of[first], Outline(value_of[first], [])).rings.append(ring)
    return list(outlines.values())


def fill_rings(target: NDArray[Any], rings: Iterable[NDArray[np.float64]], value: int) -> None:
    """Set the pixels whose centres lie inside an odd number of rings.

    Parameters
    ----------
    target : ndarray of int, shape (height, width)
        Changed in place.
    rings : iterable of ndarray, shape (n, 2)
        Closed rings of ``(x, y)``, in any direction.
    value : int
    """
    segments = np.concatenate([np.hstack([ring[:-1], ring[1:]]) for ring in rings])
    down = segments[:, 1] > segments[:, 3]
    segments[down] = segments[down][:, [2, 3, 0, 1]]
    x0, y0, x1, y1 = segments.T
    height, width = target.shape
    # The rows whose centres lie between a segment's ends: ends that two segments share count once.
    first, last = (np.clip(np.ceil(y - 0.5), 0, height).astype(np.int64) for y in (y0, y1))
    count = last - first
    if not count.any():
        return
    which = np.repeat(np.arange(len(count)), count)
    row = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count) + first[which]
    slope = (x1[which] - x0[which]) / (y1[which] - y0[which])
    column = np.ceil(x0[which] + (row + 0.5 - y0[which]) * slope - 0.5)
    column = np.clip(column, 0, width).astype(np.int64)
    top, left = row.min(), column.min()
    box = target[top : row.max() + 1, left : column.max()]
    crossed = np.zeros((box.shape[0], box.shape[1] + 1), np.uint8)
    np.bitwise_xor.at(crossed, (row - top, column - left), 1)
    box[np.bitwise_xor.accumulate(crossed, axis=1)[:, :-1] == 1] = value
