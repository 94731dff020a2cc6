"""Masked diffusion: blocks of a clean image are hidden and painted in."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_genselfdiff.diffusion import stain
from napari_genselfdiff.diffusion.objectives.base import (
    TASK_TIMESTEP,
    Objective,
    ObjectiveOptions,
    hidden_blocks,
)
from napari_genselfdiff.diffusion.unet import UNet

BLOCK = 16
LEAST_HIDDEN, MOST_HIDDEN = 0.5, 0.75
SSIM_WINDOW = 7
C1, C2 = 0.01**2 * 4, 0.03**2 * 4  # (0.01 L)^2 and (0.03 L)^2; the range L of [-1, 1] is 2


def masked(options: ObjectiveOptions) -> Objective:
    """Paint in the hidden blocks of an image; L1 and SSIM (after Pan et al. 2023, MDM, arXiv 2308.05695).

    In place of Gaussian noise, a share of the blocks that is drawn for each batch is hidden. Inputs are
    otherwise clean, so the network's time step is that of the downstream task.
    """

    def loss(network: UNet, x0: Tensor, generator: torch.Generator) -> Tensor:
        if options.stain:
            x0 = stain.jitter(x0, generator, strength=options.stain, shift=options.stain / 5)
        share = LEAST_HIDDEN + (MOST_HIDDEN - LEAST_HIDDEN) * torch.rand(1, generator=generator).item()
        count, _, height, width = x0.shape
        hidden = hidden_blocks(count, height, width, share=share, block=BLOCK, generator=generator).to(x0)
        visible = (x0 * (1 - hidden)).contiguous(memory_format=torch.channels_last)
        painted = network(visible, torch.full((1,), TASK_TIMESTEP, device=x0.device)).float()
        absolute: Tensor = (painted - x0).abs().mean()
        return absolute + 1 - ssim(painted, x0)

    return loss


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004, equation 13) over 7 x 7 windows, averaged.

    Parameters
    ----------
    a, b : Tensor, shape (n, channels, height, width)
        In [-1, 1].

    Returns
    -------
    Tensor, shape ()
        At most 1, for equal images.
    """

    def local(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, SSIM_WINDOW, stride=1)

    mean_a, mean_b = local(a), local(b)
    variance_a, variance_b = local(a * a) - mean_a**2, local(b * b) - mean_b**2
    covariance = local(a * b) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    return (likeness / ((mean_a**2 + mean_b**2 + C1) * (variance_a + variance_b + C2))).mean()
