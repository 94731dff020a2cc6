"""Predictions on disk: an OME-Zarr label pyramid on the model's own pixel grid.

Its pixels are those that the model computes, so nothing is resampled when it is written, and the cells that
are predicted at once are whole chunks. Values are 0 where nothing was predicted, else class + 1.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.files import is_refusal
from napari_genselfdiff.geometry import Region, layer_count, layer_shape

if TYPE_CHECKING:
    from zarr.abc.store import Store

    from napari_genselfdiff.events import TileDone

CHUNK = 512
CELL = 1024
"""Side of the cells that are predicted at once, in model pixels; whole chunks of the two finest layers."""
OWN_LAYERS = (CELL // CHUNK).bit_length()
"""So many of the finest layers have no chunk in which two cells lie."""
STEP = 8
"""Probabilities are kept in steps of so many 1/255: they compress to a fraction."""


Window = tuple[slice, slice]
_LOG = logging.getLogger(__name__)
_DAMAGE = (RuntimeError, ValueError, TypeError, KeyError)
"""What zarr and its codecs raise over damaged files; not what a disk raises that cannot be read."""


class Numbering(NamedTuple):
    """Whether a cell's objects are numbered, and whether that is of a time when less was predicted around."""

    done: bool
    stale: bool


def finest_layer(scale: float, shape: tuple[int, int]) -> int:
    """The slide's layer nearest to a model's resolution, not coarser; ``scale`` is in level-0 pixels."""
    return min(max(0, math.floor(math.log2(scale * 1.05))), layer_count(shape) - 1)


