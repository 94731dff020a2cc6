"""A slide that answers at once: what is not decoded yet shows the coarser level, then sharpens.

A viewer asks for a rectangle of a level in the thread that draws, and waits for it. So this array-like gives
what the cache has, fills the rest from coarser levels, and has the missing tiles loaded in the background; it
says when it has more. Whoever asks from another thread, or for a level as a whole, gets the true pixels.
"""

from __future__ import annotations

import math
import threading
import time
import uuid
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image
from psygnal import Signal

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.slides.cache import TILES, Pixels
from napari_genselfdiff.slides.levels import WHITE, Level
from napari_genselfdiff.slides.loading import LOADER, Tile
from napari_genselfdiff.slides.sampling import has_no_overview, sampled_overview
from napari_genselfdiff.slides.slide import Slide

FIRST_LOOK_SECONDS = 1.0
"""How long opening waits for the overview; one that takes longer appears when it is there."""
AHEAD = 0.5
"""How far tiles are fetched around the view, in its sides."""
AHEAD_BYTES = 0.25
"""Share of the cache that what is fetched ahead may fill."""


class ProgressiveSlide:
    """The levels of a slide as a viewer takes them.

    Parameters
    ----------
    slide : Slide

    Attributes
    ----------
    levels : list of ProgressiveLevel
        The finest first.
    loaded : Signal
        Emitted from a thread when tiles of what was looked at last have come.
    overview_loaded : Signal
        Emitted from a thread when the coarsest level has come, if it was not there at the start.
    damaged : Signal
        Emitted from a thread, with a line of text, when the first tile could not be decoded; the coarser
        level stays in its place.
    """

    loaded = Signal()
    overview_loaded = Signal()
    damaged = Signal(str)

    def __init__(self, slide: Slide) -> None:
        self.slide = slide
        self.readers = slide.readers
        self.levels = [ProgressiveLevel(self, index) for index in range(len(self.readers))]
        self._factors = [
            (fine.size[0] / coarse.size[0], fine.size[1] / coarse.size[1])
            for fine, coarse in zip(self.readers[:-1], self.readers[1:], strict=True)
        ]
        self._token = uuid.uuid4().hex
        weakref.finalize(self, LOADER.forget, self._token)
        self._on_loaded = _Emit(weakref.ref(self))
        self.is_damaged = False
        self._missing: list[Tile] = []
        self._looked_at = 0.0
        self._first_look: Pixels = np.full(self.readers[-1].shape, WHITE, np.uint8)
        self._overview: Pixels | None = None
        self._looked, self._opened = threading.Event(), False
        thread = threading.Thread(target=self._load_overview, name="genselfdiff-overview", daemon=True)
        thread.start()
        self._looked.wait(FIRST_LOOK_SECONDS)
        self._opened = True

    def overview(self) -> Pixels:
        """The coarsest level; until it is there, samples of the file or white."""
        return self._first_look if self._overview is None else self._overview

    def look(self, index: int, region: Region) -> Pixels:
        """What can be shown of a level now; the rest is loaded.

        Parameters
        ----------
        index : int
            The level.
        region : Region
            In its pixels, and inside it.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)
        """
        pixels, missing = self._compose(index, region)
        self._missing, self._looked_at = missing, time.monotonic()
        wanted = [*_nearest_first(missing, region), *self._ahead(index, region)]
        LOADER.want(self._token, wanted, self._on_loaded)
        return pixels

    def is_sharp(self) -> bool:
        """Whether all that was looked at last is loaded."""
        here = (tile.level.held(tile.row, tile.column) is not None for tile in self._missing)
        return self._overview is not None and all(here)

    def is_shown(self) -> bool:
        """Whether nothing coarser was shown when it was looked at last."""
        return not self._missing

    @property
    def seconds_still(self) -> float:
        """Time since the last look."""
        return time.monotonic() - self._looked_at

    def is_idle(self) -> bool:
        """Whether nothing is being loaded, ahead of the view either."""
        return LOADER.is_idle(self._token)

    def _load_overview(self) -> None:
        level = self.readers[-1]
        try:
            if has_no_overview(self.slide):
                rgb, downsample = sampled_overview(self.slide)
                height, width = (side / downsample for side in self.slide.shape)
                image = Image.fromarray(rgb).resize(level.size[::-1], box=(0, 0, width, height))
                self._first_look = np.asarray(image)
                self._tell()
            self._overview = level.read(0, 0, *level.size)
        except UserError as error:
            _Emit(weakref.ref(self))(error)
            return
        self._tell()

    def _tell(self) -> None:
        self._looked.set()
        if self._opened:  # else whoever opens has not looked yet
            self.overview_loaded.emit()

    def _compose(self, index: int, region: Region) -> tuple[Pixels, list[Tile]]:
        """A rectangle of what is held, coarser where it must be, and the tiles that are not held."""
        level = self.readers[index]
        box = region.y, region.x, region.height, region.width
        if not level.cached:
            return level.read(*box), []
        if index == len(self.readers) - 1:
            part = self.overview()[region.y : region.bottom, region.x : region.right]
            return part, []
        out = np.empty((region.height, region.width, 3), np.uint8)
        missing, holes = [], []
        for tile in _tiles(level, region):
            place = Region(tile.row * level.tile[0], tile.column * level.tile[1], *level.tile)
            shown = place.intersection(region)
            assert shown is not None
            held = level.held(tile.row, tile.column)
            if held is None:
                missing.append(tile)
                holes.append(shown)
            else:
                out[shown.within(region)] = held[shown.within(place)]
        if holes:
            around = _around(holes)
            coarse = self._enlarged(index, around)
            for hole in holes:
                out[hole.within(region)] = coarse[hole.within(around)]
        return out, missing

    def _enlarged(self, index: int, part: Region) -> Pixels:
        """A part of a level as the next coarser one shows it."""
        fy, fx = self._factors[index]
        low_y, low_x, high_y, high_x = part.y / fy, part.x / fx, part.bottom / fy, part.right / fx
        size = self.readers[index + 1].size
        y, x = max(0, math.floor(low_y) - 1), max(0, math.floor(low_x) - 1)
        bottom, right = min(size[0], math.ceil(high_y) + 1), min(size[1], math.ceil(high_x) + 1)
        source, _ = self._compose(index + 1, Region(y, x, bottom - y, right - x))
        box = (low_x - x, low_y - y, min(high_x, right) - x, min(high_y, bottom) - y)
        image = Image.fromarray(np.ascontiguousarray(source))
        # It is shown for a moment: interpolating takes twelve times as long, in the thread that draws.
        return np.asarray(image.resize((part.width, part.height), Image.Resampling.NEAREST, box=box))

    def _ahead(self, index: int, region: Region) -> Iterator[Tile]:
        """Tiles around the view, and of the levels that zooming shows next, as many as the cache bears."""
        level, left = self.readers[index], TILES.max_bytes * AHEAD_BYTES
        around = _grown(region, AHEAD).clipped(*level.size)
        parts = [(index, around)]
        if index + 1 < len(self.readers) - 1:
            parts.append((index + 1, _scaled(_grown(region, AHEAD), self._factors[index])))
        if index > 0:
            fy, fx = self._factors[index - 1]
            parts.append((index - 1, _scaled(_grown(region, (1 / max(fy, fx) - 1) / 2), (1 / fy, 1 / fx))))
        for place, part in parts:
            level = self.readers[place]
            inside = part.clipped(*level.size) if part is not None else None
            if inside is None or not level.cached or place == len(self.readers) - 1:
                continue
            for tile in _nearest_first(_tiles(level, inside), inside):
                left -= level.tile[0] * level.tile[1] * 3
                if left < 0:
                    return
                if level.held(tile.row, tile.column) is None:
                    yield tile


