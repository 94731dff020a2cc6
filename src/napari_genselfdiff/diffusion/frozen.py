"""What a network that is not trained knows of each pixel, and what classical image analysis measures there.

Levels of the decoder (Baranchuk et al. 2022, arXiv 2112.03126) are kept at their own resolutions, and so are
the measures. A pixel's features are those of every level, interpolated bilinearly. Interpolation is linear:
a linear map of all features is the sum of the levels' own, each enlarged afterwards. It costs, and the
features take, a fraction of what all of them at full resolution would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from napari_genselfdiff.diffusion import stain
from napari_genselfdiff.diffusion.objectives.features import measured
from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.diffusion.unet import UNet

HALO = 1
"""Pixels around a part that the coarser levels have too, so that parts are interpolated without seams."""
MEASURE_REACH = 5
"""How far a hand-made feature sees, in pixels of its level."""
LIMIT = 6e4
"""Features are kept in half precision, which ends a little above."""


@dataclass(frozen=True)
class Levels:
    """Features of a part of an image.

    Attributes
    ----------
    maps : tuple of Tensor, float16, shapes (features, height / stride + 2, width / stride + 2)
        From coarse to fine, each with a pixel of its own around the part; the last has the resolution of
        the image, and no pixel around it.
    strides : tuple of int
        Pixels of the image a pixel of each level; 1 at the end.
    """

    maps: tuple[Tensor, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes that the features take."""
        return sum(level.nbytes for level in self.maps)

    @property
    def width(self) -> int:
        """Features of a pixel."""
        return sum(len(level) for level in self.maps)

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)`` of the part in pixels of the image."""
        height, width = self.maps[-1].shape[-2:]
        return int(height), int(width)

    def around(self, top: int, left: int, bottom: int, right: int) -> tuple[Levels, int, int]:
        """The smallest part with a rectangle in it that is as good by itself.

        Parameters
        ----------
        top, left, bottom, right : int
            In pixels of the image; the last two are beyond the rectangle.

        Returns
        -------
        part : Levels
            A view of the same memory.
        y, x : int
            Its first pixel.
        """
        coarsest = self.strides[0]
        y, x = top // coarsest * coarsest, left // coarsest * coarsest
        ends = [-(-end // coarsest) * coarsest for end in (bottom, right)]
        maps = []
        for level, stride in zip(self.maps, self.strides, strict=True):
            beyond = 2 * HALO if stride > 1 else 0
            rows, columns = (
                slice(y // stride, ends[0] // stride + beyond),
                slice(x // stride, ends[1] // stride + beyond),
            )
            maps.append(level[:, rows, columns])
        return Levels(tuple(maps), self.strides), y, x

    def at(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Features of some pixels.

        Parameters
        ----------
        rows, columns : Tensor of int, shape (n,)

        Returns
        -------
        Tensor of float32, shape (n, width)
        """
        found = []
        for level, stride in zip(self.maps, self.strides, strict=True):
            if stride == 1:
                found.append(level[:, rows, columns].float())
                continue
            (top, down), (left, right) = _between(rows, stride), _between(columns, stride)
            upper = torch.lerp(level[:, top, left].float(), level[:, top, left + 1].float(), right)
            lower = torch.lerp(level[:, top + 1, left].float(), level[:, top + 1, left + 1].float(), right)
            found.append(torch.lerp(upper, lower, down))
        return torch.cat(found).T

    def mapped(self, weights: Tensor, bias: Tensor) -> Tensor:
        """A linear map of the features of all pixels.

        Parameters
        ----------
        weights : Tensor, shape (outputs, width)
        bias : Tensor, shape (outputs,)

        Returns
        -------
        Tensor of float32, shape (outputs, height, width)
        """
        height, width = self.shape
        total = bias[:, None, None].expand(-1, height, width).clone()
        parts = torch.split(weights, [len(level) for level in self.maps], dim=1)
        for level, part, stride in zip(self.maps, parts, self.strides, strict=True):
            here = F.conv2d(level[None].float(), part[:, :, None, None])
            if stride > 1:
                here = F.interpolate(here, scale_factor=stride, mode="bilinear")
                edge = stride * HALO
                here = here[..., edge:-edge, edge:-edge]
            total += here[0]
        return total


