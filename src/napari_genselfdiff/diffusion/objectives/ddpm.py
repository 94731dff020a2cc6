"""Denoising diffusion (Ho et al. 2020, arXiv 2006.11239): predict the noise."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_genselfdiff.diffusion import stain
from napari_genselfdiff.diffusion.draws import noise_like, per_image
from napari_genselfdiff.diffusion.objectives.base import Objective, ObjectiveOptions
from napari_genselfdiff.diffusion.schedules import add_noise, alpha_bars
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.errors import UserError

MIN_SNR_GAMMA = 5.0


def loss_weights(alpha_bar: Tensor, weighting: str) -> Tensor:
    """Weight of the squared epsilon error at each time step.

    Parameters
    ----------
    alpha_bar : Tensor, shape (steps,)
    weighting : {"p2", "min-snr", "flat"}
        ``p2``: ``1 / (k + SNR)^gamma`` with k = gamma = 1 (Choi et al. 2022, arXiv 2204.00227).
        ``min-snr``: ``min(SNR, 5) / SNR`` (Hang et al. 2023, arXiv 2303.09556). ``flat``: 1.

    Returns
    -------
    Tensor, shape (steps,)
    """
    snr = alpha_bar / (1 - alpha_bar)
    if weighting == "p2":
        return 1 / (1 + snr)
    if weighting == "min-snr":
        return snr.clamp(max=MIN_SNR_GAMMA) / snr
    if weighting == "flat":
        return torch.ones_like(snr)
    raise UserError("there is no such loss weighting", weighting, "use p2, min-snr or flat")


def ddpm(options: ObjectiveOptions) -> Objective:
    """Predict the noise (epsilon); with the default options the objective of arXiv 2309.01487."""
    alpha_bar = alpha_bars(options.schedule)
    weights = loss_weights(alpha_bar, options.weighting)

    def loss(network: UNet, x0: Tensor, generator: torch.Generator) -> Tensor:
        if options.stain:
            x0 = stain.jitter(x0, generator, strength=options.stain, shift=options.stain / 5)
        # Drawn on the CPU, so that a seed gives the same noise whatever the device.
        t = per_image(lambda n: torch.randint(len(alpha_bar), (n,), generator=generator), len(x0), generator)
        noise = noise_like(x0, generator)
        x_t = add_noise(x0, noise, alpha_bar[t].to(x0))
        x_t = x_t.contiguous(memory_format=torch.channels_last)
        error = (network(x_t, t.to(x0.device)).float() - noise).square().mean(dim=(1, 2, 3))
        loss: Tensor = (weights[t].to(x0) * error).mean()
        return loss

    return loss
