"""Slides of any size, made of real tiles: a pyramidal JPEG TIFF or an OME-Zarr.

    python benchmarks/large_slides.py DATA OUTPUT.tif --side 100000
    python benchmarks/large_slides.py DATA OUTPUT.ome.zarr --side 100000

Tissue is a disc on glass. It repeats every 8,192 pixels, in which each tile is another image of NuInsSeg, so
that a tile is encoded once and every level is what halving the one below gives. Micrometres per pixel: 0.5.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TILE = 512
PERIOD = 16
"""Tiles a side."""
MPP = 0.5
GLASS = 243

Rgb = NDArray[np.uint8]


class Mosaic:
    """The tiles of a generated slide.

    Parameters
    ----------
    data : Path
        Holds ``nuinsseg/images``.
    side : int
        Pixels of level 0.
    """

    def __init__(self, data: Path, side: int) -> None:
        files = sorted((data / "nuinsseg" / "images").iterdir())[: PERIOD**2]
        pattern = np.full((PERIOD * TILE, PERIOD * TILE, 3), GLASS, np.uint8)
        for index, file in enumerate(files):
            y, x = index // PERIOD * TILE, index % PERIOD * TILE
            pattern[y : y + TILE, x : x + TILE] = np.asarray(Image.open(file).convert("RGB"))[:TILE, :TILE]
        self.side = side
        self.levels = max(1, math.ceil(math.log2(side / 1024)))
        self._patterns = [pattern]
        while len(self._patterns[-1]) > 1:
            image = Image.fromarray(self._patterns[-1])
            self._patterns.append(np.asarray(image.reduce(2)))

    def shape(self, level: int) -> tuple[int, int, int]:
        """``(height, width, 3)`` of a level."""
        return (self.side >> level, self.side >> level, 3)

    def is_tissue(self, row: int, column: int) -> bool:
        """Whether a period of the pattern is tissue and not glass."""
        middle = self.side / (2 * PERIOD * TILE)
        return math.hypot(row + 0.5 - middle, column + 0.5 - middle) < 0.8 * middle

    def key(self, level: int, row: int, column: int) -> tuple[int, ...]:
        """Tiles of a level with equal keys look the same."""
        periods = PERIOD >> level
        if periods == 0:
            return level, row, column
        if not self.is_tissue(row // periods, column // periods):
            return (-1,)
        return level, row % periods, column % periods

    def tile(self, level: int, row: int, column: int) -> Rgb:
        """A whole tile, uint8 RGB."""
        out = np.full((TILE, TILE, 3), GLASS, np.uint8)
        pattern = self._patterns[min(level, len(self._patterns) - 1)]
        period = min(len(pattern), TILE)
        side = max(1, (PERIOD * TILE) >> level)
        for y in range(0, TILE, period):
            for x in range(0, TILE, period):
                top, left = row * TILE + y, column * TILE + x
                if self.is_tissue(top // side, left // side):
                    part = pattern[top % len(pattern) :, left % len(pattern) :][:period, :period]
                    out[y : y + period, x : x + period] = part
        return out


def write_tiff(mosaic: Mosaic, path: Path) -> None:
    """Write a pyramidal BigTIFF of JPEG tiles."""
    import imagecodecs
    import tifffile

    known: dict[tuple[int, ...], bytes] = {}

    def encoded(level: int) -> Iterator[bytes]:
        rows, columns = (-(-side // TILE) for side in mosaic.shape(level)[:2])
        for row in range(rows):
            for column in range(columns):
                key = mosaic.key(level, row, column)
                if key not in known:
                    known[key] = bytes(imagecodecs.jpeg_encode(mosaic.tile(level, row, column), level=80))
                yield known[key]

    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for level in range(mosaic.levels + 1):
            writer.write(
                encoded(level),
                shape=mosaic.shape(level),
                dtype="uint8",
                tile=(TILE, TILE),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                subfiletype=int(level > 0),
                resolution=(1e4 / (MPP * 2**level),) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )


def write_zarr(mosaic: Mosaic, path: Path) -> None:
    """Write an OME-Zarr 0.4, compressed with zstd; chunks of glass are left out."""
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=2)
    datasets: list[Any] = []
    for level in range(mosaic.levels + 1):
        array = group.create_array(
            str(level), shape=mosaic.shape(level), chunks=(TILE, TILE, 3), dtype="uint8", fill_value=GLASS
        )
        written: dict[tuple[int, ...], Path] = {}
        rows, columns = (-(-side // TILE) for side in mosaic.shape(level)[:2])
        for row in range(rows):
            for column in range(columns):
                key = mosaic.key(level, row, column)
                if key == (-1,):
                    continue
                file = path / str(level) / f"{row}.{column}.0"
                if key in written:
                    file.hardlink_to(written[key])  # the same bytes
                    continue
                height, width = (
                    min(TILE, side - place * TILE)
                    for side, place in zip(mosaic.shape(level)[:2], (row, column), strict=True)
                )
                tile = mosaic.tile(level, row, column)[:height, :width]
                array[row * TILE : row * TILE + height, column * TILE : column * TILE + width] = tile
                if (height, width) == (TILE, TILE):
                    written[key] = file
        scale = [MPP * 2**level, MPP * 2**level, 1.0]
        datasets.append(
            {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        )
    axes: list[Any] = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    axes.append({"name": "c", "type": "channel"})
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]


def make(data: Path, path: Path, side: int) -> Path:
    """Write the slide unless it is there."""
    if not path.exists():
        part = path.with_name(f"part-{path.name}")
        mosaic = Mosaic(data, side)
        (write_zarr if path.suffix == ".zarr" else write_tiff)(mosaic, part)
        part.rename(path)
    return path


def main() -> None:
    """Write one slide."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--side", type=int, default=100_000)
    arguments = parser.parse_args()
    make(arguments.data, arguments.output, arguments.side)


if __name__ == "__main__":
    main()
