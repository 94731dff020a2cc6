"""Segmentation that streams into a store: cell by cell, the nearest to where the user looks first.

A cell is a square of the slide-wide grid that is predicted at once. What is finished is not computed again,
so pausing is stopping, and resuming is starting again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.events import CancelToken, Clock, Event, Finished, Progress, TileDone
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.inference import Reader, Tiling, predict_region
from napari_genselfdiff.segmentation.network import Segmenter
from napari_genselfdiff.segmentation.store import CELL, PredictionStore

Place = tuple[float, float]


def segment_cells(
    segmenter: Segmenter,
    read: Reader,
    region: Region,
    store: PredictionStore,
    *,
    compute: Compute,
    centre: Callable[[], Place | None] = lambda: None,
    wanted: Callable[[Region], bool] = lambda _part: True,
    cancel: CancelToken | None = None,
) -> Iterator[Event]:
    """Segment a region into a store.

    Parameters
    ----------
    segmenter : Segmenter
    read : callable
        Reads RGB on the model's grid, inside the slide; called from another thread ahead of the computation.
    region : Region
        On the model's grid.
    store : PredictionStore
        Cells that it calls finished are left alone; a cell that lies in the region as a whole is finished
        when it is done.
    compute : Compute
    centre : callable, optional
        ``(y, x)`` on the model's grid of what is looked at now, asked before every cell: the nearest cell
        comes next. None for the region's middle.
    wanted : callable, optional
        Whether a part of the grid is to be predicted: glass is not.
    cancel : CancelToken, optional
        Honoured between cells; what is done is kept.

    Yields
    ------
    Event
        `Progress` and `TileDone` (relative to the region) for each cell that was computed, then `Finished`;
        its result is the number of cells that are done.

    Raises
    ------
    OutOfMemoryError
        If the device ran out of memory.
    """
    cancel = cancel or CancelToken()
    middle = region.y + region.height / 2, region.x + region.width / 2
    todo = [part for part in _parts(region, store) if wanted(part)]
    total, done, clock = len(todo), 0, Clock()
    yield Progress(0, total, "segmenting")
    fast = segmenter.to(compute.apply()).for_inference()
    ahead = _ReadAhead(read, Tiling.of(segmenter.spec.config), store.grid)
    following: Region | None = None
    try:
        while todo and not cancel.cancelled:
            place = centre() or middle
            part = following or _nearest(todo, place)  # what is being read already is taken first
            todo.remove(part)
            following = _nearest(todo, place) if todo else None
            if following is not None:
                ahead.fetch(following)
            yield from _predicted(fast, ahead, part, region, store, compute)
            _finish(part, store)
            done += 1
            yield Progress(done, total, "segmenting", clock.left(done, total))
    finally:
        ahead.close()
    message = f"{done:,} of {total:,} tiles" if todo else f"{total:,} tiles"
    yield Finished(done, message, cancelled=bool(todo))


def _predicted(
    segmenter: Segmenter,
    read: Reader,
    part: Region,
    region: Region,
    store: PredictionStore,
    compute: Compute,
) -> Iterator[Event]:
    box = part.y, part.x, part.height, part.width
    events = predict_region(segmenter, read, box, bounds=store.grid, scale=store.scale, compute=compute)
    for event in events:
        if isinstance(event, TileDone):
            store.write_tile(event, (part.y, part.x))
            place = event.origin[0] + part.y - region.y, event.origin[1] + part.x - region.x
            yield replace(event, origin=place)


def _parts(region: Region, store: PredictionStore) -> list[Region]:
    """What lies of the region in each cell that is not finished."""
    cells = [
        Region(row * CELL, column * CELL, CELL, CELL)
        for row in range(region.y // CELL, -(-region.bottom // CELL))
        for column in range(region.x // CELL, -(-region.right // CELL))
        if not store.is_finished(row, column)
    ]
    parts = (cell.intersection(region) for cell in cells)
    return [part for part in parts if part is not None]


def _finish(part: Region, store: PredictionStore) -> None:
    """Remember a cell if the part is all of it that lies on the slide."""
    row, column = part.y // CELL, part.x // CELL
    whole = Region(row * CELL, column * CELL, CELL, CELL).clipped(*store.grid)
    if part == whole:
        store.finish(row, column)


def _nearest(parts: list[Region], place: Place) -> Region:
    return min(parts, key=lambda part: math.dist(part.centre, place))


class _ReadAhead:
    """A reader whose next window is read in a thread of its own while the network computes."""

    def __init__(self, read: Reader, tiling: Tiling, grid: tuple[int, int]) -> None:
        self._read, self._tiling, self._grid = read, tiling, grid
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="genselfdiff-read-ahead")
        self._windows: dict[tuple[int, int, int, int], Future[NDArray[np.uint8]]] = {}

    def fetch(self, part: Region) -> None:
        """Begin to read what a part needs, if that is one window."""
        windows = self._tiling.windows(part.y, part.x, part.height, part.width, self._grid)
        if len(windows) == 1:
            inside = Region(windows[0].y, windows[0].x, windows[0].height, windows[0].width)
            inside = inside.clipped(*self._grid) or inside
            key = inside.y, inside.x, inside.height, inside.width
            self._windows[key] = self._pool.submit(self._read, *key)

    def __call__(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Read a window, or take the one that was read ahead."""
        ahead = self._windows.pop((y, x, height, width), None)
        return ahead.result() if ahead is not None else self._read(y, x, height, width)

    def close(self) -> None:
        """Wait for the thread."""
        self._pool.shutdown(cancel_futures=True)