class PredictionStore:
    """What one model predicted on one slide.

    Parameters
    ----------
    folder : Path or str
        An OME-Zarr (0.5) of its own, a folder or an fsspec address; made when it does not exist. ``labels``
        is the pyramid; ``confidence``, ``core`` (of models that know instances) and ``objects`` lie
        beside it; ``cells`` says which cells are finished.
    shape : tuple of int
        ``(height, width)`` of the slide at level 0.
    scale : float
        Level-0 pixels a model pixel.
    mpp : float, optional
        Micrometres per level-0 pixel, for other programs.
    shared : bool
        Whether other processes write other cells of it. Such a store writes only the layers in which cells
        are whole chunks; what is finished, and the coarser layers with `coarsen`, are left to others.

    Notes
    -----
    One thread writes, any thread reads: chunks are replaced by renaming, so a reader sees old or new ones.
    Layer k of the pyramid is every ``2**k``-th pixel of the finest one.
    """

    def __init__(
        self,
        folder: Path | str | Store,
        shape: tuple[int, int],
        scale: float,
        *,
        mpp: float | None = None,
        shared: bool = False,
    ) -> None:
        import zarr

        self.shape, self.scale, self.shared = shape, scale, shared
        self.grid = math.ceil(shape[0] / scale), math.ceil(shape[1] / scale)
        self.layers: list[Any] = []
        with zarr.config.set({"array.write_empty_chunks": False}):
            group = zarr.open_group(folder, mode="a")
            labels = group.require_group("labels")
            if "ome" not in labels.attrs:
                labels.attrs["ome"] = _metadata(layer_count(self.grid), scale, mpp)

            def plane(parent: Any, name: str, size: tuple[int, int], dtype: str = "uint8") -> Any:
                return parent.require_array(
                    name, shape=size, chunks=(CHUNK, CHUNK), dtype=dtype, fill_value=0
                )

            for layer in range(layer_count(self.grid)):
                self.layers.append(plane(labels, str(layer), layer_shape(self.grid, layer)))
            self._confidence = plane(group, "confidence", self.grid)
            self._core = plane(group, "core", self.grid)
            self._cells = plane(group, "cells", (-(-self.grid[0] // CELL), -(-self.grid[1] // CELL)))
            self._objects = plane(group, "objects", self.grid, "int64")
            self._numbered = plane(group, "numbered", self._cells.shape, "uint16")
            self._finished = np.zeros(self._cells.shape, bool) if shared else np.asarray(self._cells[:], bool)
        self._group = group
        self._numberings = np.asarray(self._numbered[:])
        same: Any = group.attrs.get("same_object", {})
        self._same: dict[str, list[list[int]]] = dict(same)
        self._least: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    @classmethod
    def reopened(
        cls, folder: Path, shape: tuple[int, int], scale: float, *, mpp: float | None = None
    ) -> PredictionStore:
        """Open a store of this machine, and begin it anew when a power cut left it unreadable.

        Where nothing can be written it is kept in memory.

        Parameters
        ----------
        folder, shape, scale, mpp
            As for the class.
        """
        try:
            return cls(folder, shape, scale, mpp=mpp)
        except _DAMAGE:
            if not folder.is_dir():
                raise
            _LOG.warning("%s was damaged and begins anew: segment again", folder)
            shutil.rmtree(folder)
            return cls(folder, shape, scale, mpp=mpp)
        except OSError as error:
            if not is_refusal(error):
                raise
            from zarr.storage import MemoryStore

            _LOG.warning("%s cannot be written (%s): predictions are kept in memory", folder, error.strerror)
            return cls(MemoryStore(), shape, scale, mpp=mpp)

    @classmethod
    def looked_at(
        cls, folder: Path, shape: tuple[int, int], scale: float, *, mpp: float | None = None
    ) -> PredictionStore:
        """Open a store that another window writes; what is predicted here is kept in memory.

        Parameters
        ----------
        folder, shape, scale, mpp
            As for the class.
        """
        from zarr.storage import MemoryStore

        from napari_genselfdiff.segmentation.looking import LookedAt

        try:
            return cls(LookedAt(folder), shape, scale, mpp=mpp)
        except _DAMAGE:  # left to the window that writes
            return cls(MemoryStore(), shape, scale, mpp=mpp)

    def read(self, layer: int, region: Region) -> NDArray[np.uint8]:
        """Values at the pixels of one of the slide's power-of-two layers.

        Parameters
        ----------
        layer : int
            Pixels are ``2**layer`` level-0 pixels wide; each takes the value at its centre.
        region : Region
            In the layer's pixels; on the slide.
        """
        width = 2**layer / self.scale
        ours = min(max(0, math.floor(math.log2(width) + 1e-9)), len(self.layers) - 1)
        array = self.layers[ours]

        def places(start: int, length: int, limit: int) -> NDArray[np.int64]:
            centres = (np.arange(start, start + length) + 0.5) * (width / 2**ours)
            found: NDArray[np.int64] = np.floor(centres + 1e-9).astype(np.int64)
            return np.minimum(found, limit - 1, out=found)

        rows = places(region.y, region.height, array.shape[0])
        columns = places(region.x, region.width, array.shape[1])
        part = self._pixels(array, np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        if part.shape == (len(rows), len(columns)):
            return part
        return part[np.ix_(rows - rows[0], columns - columns[0])]

    def confidence(self, box: Region) -> NDArray[np.uint8]:
        """Probability of the predicted class, 0 to 255 in steps of `STEP`, in model pixels."""
        return self._pixels(self._confidence, _window(box))

    def core(self, box: Region) -> NDArray[np.uint8]:
        """Probability of an object's core, 0 to 255 in steps of `STEP`, in model pixels; 0 on background."""
        return self._pixels(self._core, _window(box))

    def labels(self, box: Region) -> NDArray[np.uint8]:
        """Values in model pixels."""
        return self._pixels(self.layers[0], _window(box))

    def objects(self, box: Region, *, resolved: bool = True) -> NDArray[np.int64]:
        """Number of each pixel's object, in model pixels; 0 where there is none or none was numbered yet.

        Parameters
        ----------
        box : Region
        resolved : bool
            Whether an object has one number where its cells gave it several.
        """
        numbers: NDArray[np.int64] = self._pixels(self._objects, _window(box))
        return self.resolved(numbers) if resolved else numbers

    def resolved(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers, with the least one for those of one object."""
        if self._least is None:
            self._least = _least(pair for pairs in self._same.values() for pair in pairs)
        known, least = self._least
        if not len(known):
            return numbers
        place = np.minimum(np.searchsorted(known, numbers), len(known) - 1)
        return np.where(known[place] == numbers, least[place], numbers)

    def same_object(self, seam: str, pairs: Iterable[tuple[int, int]]) -> None:
        """Join pairs of numbers that the cells at a seam gave to one object, in place of those before."""
        before, now = self._same.get(seam, []), [list(pair) for pair in pairs]
        if before != now:
            self._same[seam] = now
            self._least = None

    def write_objects(self, row: int, column: int, numbers: NDArray[np.int64]) -> None:
        """Keep the numbers of a whole cell; that they are there is remembered with `keep_numbering`."""
        box = self.cell(row, column)
        self._put(self._objects, _window(box), numbers)
        self._numberings[row, column] = self._around(row, column)

    def keep_numbering(self) -> None:
        """Write down which cells are numbered, and which numbers are of one object."""
        # In this order: a cell that counts as numbered is not matched with its neighbours again.
        self._group.attrs["same_object"] = {name: some for name, some in self._same.items() if some}
        self._numbered[:] = self._numberings

    def numbering(self, row: int, column: int) -> Numbering:
        """Whether the objects of a cell are numbered; stale when more may be predicted since."""
        there = int(self._numberings[row, column])
        return Numbering(there > 0, there != self._around(row, column) or not self._finished[row, column])

    def cell(self, row: int, column: int) -> Region:
        """A cell's place on the model's grid."""
        cell = Region(row * CELL, column * CELL, CELL, CELL).clipped(*self.grid)
        assert cell is not None
        return cell

    def _around(self, row: int, column: int) -> int:
        """One bit for each finished cell of the nine at and around a place, and one that is always set."""
        padded = np.pad(self._finished, 1)
        return 512 + int(padded[row : row + 3, column : column + 3].ravel() @ (1 << np.arange(9)))

    def is_finished(self, row: int, column: int) -> bool:
        """Whether a whole cell was predicted."""
        return bool(self._finished[row, column])

    def finish(self, row: int, column: int) -> None:
        """Say that a whole cell is predicted."""
        self.finish_all([(row, column)])

    def finish_all(self, cells: Iterable[tuple[int, int]]) -> None:
        """Say that whole cells, ``(row, column)``, are predicted; not heard by a shared store."""
        if self.shared:
            return
        for cell in cells:
            self._finished[cell] = True
        self._cells[:] = self._finished.astype(np.uint8)

    def coarsen(self, layer: int, row: int, column: int) -> None:
        """Make one chunk of a layer from the next finer one, as `write_tile` does unless it is shared."""
        top, left = row * CHUNK, column * CHUNK
        finer = np.s_[2 * top : 2 * (top + CHUNK), 2 * left : 2 * (left + CHUNK)]
        coarse = self._pixels(self.layers[layer - 1], finer)[::2, ::2]
        self._put(self.layers[layer], np.s_[top : top + CHUNK, left : left + CHUNK], coarse)

    def write_tile(self, tile: TileDone, origin: tuple[int, int]) -> None:
        """Keep a tile, on every layer (see `shared`).

        Parameters
        ----------
        tile : TileDone
        origin : tuple of int
            ``(y, x)`` on the model's grid of the region that the tile's own origin is relative to.
        """
        y, x = origin[0] + tile.origin[0], origin[1] + tile.origin[1]
        height, width = (
            min(side, limit - start)
            for side, limit, start in zip(tile.labels.shape, self.grid, (y, x), strict=True)
        )
        if height <= 0 or width <= 0:
            return
        labels = tile.labels[:height, :width] + np.uint8(1)
        confidence = tile.confidence[:height, :width]
        labels[confidence == 0] = 0
        box = np.s_[y : y + height, x : x + width]
        self._put(self._confidence, box, _reduced(confidence))
        if tile.core is not None:
            core = np.where(labels > 1, _reduced(tile.core[:height, :width]), 0)
            self._put(self._core, box, core)
        for array in self.layers[:OWN_LAYERS] if self.shared else self.layers:
            self._put(array, np.s_[y : y + labels.shape[0], x : x + labels.shape[1]], labels)
            # The next layer's pixels are those with even coordinates.
            labels = labels[y % 2 :: 2, x % 2 :: 2]
            y, x = -(-y // 2), -(-x // 2)
            if not labels.size:
                return

    def _pixels(self, array: Any, window: Window) -> NDArray[Any]:
        try:
            return np.asarray(array[window])
        except _DAMAGE:
            self._mend(array, window)
            return np.asarray(array[window])

    def _put(self, array: Any, window: Window, values: NDArray[Any]) -> None:
        try:
            array[window] = values
        except _DAMAGE:
            self._mend(array, window)  # a chunk is read before a part of it is written
            array[window] = values

    def _mend(self, array: Any, window: Window) -> None:
        """Empty the chunks that a power cut damaged; their cells count as not predicted."""
        rows, columns = window
        empty = np.zeros((CHUNK, CHUNK), array.dtype)
        for top in range(rows.start // CHUNK * CHUNK, min(rows.stop, array.shape[0]), CHUNK):
            for left in range(columns.start // CHUNK * CHUNK, min(columns.stop, array.shape[1]), CHUNK):
                chunk = np.s_[top : top + CHUNK, left : left + CHUNK]
                try:
                    array[chunk]
                except _DAMAGE:
                    part = empty[: array.shape[0] - top, : array.shape[1] - left]
                    array[chunk] = part
                    wide = math.ceil(self.grid[0] / array.shape[0])
                    places = np.s_[
                        top * wide // CELL : (top + CHUNK) * wide // CELL + 1,
                        left * wide // CELL : (left + CHUNK) * wide // CELL + 1,
                    ]
                    self._finished[places] = False
                    self._cells[:] = self._finished.astype(np.uint8)


def _window(box: Region) -> Window:
    return slice(box.y, box.bottom), slice(box.x, box.right)


def _least(pairs: Iterable[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers that occur in pairs, in order, and the least one of those that each is joined to."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = np.array(list(pairs), np.int64).reshape(-1, 2)
    known, places = np.unique(edges, return_inverse=True)
    if not len(known):
        return known, known
    a, b = places.reshape(-1, 2).T
    _, part = connected_components(coo_array((np.ones(len(a)), (a, b)), shape=(len(known),) * 2))
    _, first = np.unique(part, return_index=True)
    return known, known[first[part]]


def _reduced(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rounded to steps, 1 and more staying above 0."""
    return np.maximum(values // STEP * STEP, np.minimum(values, 1)).astype(np.uint8)


def _metadata(layers: int, scale: float, mpp: float | None) -> dict[str, Any]:
    """What OME-NGFF 0.5 says about a label pyramid; in level-0 pixels where the resolution is not known."""
    axis = {"type": "space", **({"unit": "micrometer"} if mpp is not None else {})}
    pixel = scale * (mpp or 1.0)
    datasets = [
        {
            "path": str(layer),
            "coordinateTransformations": [{"type": "scale", "scale": [pixel * 2**layer] * 2}],
        }
        for layer in range(layers)
    ]
    axes = [{"name": name, **axis} for name in "yx"]
    return {
        "version": "0.5",
        "multiscales": [{"name": "predictions", "axes": axes, "datasets": datasets}],
        "image-label": {},
    }