class _Emit:
    """Tells a slide, if it is still there, that a tile has come or cannot come."""

    def __init__(self, slide: weakref.ref[ProgressiveSlide]) -> None:
        self._slide = slide

    def __call__(self, problem: UserError | None) -> None:
        slide = self._slide()
        if slide is None:
            return
        if problem is None:
            slide.loaded.emit()
        elif not slide.is_damaged:
            slide.is_damaged = True
            slide.damaged.emit(str(problem))


class ProgressiveLevel:
    """An array-like of one level, uint8 RGB, shape ``(height, width, 3)``."""

    ndim = 3
    dtype = np.dtype(np.uint8)

    def __init__(self, slide: ProgressiveSlide, index: int) -> None:
        self._slide, self._index = slide, index

    @property
    def slide(self) -> ProgressiveSlide:
        """What it is a level of."""
        return self._slide

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(height, width, 3)``."""
        return self._slide.readers[self._index].shape

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        key = key if isinstance(key, tuple) else (key,)
        at_once = threading.current_thread() is threading.main_thread()
        plain = all(isinstance(part, slice) and part.step in (None, 1) for part in key[:2])
        if Ellipsis in key or not (at_once and plain):
            return self._slide.slide.levels[self._index][key].compute()
        sides = [*key[:2], *[slice(None)] * (2 - len(key[:2]))]
        (top, bottom, _), (left, right, _) = (
            side.indices(length) for side, length in zip(sides, self.shape, strict=False)
        )
        if bottom <= top or right <= left:
            return np.empty((max(0, bottom - top), max(0, right - left), 3), np.uint8)
        pixels = self._slide.look(self._index, Region(top, left, bottom - top, right - left))
        return pixels[(slice(None), slice(None), *key[2:])]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        if self._index == len(self._slide.levels) - 1:
            pixels: Any = self._slide.overview()
        else:
            pixels = self._slide.readers[self._index].read(0, 0, *self.shape[:2])
        return np.array(pixels, dtype, copy=copy)


def _tiles(level: Level, region: Region) -> Iterator[Tile]:
    rows, columns = level.tile
    for row in range(region.y // rows, -(-region.bottom // rows)):
        for column in range(region.x // columns, -(-region.right // columns)):
            yield Tile(level, row, column)


def _nearest_first(tiles: Any, region: Region) -> list[Tile]:
    """In the order of their distance to the middle of a region of their level."""

    def distance(tile: Tile) -> float:
        height, width = tile.level.tile
        return math.dist(((tile.row + 0.5) * height, (tile.column + 0.5) * width), region.centre)

    return sorted(tiles, key=distance)


def _around(parts: list[Region]) -> Region:
    y, x = min(part.y for part in parts), min(part.x for part in parts)
    return Region(y, x, max(part.bottom for part in parts) - y, max(part.right for part in parts) - x)


def _grown(region: Region, share: float) -> Region:
    """Larger, or smaller, by a share of its sides on each side."""
    dy, dx = round(region.height * share), round(region.width * share)
    return Region(region.y - dy, region.x - dx, max(1, region.height + 2 * dy), max(1, region.width + 2 * dx))


def _scaled(region: Region, factors: tuple[float, float]) -> Region:
    """In the pixels of a level that is coarser by these factors."""
    y, x = math.floor(region.y / factors[0]), math.floor(region.x / factors[1])
    return Region(
        y,
        x,
        max(1, math.ceil(region.bottom / factors[0]) - y),
        max(1, math.ceil(region.right / factors[1]) - x),
    )
