"""Tiled inference: one grid for the whole slide, no seams, the centre of the view first.

A tile is a window of the model's pixel grid; windows begin at multiples of the network's stride on a grid
that belongs to the slide. Networks that are free of statistics over the tile see a window with all that its
inner pixels depend on (``UNetConfig.reach``) and predict those alone: there are no seams, and however a
region is cut, its prediction is the same to rounding. The others (`paper`) get whole windows of one size, the
same ones for every cut; their outermost ``MARGIN`` pixels see the zero padding of the convolutions and are
thrown away, and over the next ``BLEND`` pixels neighbours are mixed with linear weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from napari_genselfdiff.compute import Compute, is_out_of_memory
from napari_genselfdiff.diffusion.config import UNetConfig
from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.errors import OutOfMemoryError
from napari_genselfdiff.events import CancelToken, Clock, Event, Finished, Progress, TileDone
from napari_genselfdiff.segmentation.network import Segmenter
from napari_genselfdiff.segmentation.prediction import Prediction
from napari_genselfdiff.segmentation.store import CELL

PAPER_WINDOW = 256
"""Networks whose normalisation sees the tile get windows of the size they were trained with."""
MARGIN = 80
BLEND = 32
BLOCK = 4096
"""Regions larger than this are predicted block by block, so that memory stays bounded."""

Reader = Callable[[int, int, int, int], NDArray[np.uint8]]
"""``(y, x, height, width)`` on the model's grid, inside the slide, to RGB."""


@dataclass(frozen=True)
class Window:
    """A tile's rectangle on the model's grid, in model pixels."""

    y: int
    x: int
    height: int
    width: int


