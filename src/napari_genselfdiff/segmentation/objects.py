"""One number for every object of a slide, however it was cut into cells.

A cell is labelled together with what lies around it, and an object is numbered by the place of its first
pixel on the model's grid: two cells that see the same object give it the same number, whichever comes first.
Where they do not (an object larger than what a cell sees, or a pixel that two objects share alike), the pair
of numbers is remembered, and reading resolves it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.events import CancelToken, Clock, Event, Finished, Progress
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.instances import Separation, label_instances, separation
from napari_genselfdiff.segmentation.store import CELL, STEP, PredictionStore

REACH = 128
"""Model pixels that are seen around a cell, at least; the median nucleus is about 16 wide."""
DIAMETERS = 4
"""The same, in diameters of the usual object."""
KEPT_EVERY = 64
"""Cells after which what is done is written down; a crash costs no more than these."""
SEAM = 2
"""Pixels behind a cell's border in which its objects and its neighbour's are matched."""


def number_cells(
    store: PredictionStore,
    region: Region,
    *,
    object_area: float | None = None,
    cancel: CancelToken | None = None,
) -> Iterator[Event]:
    """Number the objects of what was predicted, cell by cell, into the store.

    Parameters
    ----------
    store : PredictionStore
        Cells that are numbered already, with all that is predicted around them, are left alone.
    region : Region
        On the model's grid; all cells that meet it are numbered.
    object_area : float, optional
        Usual area of an object in model pixels, as the model's card says it.
    cancel : CancelToken, optional
        Honoured between cells; what is done is kept.

    Yields
    ------
    Event
        `Progress`, then `Finished`; its result is the number of objects that reach into those cells.
    """
    cancel = cancel or CancelToken()
    cells = [
        (row, column)
        for row in range(region.y // CELL, -(-region.bottom // CELL))
        for column in range(region.x // CELL, -(-region.right // CELL))
    ]
    how, reach = separation(object_area), _reach(object_area)
    seen: list[NDArray[np.int64]] = []
    clock = Clock()
    try:
        for done, (row, column) in enumerate(cells):
            if cancel.cancelled:
                break
            yield Progress(done, len(cells), "numbering objects", clock.left(done, len(cells)))
            if store.numbering(row, column).stale:
                _number(store, row, column, how, reach)
            seen.append(np.unique(store.objects(store.cell(row, column), resolved=False)))
            if done % KEPT_EVERY == KEPT_EVERY - 1:
                store.keep_numbering()
    finally:
        store.keep_numbering()
    numbers = np.unique(store.resolved(np.concatenate(seen))) if seen else np.zeros(0, np.int64)
    count = int((numbers > 0).sum())
    yield Finished(count, f"{count:,} objects", cancelled=len(seen) < len(cells))


def _reach(object_area: float | None) -> int:
    diameter = 2 * math.sqrt((object_area or 0) / math.pi)
    return max(REACH, min(CELL, math.ceil(DIAMETERS * diameter)))


def _number(store: PredictionStore, row: int, column: int, how: Separation, reach: int) -> None:
    """Number one cell and match it with its numbered neighbours."""
    cell = store.cell(row, column)
    view = cell.grown(reach).clipped(*store.grid)
    assert view is not None
    foreground = store.labels(view) > 1
    here = cell.within(view)
    if not foreground[here].any():
        if store.numbering(row, column).done:
            store.write_objects(row, column, np.zeros((cell.height, cell.width), np.int64))
        return
    core = store.core(view)
    # Middle of the step that the probability was rounded to; without cores every part is one object.
    ridges = (core + np.float32(STEP / 2)) / 255 if core.any() else foreground
    ids = label_instances(foreground, ridges, how)
    places = _places(ids, view, store.grid[1])
    ours = np.flatnonzero(np.bincount(ids[here].ravel(), minlength=len(places)))
    for seam, strip in _seams(store, row, column, cell):
        theirs = store.objects(strip, resolved=False)
        store.same_object(seam, _matched(places[ids[strip.within(view)]], theirs, places[ours]))
    store.write_objects(row, column, places[ids[here]])


def _places(ids: NDArray[np.int32], view: Region, width: int) -> NDArray[np.int64]:
    """Place of the first pixel of each id on the grid, plus one; 0 of the background."""
    flat = ids.ravel()
    pixels = np.flatnonzero(flat)[::-1]
    first = np.zeros(int(flat.max()) + 1, np.int64)
    first[flat[pixels]] = pixels  # of repeated indices the last one stays
    rows, columns = np.divmod(first, ids.shape[1])
    places: NDArray[np.int64] = (rows + view.y) * width + columns + view.x + 1
    places[0] = 0
    return places


def _seams(store: PredictionStore, row: int, column: int, cell: Region) -> Iterator[tuple[str, Region]]:
    """Names of the seams with neighbours that are numbered, and what lies just behind them."""
    sides = {
        (-1, 0): (f"{row} {column} above", Region(cell.y - SEAM, cell.x, SEAM, cell.width)),
        (1, 0): (f"{row + 1} {column} above", Region(cell.bottom, cell.x, SEAM, cell.width)),
        (0, -1): (f"{row} {column} left", Region(cell.y, cell.x - SEAM, cell.height, SEAM)),
        (0, 1): (f"{row} {column + 1} left", Region(cell.y, cell.right, cell.height, SEAM)),
    }
    for (down, across), (name, strip) in sides.items():
        inside = strip.clipped(*store.grid)
        if inside is not None and store.numbering(row + down, column + across).done:
            yield name, inside


def _matched(
    mine: NDArray[np.int64], theirs: NDArray[np.int64], ours: NDArray[np.int64]
) -> Iterator[tuple[int, int]]:
    """Pairs of numbers that each other's objects have most in common with, but which differ."""
    both = (mine > 0) & (theirs > 0) & np.isin(mine, ours)
    pairs, shared = np.unique(np.stack([mine[both], theirs[both]]), axis=1, return_counts=True)
    best_of_mine: dict[int, int] = {}
    best_of_theirs: dict[int, int] = {}
    for index in np.argsort(shared, kind="stable"):  # the last one stays: the most pixels
        a, b = int(pairs[0, index]), int(pairs[1, index])
        best_of_mine[a], best_of_theirs[b] = b, a
    for a, b in best_of_mine.items():
        if a != b and best_of_theirs[b] == a:
            yield a, b
