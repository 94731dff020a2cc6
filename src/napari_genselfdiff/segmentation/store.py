"""Predictions on disk: a sparse label pyramid on the slide's power-of-two layers.

Layer k has pixels of ``2**k`` level-0 pixels. Values are 0 where nothing was predicted, else class + 1.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.geometry import Region, layer_count, layer_shape

if TYPE_CHECKING:
    from napari_genselfdiff.events import TileDone

CHUNK = 512


def finest_layer(scale: float, shape: tuple[int, int]) -> int:
    """The layer that holds a model's predictions without loss, for ``scale`` level-0 pixels a model pixel."""
    return min(max(0, math.floor(math.log2(scale * 1.05))), layer_count(shape) - 1)


class PredictionStore:
    """Predicted classes of one model on one slide.

    Parameters
    ----------
    folder : Path
        A folder of its own; made when it does not exist.
    shape : tuple of int
        ``(height, width)`` of the slide at level 0.
    scale : float
        Level-0 pixels a model pixel.

    Notes
    -----
    One thread writes, any thread reads: chunks are replaced by renaming, so a reader sees old or new ones.
    """

    def __init__(self, folder: Path, shape: tuple[int, int], scale: float) -> None:
        import zarr

        self.shape, self.scale = shape, scale
        self.finest = finest_layer(scale, shape)
        self.layers: dict[int, Any] = {}
        with zarr.config.set({"array.write_empty_chunks": False}):
            group = zarr.open_group(folder, mode="a")
            for layer in range(self.finest, layer_count(shape)):
                self.layers[layer] = group.require_array(
                    str(layer),
                    shape=layer_shape(shape, layer),
                    chunks=(CHUNK, CHUNK),
                    dtype="uint8",
                    fill_value=0,
                )

    def read(self, layer: int, region: Region) -> NDArray[np.uint8]:
        """Values of a part of a layer.

        Layers finer than the model's are read from the finest one there is.

        Parameters
        ----------
        layer : int
        region : Region
            In the layer's pixels; on the slide.
        """
        if layer >= self.finest:
            part = self.layers[layer][region.y : region.bottom, region.x : region.right]
            return np.asarray(part, np.uint8)
        rows = np.arange(region.y, region.bottom) >> (self.finest - layer)
        columns = np.arange(region.x, region.right) >> (self.finest - layer)
        part = self.layers[self.finest][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return cast("NDArray[np.uint8]", part[np.ix_(rows - rows[0], columns - columns[0])])

    def write_tile(self, tile: TileDone, origin: tuple[int, int]) -> None:
        """Keep a tile, on every layer.

        Parameters
        ----------
        tile : TileDone
        origin : tuple of int
            ``(y, x)`` on the model's grid of the region that the tile's own origin is relative to.
        """
        labels = tile.labels + np.uint8(1)
        labels[tile.confidence == 0] = 0
        y, x = origin[0] + tile.origin[0], origin[1] + tile.origin[1]
        ratio = 2**self.finest / self.scale
        limits = layer_shape(self.shape, self.finest)
        # The layer's pixels whose centres lie in the tile.
        extent = self.shape[0] / self.scale, self.shape[1] / self.scale
        rows, source_rows = _centres_inside(y, labels.shape[0], ratio, limits[0], extent[0])
        columns, source_columns = _centres_inside(x, labels.shape[1], ratio, limits[1], extent[1])
        if not len(rows) or not len(columns):
            return
        part = labels[np.ix_(source_rows, source_columns)]
        top, left = int(rows[0]), int(columns[0])
        self.layers[self.finest][top : top + part.shape[0], left : left + part.shape[1]] = part
        bottom, right = top + part.shape[0], left + part.shape[1]
        for layer in range(self.finest + 1, max(self.layers) + 1):
            # Every second pixel of the finer layer.
            top, left = -(-top // 2), -(-left // 2)
            bottom, right = -(-bottom // 2), -(-right // 2)
            if bottom <= top or right <= left:
                return
            finer = self.layers[layer - 1]
            self.layers[layer][top:bottom, left:right] = finer[
                2 * top : 2 * bottom : 2, 2 * left : 2 * right : 2
            ]


def _centres_inside(
    start: int, length: int, ratio: float, limit: int, extent: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of the layer whose centres lie in a tile, and the pixels of the tile that they lie in."""
    low = max(0, math.floor(start / ratio) - 1)
    candidates = np.arange(low, min(limit, math.ceil((start + length) / ratio) + 1))
    # The layer's last pixel may reach beyond the slide, and its centre with it.
    centres = np.minimum((candidates + 0.5) * ratio, np.nextafter(extent, 0))
    inside = (centres >= start) & (centres < start + length)
    return candidates[inside], centres[inside].astype(np.int64) - start
