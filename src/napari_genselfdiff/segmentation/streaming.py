"""Segmentation that streams into a store: cell by cell, the nearest to where the user looks first.

A cell is a square of the slide-wide grid that is predicted at once. What is finished is not computed again,
so pausing is stopping, and resuming is starting again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.compute import Compute, release_memory
from napari_genselfdiff.errors import OutOfMemoryError
from napari_genselfdiff.events import CancelToken, Clock, Event, Finished, Progress, TileDone
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.inference import Reader, Tiling, predict_region
from napari_genselfdiff.segmentation.network import Segmenter
from napari_genselfdiff.segmentation.pace import Pace, Way
from napari_genselfdiff.segmentation.store import CELL, PredictionStore

Place = tuple[float, float]
VIEW_CELLS = 2
"""Regions of up to so many cells a side are cut evenly rather than along cells."""
UNCUT = 2**20
"""Distance of windows, at whose multiples parts are cut, in model pixels: practically never."""


def segment_cells(
    segmenter: Segmenter,
    read: Reader,
    region: Region,
    store: PredictionStore,
    *,
    compute: Compute,
    pace: Pace | None = None,
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
    pace : Pace, optional
        Chooses among several devices, and how much is predicted at once; given again, it knows what it found
        out. One for ``compute`` alone by default.
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
        If memory does not suffice for the smallest tiles.
    """
    cancel, pace = cancel or CancelToken(), pace or Pace([compute])
    middle = region.y + region.height / 2, region.x + region.width / 2
    parts = _parts(region, store)
    todo = [part for part in parts if wanted(part)]
    everything = len(todo) == len(parts)
    total, done, clock = len(todo), 0, Clock()
    yield Progress(0, total, "segmenting")
    tiling = Tiling.of(segmenter.spec.config)
    copies: dict[str, Segmenter] = {}
    ahead = _ReadAhead(read, tiling.lead, store.grid)
    following: Region | None = None
    try:
        while todo and not cancel.cancelled:
            place = centre() or middle
            part = following or _nearest(todo, place)  # what is being read already is taken first
            todo.remove(part)
            following = _nearest(todo, place) if todo else None
            if following is not None:
                ahead.fetch(following)
            for tile in _predicted(segmenter, copies, ahead, part, store, pace, total - done):
                if isinstance(tile, str):
                    yield Progress(done, total, tile, clock.left(done, total))
                    continue
                store.write_tile(tile, (part.y, part.x))
                place = tile.origin[0] + part.y - region.y, tile.origin[1] + part.x - region.x
                yield replace(tile, origin=place)
            _finish(part, store)
            done += 1
            yield Progress(done, total, "segmenting", clock.left(done, total))
    finally:
        ahead.close()
    if not todo and everything:
        _finish(region, store)
    message = f"{done:,} of {total:,} tiles" if todo else f"{total:,} tiles"
    yield Finished(done, message, cancelled=bool(todo))


def _predicted(
    segmenter: Segmenter,
    copies: dict[str, Segmenter],
    read: Reader,
    part: Region,
    store: PredictionStore,
    pace: Pace,
    cells_left: int,
) -> Iterator[TileDone | str]:
    """Tiles of a part, relative to it; in between, what happened."""
    while True:
        way = pace.next(cells_left)
        started = time.perf_counter()
        try:
            yield from _tiles(segmenter, copies, read, part, store, way)
        except OutOfMemoryError:
            release_memory(way.compute)
            yield pace.ran_out(way)
            continue
        if (part.height, part.width) == (CELL, CELL):
            pace.took(way, time.perf_counter() - started)
        return


