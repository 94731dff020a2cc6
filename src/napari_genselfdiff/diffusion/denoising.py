"""How well a pretext denoises images, and how well it denoised those that it was trained on.

A network removes noise with what it knows of its training images. On tissue that looks different, of another
stain or scanner, it puts the colours and shapes back that it knows, and its error grows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.objectives import OUTPUTS
from napari_genselfdiff.diffusion.objectives.base import TASK_TIMESTEP, hidden_blocks
from napari_genselfdiff.diffusion.objectives.masked import BLOCK
from napari_genselfdiff.diffusion.sampling import estimate_x0
from napari_genselfdiff.diffusion.schedules import add_noise, alpha_bars
from napari_genselfdiff.diffusion.settings import PretrainSettings
from napari_genselfdiff.diffusion.unet import UNet

LEVELS = (300, 450)
"""Time steps of the noise: 64 % and 36 % of the signal's variance are left in the quadratic schedule."""
COARSE = 3.0
"""Sigma in pixels of the Gaussian that leaves the coarse part of the error."""
HIDDEN = 0.5
"""Share of the blocks that is hidden from a masked pretext, which knows no noise."""
CALIBRATION_STEP = 2**33
"""A step that no run reaches: the tiles that calibrate are random, but the same for all of a run."""
CALIBRATION_TILES = 64
QUANTILES = 101
BATCH = 8


@dataclass(frozen=True)
class Calibration:
    """The distribution of the denoising error over tiles of the training data.

    Attributes
    ----------
    mpp : float or None
        Micrometres per pixel of those tiles; None where it is not known.
    quantiles : tuple of float
        From the least to the largest error, in equal steps of probability.
    tiles : int
        How many there were.
    """

    mpp: float | None
    quantiles: tuple[float, ...]
    tiles: int

    def percentile(self, error: float) -> float:
        """Share of the training tiles whose error was lower, 0 to 100."""
        return float(np.interp(error, self.quantiles, np.linspace(0, 100, len(self.quantiles))))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the card."""
        return asdict(self) | {"quantiles": [round(value, 5) for value in self.quantiles]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """Inverse of `to_dict`."""
        return cls(values["mpp"], tuple(values["quantiles"]), values["tiles"])

    @classmethod
    def of(cls, errors: NDArray[np.float64], *, mpp: float | None) -> Calibration:
        """The distribution of errors."""
        values = np.quantile(errors, np.linspace(0, 1, QUANTILES))
        return cls(mpp, tuple(values.tolist()), len(errors))


def calibrated(
    network: UNet, settings: PretrainSettings, tiles: Tensor, compute: Compute, *, mpp: float | None = None
) -> Calibration:
    """Calibrate a network on tiles of its training data, see `denoising_errors`."""
    return Calibration.of(denoising_errors(network, settings, tiles, compute), mpp=mpp)


@torch.no_grad()
def denoising_errors(
    network: UNet, settings: PretrainSettings, tiles: Tensor, compute: Compute
) -> NDArray[np.float64]:
    """Denoising error of each tile.

    Parameters
    ----------
    network : UNet
        Used in evaluation mode, in which it is left.
    settings : PretrainSettings
        How it was trained.
    tiles : Tensor of float32, shape (n, 3, side, side)
        Clean images in [-1, 1].
    compute : Compute

    Returns
    -------
    ndarray of float64, shape (n,)
        Mean absolute difference between the clean image and what the network makes of the noisy one, both
        smoothed, averaged over `LEVELS`. The noise is the same for every tile and every call.

    Notes
    -----
    The fine part of the error says how much detail an image has rather than how strange it is: it is larger
    on every sharp H&E slide than on NuInsSeg. The coarse part, at strong noise, was chosen on a handful of
    slides; there is no table of it yet (``benchmarks/domain.py`` makes one).
    """
    device = compute.apply()
    network.eval().to(device)
    generator = torch.Generator().manual_seed(0)
    side = tiles.shape[-1]
    noise = torch.randn((1, 3, side, side), generator=generator).to(device)
    hidden = hidden_blocks(1, side, side, share=HIDDEN, block=BLOCK, generator=generator).to(device)
    alpha_bar = alpha_bars(settings.schedule).to(device)
    output = OUTPUTS[settings.objective]
    found = []
    for first in range(0, len(tiles), BATCH):
        x0 = tiles[first : first + BATCH].to(device)
        errors = []
        for level in LEVELS if output != "masked" else (TASK_TIMESTEP,):
            t = torch.full((len(x0),), level, device=device)
            with compute.autocasting():
                if output == "masked":
                    seen = (x0 * (1 - hidden)).contiguous(memory_format=torch.channels_last)
                    estimate = network(seen, t).float()
                else:
                    seen = add_noise(x0, noise.expand_as(x0), alpha_bar[t])
                    seen = seen.contiguous(memory_format=torch.channels_last)
                    estimate = estimate_x0(network, seen, t, alpha_bar, output)
            errors.append(_smoothed(estimate - x0).abs().mean(dim=(1, 2, 3)))
        found.append(torch.stack(errors).mean(dim=0).cpu().double().numpy())
    return np.concatenate(found)


def _smoothed(values: Tensor) -> Tensor:
    radius = min(int(3 * COARSE), values.shape[-1] - 1)
    x = torch.arange(-radius, radius + 1, device=values.device, dtype=values.dtype)
    kernel = torch.exp(-(x**2) / (2 * COARSE**2))
    kernel = (kernel / kernel.sum()).expand(values.shape[1], 1, 1, -1)
    values = F.conv2d(F.pad(values, (radius, radius, 0, 0), mode="reflect"), kernel, groups=values.shape[1])
    padded = F.pad(values, (0, 0, radius, radius), mode="reflect")
    return F.conv2d(padded, kernel.transpose(2, 3), groups=values.shape[1])
