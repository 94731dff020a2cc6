"""The slide that every other room works on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides.icc import InSrgb, ToSrgb
from napari_genselfdiff.slides.levels import Calibration, Level
from napari_genselfdiff.slides.pyramid import complete_pyramid

if TYPE_CHECKING:
    import dask.array as da

PLAUSIBLE_MPP = (0.01, 100.0)
PLAUSIBLE_TAG_MPP = (0.05, 20.0)
"""Resolution tags are often a printer's 72 dpi (353 µm) or the 1 of software that had nothing to say."""
LARGEST_ASPECT = 1.1
"""Pixels whose sides differ more have no single resolution."""


CELL = 128
"""Side in pixels of the cells that a slide is resampled in."""


@dataclass(frozen=True, eq=False)
class Slide:
    """A lazy pyramid of an RGB image. Made by ``open_slide`` and ``slide_from_arrays``.

    Attributes
    ----------
    name : str
        The file's or layer's name.
    levels : tuple of dask arrays, uint8, shape (height, width, 3)
        Level 0, the full resolution, first.
    downsamples : tuple of float
        How many level-0 pixels a pixel of each level is wide; 1.0 first.
    mpp : float or None
        Micrometres per level-0 pixel; None when the file does not say.
    objective_power : float or None
        Magnification of the objective; None when the file does not say.
    backend : str
        What reads the pixels.
    path : Path or None
        None for images that are in memory or at an address.
    url : str or None
        The address of an image that is no file here.
    icc_profile : bytes or None
        The colour profile of the file, while it is not applied.

    Notes
    -----
    Reading is safe from any thread, and a slide can be pickled: file handles are opened again in the process
    that reads. Label, macro and thumbnail images of a file are never a part of it.
    """

    name: str
    levels: tuple[da.Array, ...]
    downsamples: tuple[float, ...]
    mpp: float | None
    objective_power: float | None
    backend: str
    path: Path | None
    _readers: tuple[Level, ...] = field(repr=False)
    url: str | None = None
    icc_profile: bytes | None = field(default=None, repr=False)

    @property
    def where(self) -> Path | str:
        """The path, the address, or the name of an image in memory: what messages call the slide."""
        return self.path or self.url or self.name

    @property
    def readers(self) -> tuple[Level, ...]:
        """What reads the levels, tile by tile."""
        return self._readers

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)`` in level-0 pixels."""
        return self._readers[0].size

    def with_mpp(self, mpp: float) -> Slide:
        """Return the same slide with another resolution.

        Parameters
        ----------
        mpp : float
            Micrometres per level-0 pixel, 0.01 to 100.

        Raises
        ------
        UserError
            If it is not in that range.
        """
        low, high = PLAUSIBLE_MPP
        if not low <= mpp <= high:
            raise UserError(
                f"{mpp:g} micrometres per pixel cannot be the resolution of a slide",
                self.where,
                f"give a number from {low:g} to {high:g}; 0.25 is typical of a 40x scan, 0.5 of 20x",
            )
        return replace(self, mpp=float(mpp))

    def with_icc(self) -> Slide:
        """Return the same slide in sRGB, by the colour profile in its file; itself where there is none.

        The colours are converted tile by tile as they are decoded.

        Raises
        ------
        UserError
            If the profile cannot be used.
        """
        if self.icc_profile is None:
            return self
        convert = ToSrgb(self.icc_profile, self.where)
        own = [i for i, level in enumerate(self._readers) if not level.derived]
        readers, factors = complete_pyramid(
            [self._readers[i].changed(lambda source: InSrgb(source, convert)) for i in own],
            [self.downsamples[i] for i in own],
        )
        levels = tuple(level.as_dask() for level in readers)
        return replace(self, levels=levels, downsamples=factors, _readers=readers, icc_profile=None)

    def best_level(self, downsample: float) -> int:
        """Index of the coarsest level whose downsample is at most ``downsample`` (1 % tolerance)."""
        fitting = [i for i, factor in enumerate(self.downsamples) if factor <= downsample * 1.01]
        return fitting[-1] if fitting else 0

    def read(self, y: int, x: int, height: int, width: int, *, level: int = 0) -> NDArray[np.uint8]:
        """Read a rectangle of one level.

        Parameters
        ----------
        y, x, height, width : int
            In pixels of that level; what lies outside the slide is white.
        level : int

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)

        Raises
        ------
        UserError
            If that part of the file is damaged.
        """
        return self._readers[level].read(y, x, height, width)

    def read_scaled(self, y: int, x: int, height: int, width: int, *, scale: float) -> NDArray[np.uint8]:
        """Read a rectangle of the slide as it looks at another pixel size.

        Parameters
        ----------
        y, x, height, width : int
            In pixels of the one grid that covers the slide with pixels ``scale`` level-0 pixels wide, and
            that starts at level-0 pixel (0, 0).
        scale : float
            Positive; below 1 enlarges.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)
            Antialiased. An exact copy where ``scale`` is the downsample of a level.

        Notes
        -----
        A pixel depends on its place on the grid and not on how the region was cut: the grid is resampled
        in whole cells. Pillow filters over the pixels around its ``box``, so a cell's source has a margin as
        wide as the filter and the box says where the cell lies in it, to a fraction of a pixel.
        """
        from PIL import Image

        if not (scale > 0 and math.isfinite(scale)):
            raise ValueError(f"scale must be positive, not {scale}")
        level = self.best_level(scale)
        ratio = scale / self.downsamples[level]
        if math.isclose(ratio, 1, rel_tol=1e-6):
            return self.read(y, x, height, width, level=level)
        if not height or not width:
            return np.empty((height, width, 3), np.uint8)
        rows, columns = _cells(y, height, ratio), _cells(x, width, ratio)
        top, left = rows[0].source.start, columns[0].source.start
        bottom, right = rows[-1].source.stop, columns[-1].source.stop
        source = self.read(top, left, bottom - top, right - left, level=level)
        grid = np.empty((CELL * len(rows), CELL * len(columns), 3), np.uint8)
        for i, row in enumerate(rows):
            strip = source[row.source.start - top : row.source.stop - top]
            for j, column in enumerate(columns):
                part = strip[:, column.source.start - left : column.source.stop - left]
                box = (column.low, row.low, column.high, row.high)
                cell = Image.fromarray(part).resize((CELL, CELL), Image.Resampling.BILINEAR, box=box)
                grid[i * CELL : (i + 1) * CELL, j * CELL : (j + 1) * CELL] = np.asarray(cell)
        return grid[y % CELL : y % CELL + height, x % CELL : x % CELL + width]


@dataclass(frozen=True)
class _Cell:
    """One side of a cell: the level's pixels that it needs, and where it lies in them."""

    source: slice
    low: float
    high: float


