"""Decoded tiles, kept for the view, the segmenter and the fine-tune alike."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Key = tuple[str, int, int]


class TileCache:
    """The most recently used tiles, bounded by bytes. Safe to use from threads.

    Tiles that are computed from others are dear: making an overview walks over every tile of a file, and must
    not push out the levels that come of it on the way. So tiles of the file make room first, down to a third
    of the bound.

    Parameters
    ----------
    max_bytes : int
        Decoded pixels that are kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._tiles: dict[bool, OrderedDict[Key, Pixels]] = {False: OrderedDict(), True: OrderedDict()}
        self._bytes = {False: 0, True: 0}
        self._lock = threading.Lock()

    @property
    def max_bytes(self) -> int:
        """Bytes that may be held; tiles make room at once when it is set lower."""
        return self._max_bytes

    @max_bytes.setter
    def max_bytes(self, value: int) -> None:
        with self._lock:
            self._max_bytes = value
            self._make_room()

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return sum(self._bytes.values())

    def get(self, key: Key, *, derived: bool = False) -> Pixels | None:
        """Return a tile, or None when it is not held (any more)."""
        with self._lock:
            tiles = self._tiles[derived]
            tile = tiles.get(key)
            if tile is not None:
                tiles.move_to_end(key)
            return tile

    def put(self, key: Key, tile: Pixels, *, derived: bool = False) -> None:
        """Keep a tile; the least recently used ones make room."""
        with self._lock:
            tiles = self._tiles[derived]
            if key in tiles or tile.nbytes > self._max_bytes:
                return
            tiles[key] = tile
            self._bytes[derived] += tile.nbytes
            self._make_room()

    def _make_room(self) -> None:
        while self.nbytes > self._max_bytes:
            derived = self._bytes[False] <= self._max_bytes / 3 and self._bytes[True] > 0
            _, tile = self._tiles[derived].popitem(last=False)
            self._bytes[derived] -= tile.nbytes


TILES = TileCache(384 * 2**20)
"""The one cache of the process."""
