"""Frozen features of slides: computed once, tile by tile on one grid, and kept as far as there is room."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_genselfdiff.compute import Compute, is_out_of_memory
from napari_genselfdiff.diffusion.folding import folded
from napari_genselfdiff.diffusion.frozen import HALO, Levels, frozen_levels, margin_for
from napari_genselfdiff.diffusion.objectives.base import TASK_TIMESTEP
from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.errors import OutOfMemoryError
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.inference import Tiling, Window, read_mirrored
from napari_genselfdiff.segmentation.network import Segmenter

if TYPE_CHECKING:
    from napari_genselfdiff.slides import Slide

TILE = 256
"""Side of a tile in model pixels, a multiple of every network's stride."""
BLOCK = 3
"""Tiles a side that are computed at once: what is seen around them is shared."""
CACHE_BYTES = 512 * 2**20
"""Features of about five million pixels of the compact network."""
KNOWN = 2
"""Levels of the decoder that are used, the finest ones: with all of them strokes are learned by heart."""

Place = tuple[int, int]
"""Row and column of a tile on the grid of a slide."""


@dataclass(frozen=True)
class Source:
    """A slide at the resolution of a model.

    Attributes
    ----------
    slide : Slide
    key : str
        Tells slides and resolutions apart.
    scale : float
        Level-0 pixels a model pixel.
    """

    slide: Slide
    key: str
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)`` of the slide in model pixels."""
        height, width = self.slide.shape
        return math.ceil(height / self.scale), math.ceil(width / self.scale)

    def grid_of(self, region: Region) -> Region | None:
        """The model pixels that a rectangle of level-0 pixels meets; None beyond the slide."""
        y, x = math.floor(region.y / self.scale), math.floor(region.x / self.scale)
        bottom, right = math.ceil(region.bottom / self.scale), math.ceil(region.right / self.scale)
        return Region(y, x, bottom - y, right - x).clipped(*self.shape)

    def read(self, y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        """RGB of a rectangle of the model's grid, inside the slide."""
        return self.slide.read_scaled(y, x, height, width, scale=self.scale)


