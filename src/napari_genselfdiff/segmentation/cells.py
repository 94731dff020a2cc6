"""The pixels in which objects are told apart, and how they lie in a window at any magnification."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.store import finest_layer

Mask = NDArray[np.bool_]
Pixel = TypeVar("Pixel", bound=np.generic)


@dataclass(frozen=True)
class _Side:
    """One side of the grid: of each pixel its cell, and of each cell the pixel and model pixel it shows."""

    cells: NDArray[np.intp]
    pixels: NDArray[np.intp]
    model: NDArray[np.intp]
    starts: NDArray[np.intp]


@dataclass(frozen=True)
class Cells:
    """A grid over a window: the model's pixels, or the window's own where those are larger.

    What is drawn in whole cells, the model sees exactly so when it learns from it: a line that separates two
    objects here separates them there, though a window's pixels are sampled to the model's grid.

    Attributes
    ----------
    size : float
        Width of a cell in the window's pixels.
    scale : float
        Cells a model pixel: 1, or less where the window's pixels are larger.
    """

    size: float
    scale: float
    _rows: _Side
    _columns: _Side

    @classmethod
    def over(cls, layer: int, box: Region, scale: float, shape: tuple[int, int]) -> Cells:
        """The cells of a window.

        Parameters
        ----------
        layer : int
            The window's pixels are ``2**layer`` level-0 pixels wide.
        box : Region
            The window, in its pixels.
        scale : float
            Level-0 pixels a model pixel.
        shape : tuple of int
            ``(height, width)`` of the slide in level-0 pixels.
        """
        # What was drawn is read for the model at one of the slide's layers, where each of its pixels takes
        # the value at its centre. In a finer window, cells are whole pixels of that layer.
        coarse = max(layer, finest_layer(scale, shape))
        size = max(scale, float(2**coarse))
        sides = (
            _side(*part, layer, coarse, size, scale) for part in ((box.y, box.height), (box.x, box.width))
        )
        return cls(size / 2**layer, scale / size, *sides)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells, ``(height, width)``."""
        return len(self._rows.pixels), len(self._columns.pixels)

    @property
    def model(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Row and column on the model's grid that the cells show."""
        return self._rows.model, self._columns.model

    def sampled(self, window: NDArray[Pixel]) -> NDArray[Pixel]:
        """The window's value in each cell."""
        values: NDArray[Pixel] = window[np.ix_(self._rows.pixels, self._columns.pixels)]
        return values

    def any(self, window: Mask) -> Mask:
        """Whether any of a cell's pixels is set."""
        rows = np.logical_or.reduceat(window, self._rows.starts, axis=0)
        some: Mask = np.logical_or.reduceat(rows, self._columns.starts, axis=1)
        return some

    def spread(self, cells: NDArray[Pixel]) -> NDArray[Pixel]:
        """Each cell's value in all of its pixels."""
        values: NDArray[Pixel] = cells[np.ix_(self._rows.cells, self._columns.cells)]
        return values

    def of(self, places: NDArray[np.float64]) -> NDArray[np.intp]:
        """Cells of places in the window, shape (n, 2), ``(y, x)`` with pixels centred on whole numbers.

        Beyond the window, cells go on with numbers that are negative or too large.
        """
        pixels = np.rint(places).astype(np.intp)
        found = np.empty_like(pixels)
        for axis, side in enumerate((self._rows.cells, self._columns.cells)):
            near = np.clip(pixels[:, axis], 0, len(side) - 1)
            found[:, axis] = side[near] + np.floor((pixels[:, axis] - near) / self.size)
        return found


def line_between(start: NDArray[np.intp], end: NDArray[np.intp]) -> NDArray[np.intp]:
    """Pixels from one to another, shape (n, 2); each touches the one before, at least at a corner."""
    steps = int(np.abs(end - start).max())
    return np.rint(np.linspace(start, end, steps + 1)).astype(np.intp)


def _side(start: int, length: int, layer: int, coarse: int, size: float, scale: float) -> _Side:
    shift = coarse - layer
    ratio = size / 2**coarse  # from 1 to 2
    units = np.arange(start, start + length) >> shift
    cells = np.floor((units + 0.5) / ratio).astype(np.intp)
    numbers = np.arange(cells[0], cells[-1] + 1)
    pixels = (np.floor((numbers + 0.5) * ratio).astype(np.intp) << shift) + (1 << shift) // 2 - start
    model = numbers if ratio > 1 else np.floor((numbers + 0.5) * (size / scale)).astype(np.intp)
    first = cells[0]
    return _Side(
        cells - first,
        np.clip(pixels, 0, length - 1),
        np.minimum(model, math.ceil((start + length) * 2**layer / scale) - 1),
        np.searchsorted(cells, numbers),
    )