def _tiles(
    segmenter: Segmenter,
    copies: dict[str, Segmenter],
    read: Reader,
    part: Region,
    store: PredictionStore,
    way: Way,
) -> Iterator[TileDone]:
    device = way.compute.device
    if device not in copies:
        copies[device] = segmenter.to(way.compute.apply()).for_inference()
    events = predict_region(
        copies[device],
        read,
        (part.y, part.x, part.height, part.width),
        bounds=store.grid,
        scale=store.scale,
        compute=way.compute,
        # A part that is no cell lies across cells: it is not to be cut at their borders.
        tiling=Tiling.of(segmenter.spec.config, cell=way.side if way.side < CELL else UNCUT),
    )
    for event in events:
        if isinstance(event, TileDone):
            yield event


def _parts(region: Region, store: PredictionStore) -> list[Region]:
    """What is to be predicted at once of a region, without what is finished.

    The cells that meet it; but a region of the size of a view is cut into as few parts as can be, because
    what is seen around them costs as much as they do.
    """
    if max(region.height, region.width) > VIEW_CELLS * CELL:
        inside = (cell.intersection(region) for cell in _unfinished(region, store))
        return [part for part in inside if part is not None]
    rows, columns = _even(region.y, region.height), _even(region.x, region.width)
    parts = (Region(y, x, height, width) for y, height in rows for x, width in columns)
    return [part for part in parts if any(True for _ in _unfinished(part, store))]


def _unfinished(region: Region, store: PredictionStore) -> Iterator[Region]:
    for row in range(region.y // CELL, -(-region.bottom // CELL)):
        for column in range(region.x // CELL, -(-region.right // CELL)):
            if not store.is_finished(row, column):
                yield store.cell(row, column)


def _even(start: int, length: int) -> list[tuple[int, int]]:
    """Starts and lengths of parts of about one size, at most a cell."""
    count = math.ceil(length / CELL)
    cuts = [start + length * index // count for index in range(count + 1)]
    return [(low, high - low) for low, high in pairwise(cuts)]


def _finish(region: Region, store: PredictionStore) -> None:
    """Remember the cells that lie in what was predicted."""
    for cell in list(_unfinished(region, store)):
        if cell.intersection(region) == cell:
            store.finish(cell.y // CELL, cell.x // CELL)


def _nearest(parts: list[Region], place: Place) -> Region:
    return min(parts, key=lambda part: math.dist(part.centre, place))


class AroundReader:
    """A reader that has read a part with all that is seen around it, and reads the rest when asked.

    Parameters
    ----------
    read : callable
    part : Region
    lead : int
        How far is seen around it.
    grid : tuple of int
        Nothing is read beyond.
    """

    def __init__(self, read: Reader, part: Region, lead: int, grid: tuple[int, int]) -> None:
        self._read = read
        self._box = part.grown(lead).clipped(*grid) or part
        self._pixels = read(self._box.y, self._box.x, self._box.height, self._box.width)

    def __call__(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Read a rectangle."""
        wanted = Region(y, x, height, width)
        if wanted.intersection(self._box) != wanted:
            return self._read(y, x, height, width)
        return self._pixels[wanted.within(self._box)]


class _ReadAhead:
    """A reader whose next part is read in a thread of its own meanwhile."""

    def __init__(self, read: Reader, lead: int, grid: tuple[int, int]) -> None:
        self._read, self._lead, self._grid = read, lead, grid
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="genselfdiff-read-ahead")
        self._parts: list[tuple[Region, Future[AroundReader]]] = []

    def fetch(self, part: Region) -> None:
        """Begin to read what a part needs."""
        seen = part.grown(self._lead).clipped(*self._grid) or part
        future = self._pool.submit(AroundReader, self._read, part, self._lead, self._grid)
        self._parts = [*self._parts[-1:], (seen, future)]

    def __call__(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """Read a window, or take it from what was read ahead."""
        wanted = Region(y, x, height, width)
        for seen, future in self._parts:
            if wanted.intersection(seen) == wanted:
                return future.result()(y, x, height, width)
        return self._read(y, x, height, width)

    def close(self) -> None:
        """Wait for the thread."""
        self._pool.shutdown(cancel_futures=True)
