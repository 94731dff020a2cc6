"""One level of a slide, read in tiles of a fixed grid through the cache."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_genselfdiff.slides.cache import TILES
from napari_genselfdiff.slides.cache import Pixels as Pixels  # the readers' name for what they give

if TYPE_CHECKING:
    import dask.array as da

Source = Callable[[int, int, int, int], Pixels]
"""``(y, x, height, width) -> uint8 (height, width, 3)``, always asked for pixels inside the level."""

TILE = 256
CHUNK = 1024
WHITE = 255


class Calibration(NamedTuple):
    """What a file says about its scan; None where it says nothing."""

    mpp: float | None = None
    objective_power: float | None = None


class Level:
    """One level: an array-like of uint8 RGB, shape ``(height, width, 3)``.

    Parameters
    ----------
    source : callable
        Reads pixels inside the level; called from any thread.
    size : tuple of int
        ``(height, width)``.
    tile : tuple of int
        ``(height, width)`` of the tiles that the source is asked for.
    derived : bool
        Whether the pixels are computed from another level rather than read.
    cached : bool
        False for sources that are in memory already: they are asked for what is wanted, not for tiles.

    Notes
    -----
    The grid of tiles starts at the level's origin and is the same for every request. Formats whose decoder
    blends neighbouring pixels therefore give the same value for a pixel however a region was cut.
    """

    ndim = 3
    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        source: Source,
        size: tuple[int, int],
        *,
        tile: tuple[int, int] = (TILE, TILE),
        derived: bool = False,
        cached: bool = True,
    ) -> None:
        self.size = size
        self.tile = (min(tile[0], size[0]), min(tile[1], size[1]))
        self._source = source
        self.derived = derived
        self.cached = cached
        self._token = uuid.uuid4().hex

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(height, width, 3)``."""
        return (*self.size, 3)

    def __getitem__(self, index: Any) -> Pixels:
        rows, columns = (index[axis].indices(self.size[axis]) for axis in (0, 1))
        pixels = self.read(rows[0], columns[0], rows[1] - rows[0], columns[1] - columns[0])
        return pixels[:: rows[2], :: columns[2], index[2] if len(index) > 2 else slice(None)]

    def read(self, y: int, x: int, height: int, width: int) -> Pixels:
        """Read a rectangle in this level's pixels; what lies outside the level is white.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)
            The caller's own copy.
        """
        out = np.full((height, width, 3), WHITE, np.uint8)
        top, bottom = max(y, 0), min(y + height, self.size[0])
        left, right = max(x, 0), min(x + width, self.size[1])
        if top >= bottom or left >= right:
            return out
        if not self.cached:
            out[top - y : bottom - y, left - x : right - x] = self._source(
                top, left, bottom - top, right - left
            )
            return out
        rows, columns = self.tile
        for row in range(top // rows, -(-bottom // rows)):
            for column in range(left // columns, -(-right // columns)):
                tile_y, tile_x = row * rows, column * columns
                tile = self.load(row, column)
                y0, y1 = max(top, tile_y), min(bottom, tile_y + rows)
                x0, x1 = max(left, tile_x), min(right, tile_x + columns)
                out[y0 - y : y1 - y, x0 - x : x1 - x] = tile[
                    y0 - tile_y : y1 - tile_y, x0 - tile_x : x1 - tile_x
                ]
        return out

    def changed(self, change: Callable[[Source], Source]) -> Level:
        """Return the same level with another source made of its own, asked for tiles."""
        return Level(change(self._source), self.size, tile=self.tile)

    def as_dask(self) -> da.Array:
        """Return the level as a lazy array, in chunks of whole tiles of about 1024 pixels a side."""
        import dask.array as da

        chunks = tuple(side * max(1, round(CHUNK / side)) for side in self.tile)
        array: da.Array = da.from_array(  # type: ignore[no-untyped-call]
            self,
            chunks=(*chunks, 3),
            name=f"slide-{self._token}",
            asarray=False,
            fancy=False,
            meta=np.empty((0, 0, 0), np.uint8),
        )
        return array

    def held(self, row: int, column: int) -> Pixels | None:
        """A tile of the grid, if it is in the cache; not to be written to."""
        return TILES.get((self._token, row, column), derived=self.derived)

    def load(self, row: int, column: int) -> Pixels:
        """Decode a tile of the grid into the cache, unless it is there; not to be written to."""
        tile = self.held(row, column)
        if tile is None:
            y, x = row * self.tile[0], column * self.tile[1]
            height, width = min(self.tile[0], self.size[0] - y), min(self.tile[1], self.size[1] - x)
            tile = self._source(y, x, height, width)
            TILES.put((self._token, row, column), tile, derived=self.derived)
        return tile


def tile_side(native: int, *, wanted: int = TILE) -> int:
    """Side of the tiles to ask a file for: about ``wanted`` pixels, in whole native tiles."""
    if not wanted / 8 <= native <= 4 * wanted:  # bars of a few rows, or pieces of an image's width
        return wanted
    return native * max(1, round(wanted / native))


def whole_downsample(base: tuple[int, int], size: tuple[int, int]) -> float:
    """How many level-0 pixels a pixel of a level is wide.

    Writers halve sizes and drop the remainder, so that the ratio of the sizes is 2.0005 where the level was
    made by exactly 2. A whole number is taken where it explains both sides to within that rounding.
    """
    ratio = (base[0] / size[0] + base[1] / size[1]) / 2
    whole = round(ratio)
    if whole >= 1 and all(abs(large / whole - small) < 1 for large, small in zip(base, size, strict=True)):
        return float(whole)
    return ratio
