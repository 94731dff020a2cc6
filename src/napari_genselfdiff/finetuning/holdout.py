"""What is never trained on: a fixed fifth of the regions, and of the slides where there are several.

A region is a cell of a grid that belongs to the slide, `CELL` model pixels wide. Whether it is held out
depends on the slide's name and the cell's place alone, so it is the same in every round.
Pixels of a held-out cell that lie within `GUARD` of its border are neither trained on nor scored: beyond the
border their neighbours are trained on, and those mostly belong to the same nucleus.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.finetuning.examples import HELD_OUT_SHARE, held_out_cells

CELL = 64
"""Side in model pixels of the cells that are held out or trained on as a whole."""
GUARD = 8
"""Model pixels; objects are about 16 wide."""
SEVERAL = 5
"""Corrected slides from which on whole slides are held out too."""


def held_out_slides(names: Sequence[str]) -> frozenset[str]:
    """Slides that are held out whole, of those that were corrected.

    None of fewer than five, and never all of them. As slides are chosen by their names, the choice does not
    change when more are added, but for the first time that there are five.
    """
    if len(names) < SEVERAL:
        return frozenset()
    chosen = {n for n in names if hashlib.sha256(n.encode()).digest()[0] % HELD_OUT_SHARE == 0}
    return frozenset(chosen if len(chosen) < len(names) else ())


def held_out_mask(shape: tuple[int, int], origin: tuple[int, int], name: str) -> NDArray[np.bool_]:
    """Pixels that are never trained on.

    Parameters
    ----------
    shape : tuple of int
        ``(height, width)`` in model pixels.
    origin : tuple of int
        ``(y, x)`` of the first pixel on the slide's grid.
    name : str
        Of the slide.

    Returns
    -------
    ndarray of bool, shape (height, width)
    """
    return held_out_cells(shape, cell=CELL, origin=origin, salt=name)


def inner_mask(shape: tuple[int, int], origin: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels that are `GUARD` or more away from the border of their cell."""

    def inner(start: int, length: int) -> NDArray[np.bool_]:
        place = np.arange(start, start + length) % CELL
        return (place >= GUARD) & (place < CELL - GUARD)

    return np.outer(inner(origin[0], shape[0]), inner(origin[1], shape[1]))


def cell_numbers(shape: tuple[int, int], origin: tuple[int, int]) -> NDArray[np.int64]:
    """Number of the cell that each pixel lies in: ``row << 32 | column`` on the slide's grid."""
    rows = (np.arange(shape[0]) + origin[0]) // CELL
    columns = (np.arange(shape[1]) + origin[1]) // CELL
    return (rows[:, None].astype(np.int64) << 32) | columns[None, :]
