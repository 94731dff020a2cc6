"""Random tiles of tissue, the same ones for a seed, with whole regions of every slide set aside.

A slide is cut into square cells that belong to it, not to the run. Cells without tissue are left out, a fixed
fifth of the others is held out, and a tile lies within one cell: what is held out shares no pixel with the
rest.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.errors import MissingScaleError, UserError
from napari_genselfdiff.slides.fingerprint import slide_fingerprint
from napari_genselfdiff.slides.slide import Slide
from napari_genselfdiff.slides.tissue import Tissue, find_tissue

HELD_OUT_SHARE = 5
"""One cell of this many is held out."""
LARGEST_CELL = 4
"""Side of a cell in tiles, where the slides are large enough."""
ENOUGH_CELLS = 20
"""The cells of a slide are halved until there are so many, or they are as small as a tile."""
LEAST_TISSUE = 0.5
"""Share of a tile that is tissue."""
TRIES = 12
"""Places that are tried in a cell before another one is drawn."""


@dataclass(frozen=True)
class Tile:
    """A square of one slide.

    Attributes
    ----------
    slide : int
        Its place in the list of slides.
    y, x : int
        First pixel on the slide's grid at the resolution of the sample, see `Slide.read_scaled`.
    height, width : int
        In the same pixels; smaller than was asked for where the slide is.
    """

    slide: int
    y: int
    x: int
    height: int
    width: int


@dataclass(frozen=True)
class TileSample:
    """Tiles to learn from and tiles of held-out cells.

    Attributes
    ----------
    mpp : float
        Micrometres per pixel of the tiles.
    training, held_out : tuple of Tile
    cells : tuple of int
        Number of cells with tissue that either came from.
    fingerprints : tuple of str
        Of the slides, in their order.
    """

    mpp: float
    training: tuple[Tile, ...]
    held_out: tuple[Tile, ...]
    cells: tuple[int, int]
    fingerprints: tuple[str, ...]

    def read(self, slides: Sequence[Slide], tile: Tile) -> NDArray[np.uint8]:
        """Pixels of a tile, shape (height, width, 3)."""
        slide = slides[tile.slide]
        return slide.read_scaled(tile.y, tile.x, tile.height, tile.width, scale=_scale(slide, self.mpp))


@dataclass(frozen=True)
class _Cell:
    slide: int
    y: int
    x: int
    height: int
    width: int
    order: str
    """A hash of the slide and the place: what is held out does not change when slides are added."""


def sample_tiles(
    slides: Sequence[Slide], *, mpp: float, side: int, count: int, held_out: int = 0, seed: int = 0
) -> TileSample:
    """Choose random tiles of the tissue of slides; no pixels but the overviews are read.

    Parameters
    ----------
    slides : sequence of Slide
        A tile is as likely to come from a small slide as from a large one.
    mpp : float
        Micrometres per pixel of the tiles.
    side : int
        Pixels of a tile.
    count, held_out : int
        How many to learn from, and how many of the held-out cells; with 0 nothing is held out.
    seed : int

    Raises
    ------
    MissingScaleError
        If a slide does not say its resolution.
    UserError
        If there is no tissue, or too little to hold any of it out.
    """
    tissues = [find_tissue(slide) for slide in slides]
    fingerprints = tuple(slide_fingerprint(slide) for slide in slides)
    cells = [
        cell
        for index, (slide, tissue) in enumerate(zip(slides, tissues, strict=True))
        for cell in _cells(index, slide, tissue, fingerprints[index], mpp, side)
    ]
    if len(cells) < (2 if held_out else 1):
        raise UserError(
            "there is too little tissue" if cells else "no tissue was found",
            str(slides[0].where),
            "choose larger or more slides",
        )
    apart = _held_out(cells) if held_out else set()
    draw = _Drawing(slides, tissues, mpp, side, np.random.default_rng(seed))
    rest = [cell for cell in cells if cell not in apart]
    kept = sorted(apart, key=_place)
    return TileSample(
        mpp,
        draw.tiles(rest, count),
        draw.tiles(kept, held_out) if kept else (),
        (len(rest), len(kept)),
        fingerprints,
    )


def _scale(slide: Slide, mpp: float) -> float:
    if slide.mpp is None:
        raise MissingScaleError(slide.where)
    return mpp / slide.mpp


def _place(cell: _Cell) -> str:
    return cell.order


def _held_out(cells: Sequence[_Cell]) -> set[_Cell]:
    """A fifth of each slide's cells, and one at least of all."""
    apart: set[_Cell] = set()
    for slide in {cell.slide for cell in cells}:
        own = sorted((cell for cell in cells if cell.slide == slide), key=_place)
        apart.update(own[: len(own) // HELD_OUT_SHARE])
    if len(apart) * 2 * HELD_OUT_SHARE < len(cells):  # many small slides
        apart = set(sorted(cells, key=_place)[: max(1, len(cells) // HELD_OUT_SHARE)])
    return apart


def _cells(index: int, slide: Slide, tissue: Tissue, fingerprint: str, mpp: float, side: int) -> list[_Cell]:
    """Cells of a slide in which a tile of tissue may lie."""
    width = LARGEST_CELL * side
    while True:
        cells = _cells_of(index, slide, tissue, fingerprint, mpp, side, width)
        if width <= side or len(cells) >= ENOUGH_CELLS:
            return cells
        width = max(side, width // 2)


def _cells_of(
    index: int, slide: Slide, tissue: Tissue, fingerprint: str, mpp: float, side: int, width: int
) -> list[_Cell]:
    scale = _scale(slide, mpp)
    grid = tuple(max(1, math.floor(length / scale)) for length in slide.shape)
    found = []
    for y in range(0, grid[0], width):
        for x in range(0, grid[1], width):
            height, breadth = min(width, grid[0] - y), min(width, grid[1] - x)
            # A strip at the border that holds no whole tile is left out, unless it is all there is.
            if (height < side and y) or (breadth < side and x):
                continue
            if _share(tissue, y * scale, x * scale, height * scale, breadth * scale) < LEAST_TISSUE / 4:
                continue
            order = hashlib.sha256(f"{fingerprint}:{width}:{y}:{x}".encode()).hexdigest()
            found.append(_Cell(index, y, x, height, breadth, order))
    return found


def _share(tissue: Tissue, y: float, x: float, height: float, width: float) -> float:
    """Part of a rectangle in level-0 pixels that is tissue."""
    rows = slice(math.floor(y / tissue.downsample), math.ceil((y + height) / tissue.downsample))
    columns = slice(math.floor(x / tissue.downsample), math.ceil((x + width) / tissue.downsample))
    part = tissue.mask[rows, columns]
    return float(part.mean()) if part.size else 0.0


@dataclass
class _Drawing:
    slides: Sequence[Slide]
    tissues: Sequence[Tissue]
    mpp: float
    side: int
    rng: np.random.Generator

    def tiles(self, cells: Sequence[_Cell], count: int) -> tuple[Tile, ...]:
        """So many tiles; fewer where hardly any place has tissue enough."""
        by_slide = [[cell for cell in cells if cell.slide == i] for i in range(len(self.slides))]
        by_slide = [own for own in by_slide if own]
        found: list[Tile] = []
        for _ in range(4 * count):
            if len(found) == count:
                break
            own = by_slide[int(self.rng.integers(len(by_slide)))]
            tile = self._tile(own[int(self.rng.integers(len(own)))])
            if tile is not None:
                found.append(tile)
        if not found:
            raise UserError(
                "no place has tissue enough for a tile", str(self.slides[0].where), "choose other slides"
            )
        return tuple(found)

    def _tile(self, cell: _Cell) -> Tile | None:
        scale = _scale(self.slides[cell.slide], self.mpp)
        height, width = min(self.side, cell.height), min(self.side, cell.width)
        for _ in range(TRIES):
            y = cell.y + int(self.rng.integers(cell.height - height + 1))
            x = cell.x + int(self.rng.integers(cell.width - width + 1))
            place = (y * scale, x * scale, height * scale, width * scale)
            if _share(self.tissues[cell.slide], *place) >= LEAST_TISSUE:
                return Tile(cell.slide, y, x, height, width)
        return None