def frozen_levels(
    network: UNet,
    images: Tensor,
    timestep: int,
    *,
    margin: int,
    known: int | None = None,
    says: bool = True,
    measures: bool = True,
) -> Levels:
    """Features of one image.

    Parameters
    ----------
    network : UNet
        In evaluation mode; folded or not.
    images : Tensor of float32, shape (1, 3, height, width)
        In [-1, 1]; sides are multiples of the network's stride.
    timestep : int
        What the network is told of the noise, of which there is none.
    margin : int
        Pixels at every border that are seen only, a multiple of the stride, at least `margin_for`.
    known : int, optional
        So many of the decoder's finest levels; all of them by default.
    says : bool
        Whether to take the output of the network, too.
    measures : bool
        Whether to take hand-made features at all resolutions of the decoder: mean, gradient, Hessian and
        deviation of haematoxylin, eosin and brightness, and the colour of the pixel.
    """
    inner = images.shape[-2] - 2 * margin, images.shape[-1] - 2 * margin
    count = len(network.level_widths)
    strides = tuple(network.config.stride >> index for index in range(count))
    found: list[list[Tensor]] = [[] for _ in strides]
    first = 0 if known is None else count - known
    if says or first < count:
        levels = network.pyramid(images, torch.tensor([timestep], device=images.device), margin=margin)
        for index in range(first, count):
            found[index].append(_around(levels[index].float(), inner, strides[index]))
        if says:
            found[-1].append(network.output(levels[-1]).float())
    if measures:
        with torch.autocast(images.device.type, enabled=False):
            density = stain.densities(images)[:, :2]
            maps = measured(torch.cat([density, images.amin(dim=1, keepdim=True)], dim=1), count)
        for parts, level, stride in zip(found, maps[::-1], strides, strict=True):
            parts.append(_around(level, inner, stride))
        found[-1].append(_around(images, inner, 1))
    pairs = [
        (torch.cat(parts, dim=1)[0], stride) for parts, stride in zip(found, strides, strict=True) if parts
    ]
    joined = (level.clamp(-LIMIT, LIMIT).half().contiguous() for level, _ in pairs)
    return Levels(tuple(joined), tuple(stride for _, stride in pairs))


def image_levels(network: UNet, rgb: NDArray[np.uint8], timestep: int, **which: Any) -> Levels:
    """Features of a whole image, which is mirrored beyond its border.

    Parameters
    ----------
    network : UNet
        In evaluation mode; folded or not. The features lie on its device.
    rgb : ndarray of uint8, shape (height, width, 3)
    timestep : int
    **which
        What is taken, see `frozen_levels`.

    Returns
    -------
    Levels
        Of the image and, at its lower and right border, up to a multiple of the network's stride.
    """
    margin, stride = margin_for(network), network.config.stride
    height, width = rgb.shape[:2]
    beyond = ((margin, margin + -height % stride), (margin, margin + -width % stride), (0, 0))
    grown = to_unit_range(np.pad(rgb, beyond, mode="symmetric")[None])
    device = next(network.parameters()).device
    return frozen_levels(network, grown.to(device), timestep, margin=margin, **which)


def margin_for(network: UNet) -> int:
    """Pixels around a part that its features depend on, a multiple of the stride.

    Of a network that sees the whole tile, what the hand-made features need.
    """
    needed = (MEASURE_REACH + HALO) * network.config.stride
    return max(network.config.reach, needed) if network.config.tile_independent else needed


def _around(level: Tensor, inner: tuple[int, int], stride: int) -> Tensor:
    """The middle of a level, with the halo; ``inner`` is its size in pixels of the image."""
    halo = HALO if stride > 1 else 0
    top, left = (
        (side - wanted // stride) // 2 - halo for side, wanted in zip(level.shape[-2:], inner, strict=True)
    )
    return level[..., top : level.shape[-2] - top, left : level.shape[-1] - left]


def _between(places: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Index of the pixel of a level before each place, and how far the place is from it to the next."""
    exact = (places + 0.5) / stride - 0.5 + HALO
    before = exact.floor()
    return before.long(), exact - before