@dataclass(frozen=True)
class Tiling:
    """How a network wants a slide cut.

    Attributes
    ----------
    step : int
        Distance of neighbouring windows.
    margin : int
        Pixels at every border of a window that are seen only.
    blend : int
        Pixels behind the margin over which neighbours are mixed.
    crop : bool
        Whether windows may be smaller, at multiples of ``stride``.
    stride : int
    """

    step: int
    margin: int
    blend: int
    crop: bool
    stride: int

    @classmethod
    def of(cls, config: UNetConfig, *, cell: int | None = None, window: int | None = None) -> Tiling:
        """What suits a network; sides in model pixels, `CELL` and `PAPER_WINDOW` by default."""
        if config.tile_independent:
            return cls(cell or CELL, config.reach, 0, True, config.stride)
        step = ((window or PAPER_WINDOW) - 2 * MARGIN - BLEND) // config.stride * config.stride
        return cls(step, MARGIN, BLEND, False, config.stride)

    @property
    def lead(self) -> int:
        """How far a window sees beyond what it owns, in whole strides."""
        return math.ceil((self.margin + self.blend / 2) / self.stride) * self.stride

    def windows(self, y: int, x: int, height: int, width: int, bounds: tuple[int, int]) -> list[Window]:
        """Windows that cover a region, in raster order.

        Parameters
        ----------
        y, x, height, width : int
            The region in model pixels.
        bounds : tuple of int
            ``(height, width)`` of the slide in model pixels; windows that begin beyond are left out.
        """
        stride, lead = self.stride, self.lead
        mixed = lead - self.margin

        def spans(start: int, length: int, bound: int) -> list[tuple[int, int]]:
            # Window i owns [i * step, (i + 1) * step), is mixed in a little further, and sees `lead` further.
            # Windows that are only mixed in count too: otherwise the cut of the region would show.
            result = []
            first = max(0, (start - mixed) // self.step)
            last = min(start + length - 1 + mixed, bound - 1) // self.step
            for index in range(first, last + 1):
                low, high = index * self.step - lead, (index + 1) * self.step + lead
                if self.crop:
                    low = max(low, math.floor(start / stride) * stride - lead)
                    high = min(high, math.ceil((start + length) / stride) * stride + lead)
                result.append((low, high - low))
            return result

        rows, columns = spans(y, height, bounds[0]), spans(x, width, bounds[1])
        return [Window(a, b, h, w) for a, h in rows for b, w in columns]


def predict_region(
    segmenter: Segmenter,
    read: Reader,
    region: tuple[int, int, int, int],
    *,
    bounds: tuple[int, int],
    scale: float,
    compute: Compute,
    centre: tuple[float, float] | None = None,
    cancel: CancelToken | None = None,
    tiling: Tiling | None = None,
) -> Iterator[Event]:
    """Segment a region.

    Parameters
    ----------
    segmenter : Segmenter
    read : callable
        ``read(y, x, height, width)`` on the model's grid gives uint8 RGB.
    region : tuple of int
        ``(y, x, height, width)`` on the model's grid.
    bounds : tuple of int
        ``(height, width)`` of the slide on the model's grid; it is mirrored beyond.
    scale : float
        Level-0 pixels a model pixel, kept in the result.
    compute : Compute
    centre : tuple of float, optional
        ``(y, x)`` on the model's grid; the nearest tiles come first. The region's centre by default.
    cancel : CancelToken, optional
        Honoured between tiles; what is done is kept.
    tiling : Tiling, optional
        What suits the network by default.

    Yields
    ------
    Event
        `TileDone` and `Progress` for each tile, then `Finished` whose result is a `Prediction`.

    Raises
    ------
    OutOfMemoryError
        If the device ran out of memory.
    """
    y, x, height, width = region
    cancel = cancel or CancelToken()
    centre = centre or (y + height / 2, x + width / 2)
    device = compute.apply()
    spec = segmenter.spec
    segmenter = segmenter.to(device).for_inference()
    tiling = tiling or Tiling.of(spec.config)

    def nearest_first(part: tuple[int, int, int, int] | Window) -> float:
        a, b, h, w = part if isinstance(part, tuple) else (part.y, part.x, part.height, part.width)
        return math.hypot(a + h / 2 - centre[0], b + w / 2 - centre[1])

    probabilities = np.zeros((len(spec.classes), height, width), np.uint8)
    core = np.zeros((height, width), np.uint8) if spec.instances else None
    blocks = [
        (a, b, min(BLOCK, y + height - a), min(BLOCK, x + width - b))
        for a in range(y, y + height, BLOCK)
        for b in range(x, x + width, BLOCK)
    ]
    plan = {block: tiling.windows(*block, bounds) for block in blocks}
    total, done, clock = sum(map(len, plan.values())), 0, Clock()
    yield Progress(0, total, "segmenting")
    for block in sorted(plan, key=nearest_first):
        if cancel.cancelled:
            break
        canvas = _Canvas(block, spec.channels, device, tiling)
        for tile in sorted(plan[block], key=nearest_first):
            if cancel.cancelled:
                break
            image = read_mirrored(read, tile, bounds)
            top, left, shown = canvas.add(tile, _forward(segmenter, image, tiling.margin, compute, device))
            part = np.s_[top - y : top - y + shown.shape[1], left - x : left - x + shown.shape[2]]
            classes = shown[: len(spec.classes)]
            probabilities[:, part[0], part[1]] = classes
            if core is not None:
                core[part] = shown[-1]
            done += 1
            yield TileDone(
                (top - y, left - x),
                classes.argmax(axis=0).astype(np.uint8),
                classes.max(axis=0),
                shown[-1] if core is not None else None,
            )
            yield Progress(done, total, "segmenting", clock.left(done, total))
    yield Finished(
        result=Prediction((y, x), scale, probabilities, core),
        message=f"{done} of {total} tiles"
        if done < total
        else f"{height:,} x {width:,} pixels at the model's resolution",
        cancelled=done < total,
    )


def read_mirrored(read: Reader, tile: Window, bounds: tuple[int, int]) -> NDArray[np.uint8]:
    """A window of the slide; what lies beyond its border is mirrored, as white edges mislead the network."""
    top, left = max(tile.y, 0), max(tile.x, 0)
    bottom, right = min(tile.y + tile.height, bounds[0]), min(tile.x + tile.width, bounds[1])
    image = read(top, left, bottom - top, right - left)
    beyond = ((top - tile.y, tile.y + tile.height - bottom), (left - tile.x, tile.x + tile.width - right))
    return np.pad(image, (*beyond, (0, 0)), mode="symmetric") if any(map(any, beyond)) else image


class _Canvas:
    """Weighted sums of the tiles of one block."""

    def __init__(
        self, block: tuple[int, int, int, int], channels: int, device: torch.device, tiling: Tiling
    ) -> None:
        self.y, self.x, self.height, self.width = block
        self.tiling = tiling
        self.sums = torch.zeros((channels, self.height, self.width), device=device)
        self.weights = torch.zeros((self.height, self.width), device=device)

    def add(self, tile: Window, output: torch.Tensor) -> tuple[int, int, NDArray[np.uint8]]:
        """Mix in what was predicted inside of a tile's margin.

        Returns the origin ``(y, x)`` of what changed and its values, 0 to 255.
        """
        y, x = tile.y + self.tiling.margin, tile.x + self.tiling.margin
        height, width = output.shape[-2:]
        weight = _ramp(height, self.tiling.blend)[:, None] * _ramp(width, self.tiling.blend)[None, :]
        top, left = max(y, self.y), max(x, self.x)
        bottom, right = min(y + height, self.y + self.height), min(x + width, self.x + self.width)
        there = np.s_[top - self.y : bottom - self.y, left - self.x : right - self.x]
        here = np.s_[top - y : bottom - y, left - x : right - x]
        weight = weight[here].to(output.device)
        self.sums[:, there[0], there[1]] += output[:, here[0], here[1]] * weight
        self.weights[there] += weight
        mixed = self.sums[:, there[0], there[1]] / self.weights[there]
        return top, left, (mixed * 255).round_().to(torch.uint8).cpu().numpy()


def _ramp(length: int, blend: int) -> torch.Tensor:
    """Weights along one side of a tile; those of two neighbours add up to 1 where they overlap."""
    if not blend:
        return torch.ones(length)
    position = torch.arange(length) + 0.5
    return (torch.minimum(position, length - position) / blend).clamp(max=1)


@torch.inference_mode()
def _forward(
    segmenter: Segmenter, image: NDArray[np.uint8], margin: int, compute: Compute, device: torch.device
) -> torch.Tensor:
    """Probabilities (and that of cores) of a window inside of its margin, shape (channels, height, width)."""
    # Networks that see the tile must compute the margin as well.
    early = margin if segmenter.spec.config.tile_independent else 0
    try:
        with compute.autocasting():
            logits, core = segmenter(to_unit_range(image[None]).to(device), margin=early)
        probabilities: torch.Tensor = logits.softmax(dim=1)[0]
        if core is not None:
            probabilities = torch.cat([probabilities, core.sigmoid()])
        late = margin - early
        height, width = probabilities.shape[-2:]
        return probabilities[:, late : height - late, late : width - late]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            "the device ran out of memory: choose the CPU or close other programs"
        ) from error
