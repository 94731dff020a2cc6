"""Noise schedules of the forward process ``x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps``."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from napari_genselfdiff.errors import UserError

STEPS = 1000
BETA_START, BETA_END = 1e-4, 0.02


def quadratic_betas(steps: int = STEPS) -> Tensor:
    """Betas whose square root grows linearly; the schedule of arXiv 2309.01487."""
    return torch.linspace(BETA_START**0.5, BETA_END**0.5, steps, dtype=torch.float64) ** 2


def linear_betas(steps: int = STEPS) -> Tensor:
    """Linearly growing betas (Ho et al. 2020, arXiv 2006.11239)."""
    return torch.linspace(BETA_START, BETA_END, steps, dtype=torch.float64)


def cosine_betas(steps: int = STEPS, offset: float = 0.008) -> Tensor:
    """Betas of a cosine-shaped alpha_bar (Nichol and Dhariwal 2021, arXiv 2102.09672, equation 17)."""
    x = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    alpha_bar = torch.cos((x + offset) / (1 + offset) * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


SCHEDULES: dict[str, Callable[[], Tensor]] = {
    "quadratic": quadratic_betas,
    "linear": linear_betas,
    "cosine": cosine_betas,
}


def alpha_bars(schedule: str) -> Tensor:
    """Share of the signal's variance that is left at each time step.

    Parameters
    ----------
    schedule : {"quadratic", "linear", "cosine"}

    Returns
    -------
    Tensor of float32, shape (1000,)
        Strictly falling, in (0, 1).

    Raises
    ------
    UserError
        If the schedule is not known.
    """
    if schedule not in SCHEDULES:
        raise UserError("there is no such noise schedule", schedule, f"use one of: {', '.join(SCHEDULES)}")
    return torch.cumprod(1 - SCHEDULES[schedule](), dim=0).float()


def add_noise(x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Noisy images ``x_t`` from clean ones.

    Parameters
    ----------
    x0, noise : Tensor, shape (n, channels, height, width)
        Clean images in [-1, 1] and standard normal noise.
    alpha_bar : Tensor, shape (n,)
        ``alpha_bar`` at the time step of each image.
    """
    alpha_bar = alpha_bar[:, None, None, None]
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise
