"""Tiled inference: one grid for the whole slide, overlap, blended seams, the centre of the view first.

A tile is a window of the model's pixel grid. Its outermost ``MARGIN`` pixels see the zero padding of the
convolutions and are thrown away; over the next ``BLEND`` pixels neighbouring tiles are mixed with linear
weights. Windows begin at multiples of the network's stride on a grid that belongs to the slide, so a region's
prediction does not depend on how it was cut: to 1e-3 in probability for networks that are free of statistics
over the tile (2e-4 measured), whose windows are cropped at the region's border. The others (`paper`) get
whole windows of one size, the same ones for every cut: equal to rounding (1 of 255).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.errors import OutOfMemoryError
from napari_genselfdiff.events import CancelToken, Clock, Event, Finished, Progress, TileDone
from napari_genselfdiff.segmentation.network import Segmenter
from napari_genselfdiff.segmentation.prediction import Prediction

MARGIN = 80
BLEND = 32
WINDOW = 960
"""On CPUs the system's allocator keeps blocks of up to 32 MiB for the next use, and the largest activations of
such a window stay below: windows of 1,024 pixels took 1.5 times as long a pixel, in page faults."""
PAPER_WINDOW = 256
"""Networks whose normalisation sees the tile get windows of the size they were trained with."""
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


def tile_grid(
    y: int,
    x: int,
    height: int,
    width: int,
    *,
    bounds: tuple[int, int],
    window: int,
    stride: int,
    crop: bool,
) -> list[Window]:
    """Windows that cover a region, on the slide-wide grid.

    Parameters
    ----------
    y, x, height, width : int
        The region in model pixels.
    bounds : tuple of int
        ``(height, width)`` of the slide in model pixels: no window lies beyond it.
    window, stride : int
        Side of a window and stride of the network, in model pixels.
    crop : bool
        Cut windows at the region's border plus what the seams need, at multiples of the stride.

    Returns
    -------
    list of Window
        In raster order.
    """
    step = (window - 2 * MARGIN - BLEND) // stride * stride
    lead = math.ceil((MARGIN + BLEND / 2) / stride) * stride
    reach = lead - MARGIN

    def spans(start: int, length: int, bound: int) -> list[tuple[int, int]]:
        # Tile i owns [i * step, (i + 1) * step), is mixed in `reach` further, and looks `lead` further.
        # Tiles that are only mixed in count too: otherwise the cut of the region would show.
        result = []
        first, last = max(0, (start - reach) // step), min(start + length - 1 + reach, bound - 1) // step
        for index in range(first, last + 1):
            low, high = index * step - lead, (index + 1) * step + lead
            if crop:
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
    window: int | None = None,
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
    window : int, optional
        Side of the windows in model pixels.

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
    independent = spec.config.tile_independent
    window = window or (WINDOW if independent else PAPER_WINDOW)

    def nearest_first(part: tuple[int, int, int, int] | Window) -> float:
        a, b, h, w = part if isinstance(part, tuple) else (part.y, part.x, part.height, part.width)
        return math.hypot(a + h / 2 - centre[0], b + w / 2 - centre[1])

    probabilities = np.zeros((len(spec.classes), height, width), np.uint8)
    distance = np.zeros((height, width), np.uint8) if spec.instances else None
    blocks = [
        (a, b, min(BLOCK, y + height - a), min(BLOCK, x + width - b))
        for a in range(y, y + height, BLOCK)
        for b in range(x, x + width, BLOCK)
    ]
    plan = {
        block: tile_grid(*block, bounds=bounds, window=window, stride=spec.config.stride, crop=independent)
        for block in blocks
    }
    total, done, clock = sum(map(len, plan.values())), 0, Clock()
    yield Progress(0, total, "segmenting")
    for block in sorted(plan, key=nearest_first):
        if cancel.cancelled:
            break
        canvas = _Canvas(block, spec.channels, device)
        for tile in sorted(plan[block], key=nearest_first):
            if cancel.cancelled:
                break
            image = _read_mirrored(read, tile, bounds)
            top, left, shown = canvas.add(tile, _forward(segmenter, image, compute, device))
            part = np.s_[top - y : top - y + shown.shape[1], left - x : left - x + shown.shape[2]]
            classes = shown[: len(spec.classes)]
            probabilities[:, part[0], part[1]] = classes
            if distance is not None:
                distance[part] = shown[-1]
            done += 1
            yield TileDone((top - y, left - x), classes.argmax(axis=0).astype(np.uint8), classes.max(axis=0))
            yield Progress(done, total, "segmenting", clock.left(done, total))
    yield Finished(
        result=Prediction((y, x), scale, probabilities, distance),
        message=f"{done} of {total} tiles"
        if done < total
        else f"{height:,} x {width:,} pixels at the model's resolution",
        cancelled=done < total,
    )


def _read_mirrored(read: Reader, tile: Window, bounds: tuple[int, int]) -> NDArray[np.uint8]:
    """A window of the slide; what lies beyond its border is mirrored, as white edges mislead the network."""
    top, left = max(tile.y, 0), max(tile.x, 0)
    bottom, right = min(tile.y + tile.height, bounds[0]), min(tile.x + tile.width, bounds[1])
    image = read(top, left, bottom - top, right - left)
    beyond = ((top - tile.y, tile.y + tile.height - bottom), (left - tile.x, tile.x + tile.width - right))
    return np.pad(image, (*beyond, (0, 0)), mode="symmetric") if any(map(any, beyond)) else image


class _Canvas:
    """Weighted sums of the tiles of one block."""

    def __init__(self, block: tuple[int, int, int, int], channels: int, device: torch.device) -> None:
        self.y, self.x, self.height, self.width = block
        self.sums = torch.zeros((channels, self.height, self.width), device=device)
        self.weights = torch.zeros((self.height, self.width), device=device)

    def add(self, tile: Window, output: torch.Tensor) -> tuple[int, int, NDArray[np.uint8]]:
        """Mix a tile in; returns the origin ``(y, x)`` of what changed and its values, 0 to 255."""
        weight = _ramp(tile.height)[:, None] * _ramp(tile.width)[None, :]
        top, left = max(tile.y + MARGIN, self.y), max(tile.x + MARGIN, self.x)
        bottom = min(tile.y + tile.height - MARGIN, self.y + self.height)
        right = min(tile.x + tile.width - MARGIN, self.x + self.width)
        there = np.s_[top - self.y : bottom - self.y, left - self.x : right - self.x]
        here = np.s_[top - tile.y : bottom - tile.y, left - tile.x : right - tile.x]
        weight = weight[here].to(output.device)
        self.sums[:, there[0], there[1]] += output[:, here[0], here[1]] * weight
        self.weights[there] += weight
        mixed = self.sums[:, there[0], there[1]] / self.weights[there]
        return top, left, (mixed * 255).round_().to(torch.uint8).cpu().numpy()


def _ramp(length: int) -> torch.Tensor:
    """Weights along one side of a window; those of two neighbours add up to 1 where they overlap."""
    position = torch.arange(length) + 0.5
    edge = torch.minimum(position, length - position) - MARGIN
    return (edge / BLEND).clamp(min=1e-4 / BLEND, max=1)


@torch.inference_mode()
def _forward(
    segmenter: Segmenter, image: NDArray[np.uint8], compute: Compute, device: torch.device
) -> torch.Tensor:
    """Probabilities (and distance) of one window, shape (channels, height, width)."""
    try:
        with compute.autocasting():
            logits, distance = segmenter(to_unit_range(image[None]).to(device))
        probabilities: torch.Tensor = logits.softmax(dim=1)[0]
        if distance is None:
            return probabilities
        return torch.cat([probabilities, distance.sigmoid()])
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(
            "the device ran out of memory: choose the CPU or close other programs"
        ) from error
