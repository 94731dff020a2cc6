"""Images from noise with DDIM (Song et al. 2021, arXiv 2010.02502)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_genselfdiff.diffusion.schedules import alpha_bars


@torch.inference_mode()
def ddim_sample(
    network: nn.Module,
    *,
    count: int,
    size: int,
    steps: int = 50,
    schedule: str = "quadratic",
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw images from a pretext network, deterministically after the first noise (eta = 0).

    Parameters
    ----------
    network : nn.Module
        Predicts epsilon from ``(x_t, t)``.
    count, size : int
        Number of images and their side in pixels.
    steps : int
        Denoising steps, at most 1000.
    schedule : str
        The noise schedule that the network was trained with.
    seed : int
        Seed of the first noise.
    device : torch.device or str

    Returns
    -------
    Tensor of float32, shape (count, 3, size, size)
        Images in [-1, 1].

    Notes
    -----
    Equation 12 of the paper with sigma = 0; the predicted clean image is clamped to [-1, 1], as Ho et al. do.
    """
    alpha_bar = alpha_bars(schedule).to(device)
    times = torch.linspace(len(alpha_bar) - 1, 0, steps, device=device).round().long()
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((count, 3, size, size), generator=generator).to(device)
    x = x.contiguous(memory_format=torch.channels_last)
    for index, t in enumerate(times):
        now = alpha_bar[t]
        after = alpha_bar[times[index + 1]] if index + 1 < steps else torch.ones_like(now)
        noise = network(x, t[None].expand(count)).float()
        x0 = ((x - (1 - now).sqrt() * noise) / now.sqrt()).clamp(-1, 1)
        # The noise that is consistent with the clamped image keeps the trajectory on the schedule.
        noise = (x - now.sqrt() * x0) / (1 - now).sqrt()
        x = after.sqrt() * x0 + (1 - after).sqrt() * noise
    return x
