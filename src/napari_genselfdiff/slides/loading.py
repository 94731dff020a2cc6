"""Tiles are decoded in threads of their own, what is looked at first."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides.levels import Level

logger = logging.getLogger(__name__)


class Tile(NamedTuple):
    """A tile of a level's grid."""

    level: Level
    row: int
    column: int


Told = Callable[[UserError | None], None]


class TileLoader:
    """Loads what was asked for last, in that order, and forgets what nobody wants any more.

    Parameters
    ----------
    threads : int
        Decoders release the interpreter's lock, so a few of them do not slow the interface down.
    """

    def __init__(self, threads: int = 2) -> None:
        self._count = threads
        self._threads: list[threading.Thread] = []
        self._wanted: dict[Hashable, deque[Tile]] = {}
        self._told: dict[Hashable, Told] = {}
        self._busy: dict[Tile, Hashable] = {}
        self._broken: set[Tile] = set()
        self._news = threading.Condition()

    def want(self, owner: Hashable, tiles: Iterable[Tile], on_loaded: Told) -> None:
        """Replace what an owner wants.

        Parameters
        ----------
        owner : hashable
        tiles : iterable of Tile
            The first ones are loaded first; those that are being loaded, or that could not be, are left out.
        on_loaded : callable
            Called from a thread after each tile, with the error if it could not be decoded.
        """
        with self._news:
            known = self._busy.keys() | self._broken
            self._wanted[owner] = deque(tile for tile in dict.fromkeys(tiles) if tile not in known)
            self._told[owner] = on_loaded
            if not self._wanted[owner]:
                return
            while len(self._threads) < self._count:
                name = f"genselfdiff-tiles-{len(self._threads)}"
                self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
                self._threads[-1].start()
            self._news.notify_all()

    def forget(self, owner: Hashable) -> None:
        """Load nothing more for an owner."""
        with self._news:
            self._wanted.pop(owner, None)
            self._told.pop(owner, None)

    def is_idle(self, owner: Hashable) -> bool:
        """Whether all that an owner wants is loaded."""
        with self._news:
            return not self._wanted.get(owner) and owner not in self._busy.values()

    def wait(self, owner: Hashable, timeout: float | None = None) -> bool:
        """Wait until all that an owner wants is loaded; False when that took too long."""
        with self._news:
            return self._news.wait_for(
                lambda: not self._wanted.get(owner) and owner not in self._busy.values(), timeout
            )

    def _next(self) -> tuple[Hashable, Tile] | None:
        for owner in reversed(self._wanted):  # the slide that was looked at last
            while self._wanted[owner]:
                tile = self._wanted[owner].popleft()
                if tile not in self._busy:  # for another owner
                    return owner, tile
        return None

    def _work(self) -> None:
        while True:
            with self._news:
                found = self._next()
                while found is None:
                    self._news.wait()
                    found = self._next()
                owner, tile = found
                self._busy[tile] = owner
            problem = _load(tile)
            with self._news:
                del self._busy[tile]
                if problem is not None:
                    self._broken.add(tile)
                told = self._told.get(owner)
                self._news.notify_all()
            if told is not None:
                try:
                    told(problem)
                except Exception:  # the window is being closed
                    logger.debug("nobody heard of a tile", exc_info=True)


def _load(tile: Tile) -> UserError | None:
    try:
        tile.level.load(tile.row, tile.column)
    except UserError as error:
        return error
    except Exception as error:  # a decoder's: the thread must live on
        logger.exception("a tile could not be decoded")
        return UserError(f"a part of the slide could not be read ({error})", todo="details are in the log")
    return None


LOADER = TileLoader()
"""The one loader of the process."""
