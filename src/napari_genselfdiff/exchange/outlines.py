"""Outlines of label maps along pixel edges, and back, exactly.

Coordinates are ``(x, y)``; the pixel in row ``r`` and column ``c`` is the square from ``(c, r)`` to
``(c + 1, r + 1)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.exchange.runs import bands, by_first, runs_of

AHEAD = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""East, south, west, north, as ``(y, x)``."""
AT_ONCE = 500_000
"""Edges that are walked along together, as Python's numbers."""


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


def trace_outlines(labels: NDArray[Any], *, together: bool = False) -> Iterator[Outline]:
    """Outline every 4-connected part of every label but 0.

    Parameters
    ----------
    labels : ndarray of int, shape (height, width)
        May lie in a file: beyond bands of its rows, memory grows with the outlines alone.
    together : bool
        Whether parts of one label follow one another.

    Yields
    ------
    Outline
        In the raster order of the parts' (or labels') first pixels. Each is a valid polygon: where two of
        its pixels touch at a corner only, the rings touch there and do not cross.
    """
    labels = np.asanyarray(labels)
    width = labels.shape[1]
    runs = runs_of(labels)
    # An edge is a pixel and a direction in which the pixel lies to the left: its top side is walked
    # east, its right side south, its bottom side west, its left side north.
    top, bottom = _level_edges(labels)
    edges = (top, runs.last, bottom, runs.first)
    starts = np.cumsum([0, *(len(pixels) for pixels in edges)])
    pixel = np.concatenate(edges)
    direction = np.repeat(np.arange(4), np.diff(starts))
    part = runs.part_at(pixel)
    following = np.empty(starts[-1], np.int64)
    for d, pixels in enumerate(edges):
        mine = part[starts[d] : starts[d + 1]]
        straight = _neighbours(labels, pixels, AHEAD[d])
        goes_straight = straight >= 0
        across = _neighbours(labels, pixels, tuple(np.add(AHEAD[d], AHEAD[(d - 1) % 4])))
        # first, so that rings of one part never cross at a corner
        turns_out = across >= 0
        turns_out[turns_out] = runs.part_at(across[turns_out]) == mine[turns_out]
        turn = np.where(turns_out, (d - 1) % 4, np.where(goes_straight, d, (d + 1) % 4))
        onto = np.where(turns_out, across, np.where(goes_straight, straight, pixels))
        for to in range(4):
            chosen = turn == to
            following[starts[d] : starts[d + 1]][chosen] = starts[to] + np.searchsorted(
                edges[to], onto[chosen]
            )
    is_corner = np.empty(len(pixel), bool)
    is_corner[following] = direction[following] != direction
    group = part
    if together:
        value_of_part = np.empty(int(runs.part.max(initial=-1)) + 1, runs.value.dtype)
        value_of_part[runs.part] = runs.value
        group = by_first(value_of_part)[part]
    order = np.argsort(group, kind="stable")
    ends = np.flatnonzero(np.diff(group[order], append=-1)) + 1  # of the groups
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    begin = 0
    while begin < len(order):
        # whole groups, as many edges as Python may hold as numbers
        end = int(ends[min(int(np.searchsorted(ends, begin + AT_ONCE)), len(ends) - 1)])
        batch = order[begin:end]
        side, at = direction[batch], pixel[batch]
        y = (at // width + (side >= 2)).tolist()
        x = (at % width + ((side == 1) | (side == 2))).tolist()
        first = np.flatnonzero(side == 0)
        value = runs.value[np.searchsorted(runs.first, at[first], side="right") - 1]
        yield from _rings(
            x,
            y,
            (place[following[batch]] - begin).tolist(),
            is_corner[batch].tolist(),
            zip(first.tolist(), part[batch][first].tolist(), value.tolist(), strict=True),
        )
        begin = end


def _rings(
    x: list[int],
    y: list[int],
    follow: list[int],
    corner: list[bool],
    tops: Iterable[tuple[int, int, int]],
) -> Iterable[Outline]:
    """Walk along edges; ``tops`` are the top sides: their number, their part, and its label."""
    visited = bytearray(len(follow))
    outlines: dict[int, Outline] = {}
    # Every ring has a top side, and a part's first top side is on its outside.
    for first, part, value in tops:
        if visited[first]:
            continue
        ring, edge = [], first
        while not visited[edge]:
            visited[edge] = 1
            if corner[edge]:
                ring.append((x[edge], y[edge]))
            edge = follow[edge]
        ring.append(ring[0])
        outlines.setdefault(part, Outline(value, [])).rings.append(ring)
    return outlines.values()


def _level_edges(labels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the pixels whose upper sides are edges, and of those whose lower sides are."""
    width = labels.shape[1]
    upper, lower = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for top, band in bands(labels):
        labelled = band != 0
        above = np.concatenate([labels[top - 1 : top] if top else np.zeros_like(band[:1]), band[:-1]])
        below = np.asarray(labels[top + len(band) : top + len(band) + 1])
        below = np.concatenate([band[1:], below if len(below) else np.zeros_like(band[:1])])
        upper.append(np.flatnonzero(labelled & (band != above)) + top * width)
        lower.append(np.flatnonzero(labelled & (band != below)) + top * width)
    return np.concatenate(upper), np.concatenate(lower)


def _neighbours(labels: NDArray[Any], pixels: NDArray[np.int64], step: tuple[int, int]) -> NDArray[np.int64]:
    """Numbers of the pixels a step away that have the same label; -1 where there is none."""
    height, width = labels.shape
    y, x = pixels // width, pixels % width
    there_y, there_x = y + step[0], x + step[1]
    found = (there_y >= 0) & (there_y < height) & (there_x >= 0) & (there_x < width)
    found[found] = labels[there_y[found], there_x[found]] == labels[y[found], x[found]]
    return np.where(found, there_y * width + there_x, -1)


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
