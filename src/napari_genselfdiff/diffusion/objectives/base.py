"""What every objective is given and what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from napari_genselfdiff.diffusion.draws import per_image
from napari_genselfdiff.diffusion.unet import UNet

Objective = Callable[[UNet, Tensor, torch.Generator], Tensor]
"""``(network, x0, generator) -> loss`` with clean images ``x0``, shape (n, 3, height, width), in [-1, 1].

What it draws for an image it draws with `per_image`, and the loss is a mean over the images, so that several
processes can share a batch. One that is an ``nn.Module`` may have weights of its own, which are trained along
but are not part of the pretext.
"""

TASK_TIMESTEP = 50
"""Time step at which the downstream task shows its clean images."""


@dataclass(frozen=True)
class ObjectiveOptions:
    """What an objective may ask for.

    Attributes
    ----------
    level_widths : tuple of int
        Channels of the levels of the network's decoder, see `UNet.pyramid`.
    schedule : str
        Name of the noise schedule.
    weighting : str
        Weight of the error at each time step, see `ddpm.loss_weights`.
    stain : float
        Strength of the stain jitter of the inputs; 0 for none. The shift is a fifth of it.
    """

    level_widths: tuple[int, ...] = ()
    schedule: str = "quadratic"
    weighting: str = "p2"
    stain: float = 0.0


def hidden_blocks(
    count: int, height: int, width: int, *, share: float, block: int, generator: torch.Generator
) -> Tensor:
    """Where square blocks of an image are hidden.

    Parameters
    ----------
    count, height, width : int
        Number of masks and their size in pixels, multiples of ``block``.
    share : float
        Chance of a block to be hidden.
    block : int
        Side of a block in pixels.
    generator : torch.Generator

    Returns
    -------
    Tensor of float32, shape (count, 1, height, width)
        1 where hidden, else 0.
    """
    size = 1, height // block, width // block
    drawn = per_image(lambda images: torch.rand((images, *size), generator=generator), count, generator)
    return nn.functional.interpolate((drawn < share).float(), scale_factor=block)