class FeatureTiles:
    """Features of a network that stays as it is.

    Parameters
    ----------
    network : Segmenter or UNet
        A segmenter, at its time step, or a pretext.
    compute : Compute
        Where features are computed; they are kept in the computer's memory.
    max_bytes : int
        Of features that are kept; the least recently used tiles make room.

    Notes
    -----
    A pixel's features do not depend on what else is computed: tiles lie on one grid for the whole slide, and
    each is seen with all that its pixels depend on. Networks that see the whole tile (`paper`) get every tile
    by itself.
    """

    def __init__(self, network: Segmenter | UNet, *, compute: Compute, max_bytes: int = CACHE_BYTES) -> None:
        self._timestep = network.spec.timestep if isinstance(network, Segmenter) else TASK_TIMESTEP
        unet = network.unet if isinstance(network, Segmenter) else network
        self._network = folded(unet.eval(), self._timestep)
        self._margin = max(Tiling.of(unet.config).margin, margin_for(unet))
        self._block = BLOCK if unet.config.tile_independent else 1
        self._compute = compute
        self._max_bytes = max_bytes
        self._classes = len(network.spec.classes) if isinstance(network, Segmenter) else 0
        self._before_output = unet.level_widths[-1]
        self._tiles: OrderedDict[tuple[str, Place], Levels] = OrderedDict()
        self.nbytes = 0

    def get(self, source: Source, place: Place) -> Levels | None:
        """Features of a tile, or None where they are not kept (any more)."""
        tile = self._tiles.get((source.key, place))
        if tile is not None:
            self._tiles.move_to_end((source.key, place))
        return tile

    def said(self, levels: Levels) -> Tensor:
        """Logits of a segmenter's own classes, which are among the features of a tile.

        Returns
        -------
        Tensor of float16, shape (classes, height, width)
            Of no class for a pretext.
        """
        first = self._before_output
        return levels.maps[-1][first : first + self._classes]

    def missing(self, source: Source, places: Iterable[Place]) -> set[Place]:
        """Tiles that are not kept."""
        return {place for place in places if (source.key, place) not in self._tiles}

    def fill(
        self, source: Source, places: Iterable[Place], centre: tuple[float, float]
    ) -> Iterator[list[Place]]:
        """Compute what is missing of some tiles, the nearest to a place in model pixels first.

        Yields
        ------
        list of tuple of int
            The tiles that were computed, after each step.
        """
        missing = self.missing(source, places)
        while missing:
            row, column = min(
                missing,
                key=lambda at: math.dist([(side + 0.5) * TILE for side in at], centre),
            )
            block = _grown(missing, row, column, self._block)
            for place, tile in self.computed(source, block):
                self._keep((source.key, place), tile)
            missing -= set(_places(block))
            yield _places(block)

    @torch.inference_mode()
    def computed(self, source: Source, block: Region) -> Iterator[tuple[Place, Levels]]:
        """Features of a rectangle of tiles (``block`` counts tiles), which are not kept.

        Raises
        ------
        OutOfMemoryError
            If the device has no room for them.
        """
        margin, device = self._margin, self._compute.apply()
        window = Window(
            block.y * TILE - margin,
            block.x * TILE - margin,
            block.height * TILE + 2 * margin,
            block.width * TILE + 2 * margin,
        )
        rgb = read_mirrored(source.read, window, source.shape)
        try:
            with self._compute.autocasting():
                levels = frozen_levels(
                    self._network.to(device),
                    to_unit_range(rgb[None]).to(device),
                    self._timestep,
                    margin=margin,
                    known=KNOWN,
                )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                "the device ran out of memory: choose the CPU or close other programs"
            ) from error
        for row, column in _places(block):
            yield (row, column), _tile(levels, row - block.y, column - block.x)

    def _keep(self, key: tuple[str, Place], tile: Levels) -> None:
        self._tiles[key] = tile
        self.nbytes += tile.nbytes
        while self.nbytes > self._max_bytes and len(self._tiles) > 1:
            _, dropped = self._tiles.popitem(last=False)
            self.nbytes -= dropped.nbytes


def tiles_of(grid: Region) -> list[Place]:
    """Tiles that a rectangle of model pixels meets."""
    y, x = grid.y // TILE, grid.x // TILE
    return _places(Region(y, x, -(-grid.bottom // TILE) - y, -(-grid.right // TILE) - x))


def tile_region(place: Place) -> Region:
    """The rectangle of a tile in model pixels."""
    return Region(place[0] * TILE, place[1] * TILE, TILE, TILE)


def _places(block: Region) -> list[Place]:
    return [(row, column) for row in range(block.y, block.bottom) for column in range(block.x, block.right)]


def _grown(missing: set[Place], row: int, column: int, limit: int) -> Region:
    """A rectangle of missing tiles around one, at most ``limit`` tiles a side."""
    block, grew = Region(row, column, 1, 1), True
    while grew:
        grew = False
        for wider in (
            Region(block.y, block.x, block.height, block.width + 1),
            Region(block.y, block.x, block.height + 1, block.width),
            Region(block.y, block.x - 1, block.height, block.width + 1),
            Region(block.y - 1, block.x, block.height + 1, block.width),
        ):
            if max(wider.height, wider.width) <= limit and missing.issuperset(_places(wider)):
                block, grew = wider, True
                break
    return block


def _tile(levels: Levels, row: int, column: int) -> Levels:
    """One tile of a block, with memory of its own."""
    maps = []
    for level, stride in zip(levels.maps, levels.strides, strict=True):
        side, halo = TILE // stride, HALO if stride > 1 else 0
        part = level[
            :, row * side : (row + 1) * side + 2 * halo, column * side : (column + 1) * side + 2 * halo
        ]
        maps.append(part.cpu().clone())
    return Levels(tuple(maps), levels.strides)