def _cells(start: int, length: int, ratio: float) -> list[_Cell]:
    """The cells of the grid that a row or column of pixels lies in."""
    margin = math.ceil(max(ratio, 1)) + 2
    cells = []
    for index in range(start // CELL, (start + length - 1) // CELL + 1):
        low, high = index * CELL * ratio, (index + 1) * CELL * ratio
        first = math.floor(low) - margin
        cells.append(_Cell(slice(first, math.ceil(high) + margin), low - first, high - first))
    return cells


def build_slide(
    name: str,
    levels: Sequence[Level],
    downsamples: Sequence[float],
    *,
    backend: str,
    calibration: Calibration = Calibration(),  # noqa: B008 - a named tuple is immutable
    where: Path | str | None = None,
    icc_profile: bytes | None = None,
) -> Slide:
    """Make a slide of what a reader found, with the missing levels of its pyramid added."""
    readers, factors = complete_pyramid(list(levels), list(downsamples))
    return Slide(
        name=name,
        levels=tuple(level.as_dask() for level in readers),
        downsamples=factors,
        mpp=calibration.mpp,
        objective_power=calibration.objective_power,
        backend=backend,
        path=where if isinstance(where, Path) else None,
        _readers=readers,
        url=where if isinstance(where, str) else None,
        icc_profile=icc_profile or None,
    )


def plausible_mpp(values: Sequence[float | None], *, low: float, high: float) -> float | None:
    """One resolution of those along the axes: their geometric mean, which keeps areas right.

    None where one is missing or out of range, or where pixels are far from square.
    """
    known = [value for value in values if value is not None and low <= value <= high]
    if not known or len(known) != len(values) or max(known) > LARGEST_ASPECT * min(known):
        return None
    return known[0] if max(known) == min(known) else math.prod(known) ** (1 / len(known))
