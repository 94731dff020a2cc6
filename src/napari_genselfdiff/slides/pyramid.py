"""Levels that a file does not have, computed lazily from those that it has."""

from __future__ import annotations

import numpy as np

from napari_genselfdiff.slides.levels import Level, Pixels

OVERVIEW = 1024
"""Largest side of the last level of a pyramid that was completed."""
LARGEST_LAST = 2048
TILE = 512
LARGEST_GAP = 4.0


class Halved:
    """Source of a level at half the size: the mean of 2 x 2 pixels; an odd last row or column is dropped.

    Dropping it keeps every pixel exactly two pixels of the parent wide, so downsamples are whole.
    """

    def __init__(self, parent: Level) -> None:
        self.parent = parent

    def __call__(self, y: int, x: int, height: int, width: int) -> Pixels:
        """Average the parent's pixels."""
        pixels = self.parent.read(2 * y, 2 * x, 2 * height, 2 * width)
        rows = pixels[::2].astype(np.uint16)
        rows += pixels[1::2]
        total = rows[:, ::2] + rows[:, 1::2]
        total += 2
        total >>= 2
        return total.astype(np.uint8)


def complete_pyramid(
    levels: list[Level], downsamples: list[float]
) -> tuple[tuple[Level, ...], tuple[float, ...]]:
    """Fill gaps wider than 4 and continue a pyramid that ends too large.

    Parameters
    ----------
    levels, downsamples
        What the file has, level 0 first.

    Returns
    -------
    levels, downsamples : tuple
        The levels of the file and the computed ones between and behind them.

    Notes
    -----
    A computed tile is cached, because the first look at the overview of a file without a pyramid reads the
    whole file; later looks cost nothing.
    """
    done, factors = [levels[0]], [downsamples[0]]

    def halve() -> None:
        height, width = done[-1].size
        done.append(Level(Halved(done[-1]), (height // 2, width // 2), tile=(TILE, TILE), derived=True))
        factors.append(factors[-1] * 2)

    for level, downsample in zip(levels[1:], downsamples[1:], strict=True):
        while downsample / factors[-1] > LARGEST_GAP * 1.01:
            halve()
        done.append(level)
        factors.append(downsample)
    if len(levels) == 1 or max(done[-1].size) > LARGEST_LAST:
        while max(done[-1].size) > OVERVIEW and min(done[-1].size) > 1:
            halve()
    return tuple(done), tuple(factors)
