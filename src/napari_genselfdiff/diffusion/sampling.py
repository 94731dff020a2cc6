"""Images from noise with DDIM (Song et al. 2021, arXiv 2010.02502)."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from napari_genselfdiff.diffusion.schedules import alpha_bars

Denoiser = Literal["epsilon", "x0"]
"""What a network says of a noisy image: the noise in it, or the clean image."""


def estimate_x0(network: nn.Module, x: Tensor, t: Tensor, alpha_bar: Tensor, prediction: Denoiser) -> Tensor:
    """Clean images that a network sees in noisy ones, in one step.

    Parameters
    ----------
    network : nn.Module
        Predicts ``prediction`` from ``(x, t)``.
    x : Tensor, shape (n, 3, height, width)
        Noisy images.
    t : Tensor of int, shape (n,)
        Their time steps.
    alpha_bar : Tensor, shape (steps,)
        Of the whole schedule.
    prediction : {"epsilon", "x0"}

    Returns
    -------
    Tensor of float32, shape (n, 3, height, width)
        In [-1, 1]: the estimate is clamped, as Ho et al. do.
    """
    output = cast(Tensor, network(x, t)).float()
    if prediction == "epsilon":
        now = alpha_bar[t][:, None, None, None]
        output = (x - (1 - now).sqrt() * output) / now.sqrt()
    return output.clamp(-1, 1)


@torch.inference_mode()
def ddim_sample(
    network: nn.Module,
    *,
    count: int,
    size: int,
    steps: int = 50,
    schedule: str = "quadratic",
    prediction: Denoiser = "epsilon",
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw images from a pretext network, deterministically after the first noise (eta = 0).

    Parameters
    ----------
    network : nn.Module
        Predicts ``prediction`` from ``(x_t, t)``.
    count, size : int
        Number of images and their side in pixels.
    steps : int
        Denoising steps, at most 1000.
    schedule : str
        The noise schedule that the network was trained with.
    prediction : {"epsilon", "x0"}
        What the network's output means.
    seed : int
        Seed of the first noise.
    device : torch.device or str

    Returns
    -------
    Tensor of float32, shape (count, 3, size, size)
        Images in [-1, 1].

    Notes
    -----
    Equation 12 of the paper with sigma = 0, from the clamped estimate of the clean image.
    """
    alpha_bar = alpha_bars(schedule).to(device)
    times = torch.linspace(len(alpha_bar) - 1, 0, steps, device=device).round().long()
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((count, 3, size, size), generator=generator).to(device)
    x = x.contiguous(memory_format=torch.channels_last)
    for index, t in enumerate(times):
        now = alpha_bar[t]
        after = alpha_bar[times[index + 1]] if index + 1 < steps else torch.ones_like(now)
        x0 = estimate_x0(network, x, t[None].expand(count), alpha_bar, prediction)
        # The noise that is consistent with the clamped image keeps the trajectory on the schedule.
        noise = (x - now.sqrt() * x0) / (1 - now).sqrt()
        x = after.sqrt() * x0 + (1 - after).sqrt() * noise
    return x
