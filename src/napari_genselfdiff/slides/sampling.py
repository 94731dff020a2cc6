"""A first overview of a file that has none: a few of its tiles instead of all of them.

A slide of 100,000 pixels a side without a pyramid takes minutes to decode. One tile in each field of a coarse
grid says in a second where the tissue is.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from napari_genselfdiff.slides.cache import Pixels
from napari_genselfdiff.slides.levels import Level
from napari_genselfdiff.slides.slide import Slide

FIELDS = 20
"""Fields along the longer side."""
PIXELS = 8
"""Pixels of the overview a side of a field."""
COSTLY = 64_000_000
"""Pixels of the coarsest level that a file has, above which reading it whole takes too long."""


def coarsest_in_file(slide: Slide) -> Level:
    """The coarsest level that is read rather than computed."""
    return next(level for level in reversed(slide.readers) if not level.derived)


def has_no_overview(slide: Slide) -> bool:
    """Whether the overview would have to be computed from very many pixels."""
    level = coarsest_in_file(slide)
    return level.cached and level is not slide.readers[-1] and math.prod(level.size) > COSTLY


def sampled_overview(slide: Slide) -> tuple[Pixels, float]:
    """One tile from the middle of each field, shrunk.

    Returns
    -------
    rgb : ndarray of uint8, shape (height, width, 3)
    downsample : float
        Width of its pixels in level-0 pixels; the last row and column of fields may reach beyond the slide.
    """
    level = coarsest_in_file(slide)
    side = max(level.size) / FIELDS
    rows, columns = (math.ceil(length / side - 1e-9) for length in level.size)
    out = np.empty((rows * PIXELS, columns * PIXELS, 3), np.uint8)
    for row in range(rows):
        for column in range(columns):
            middle = ((row + 0.5) * side, (column + 0.5) * side)
            place = (
                min(int(at), length - 1) // tile
                for at, length, tile in zip(middle, level.size, level.tile, strict=True)
            )
            small = Image.fromarray(level.load(*place)).resize((PIXELS, PIXELS), Image.Resampling.BOX)
            there = np.s_[row * PIXELS : (row + 1) * PIXELS, column * PIXELS : (column + 1) * PIXELS]
            out[there] = np.asarray(small)
    return out, side / PIXELS * slide.shape[0] / level.size[0]
