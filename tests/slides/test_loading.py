"""Tiles are loaded in threads: what was asked for last, first."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides.levels import Level
from napari_genselfdiff.slides.loading import Tile, TileLoader

PATIENCE = 30.0


class Gate:
    """A source whose tiles come when they are let through, in the order in which they were asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.open = threading.Semaphore(0)
        self.broken: set[tuple[int, int]] = set()

    def __call__(self, y: int, x: int, height: int, width: int) -> np.ndarray:
        self.asked.append((y // 10, x // 10))
        assert self.open.acquire(timeout=PATIENCE)
        if (y // 10, x // 10) in self.broken:
            raise UserError("a part of the slide could not be read", "a.svs", "copy it again")
        return np.zeros((height, width, 3), np.uint8)


@pytest.fixture
def gate() -> Iterator[Gate]:
    source = Gate()
    yield source
    source.open.release(1000)


@pytest.fixture
def level(gate: Gate) -> Level:
    return Level(gate, (100, 100), tile=(10, 10))


def row(level: Level, number: int) -> list[Tile]:
    return [Tile(level, number, column) for column in range(4)]


def test_what_nobody_looks_at_any_more_is_not_loaded(gate: Gate, level: Level) -> None:
    loader, told = TileLoader(threads=1), []
    loader.want("slide", [*row(level, 0), *row(level, 0)], told.append)
    gate.open.release()
    loader.want("slide", row(level, 5), told.append)
    gate.open.release(100)
    assert loader.wait("slide", PATIENCE)
    assert [place for place in gate.asked if place[0] == 5] == [(5, column) for column in range(4)]
    assert len([place for place in gate.asked if place[0] == 0]) <= 2
    assert all(level.held(5, column) is not None for column in range(4))


def test_a_tile_is_decoded_once_however_many_want_it(gate: Gate, level: Level) -> None:
    loader = TileLoader(threads=3)
    loader.want("a", row(level, 0) * 2, lambda _: None)
    loader.want("b", row(level, 0), lambda _: None)
    gate.open.release(100)
    assert loader.wait("a", PATIENCE)
    assert loader.wait("b", PATIENCE)
    assert sorted(gate.asked) == [(0, column) for column in range(4)]


def test_a_damaged_tile_is_told_and_not_tried_again(gate: Gate, level: Level) -> None:
    loader, told = TileLoader(threads=2), []
    gate.broken.add((0, 1))
    gate.open.release(100)
    for _ in range(2):
        loader.want("slide", row(level, 0), told.append)
        assert loader.wait("slide", PATIENCE)
    assert gate.asked.count((0, 1)) == 1
    assert [str(error) for error in told if error] == [
        "a part of the slide could not be read, a.svs, copy it again"
    ]
    assert level.held(0, 2) is not None


def test_a_listener_that_fails_does_not_stop_the_loading(gate: Gate, level: Level) -> None:
    def failing(_: object) -> None:
        raise RuntimeError("the window is gone")

    loader = TileLoader(threads=1)
    gate.open.release(100)
    loader.want("slide", row(level, 0), failing)
    assert loader.wait("slide", PATIENCE)
    loader.want("slide", row(level, 1), failing)
    assert loader.wait("slide", PATIENCE)
    assert level.held(1, 3) is not None


def test_forgetting_an_owner_drops_its_tiles(gate: Gate, level: Level) -> None:
    loader = TileLoader(threads=1)
    loader.want("slide", row(level, 0), lambda _: None)
    loader.forget("slide")
    gate.open.release(100)
    assert loader.wait("slide", PATIENCE)
    assert len(gate.asked) <= 1
