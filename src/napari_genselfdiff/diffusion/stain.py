"""Haematoxylin and eosin as optical densities, and changes of stain that a network should not mind."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from napari_genselfdiff.diffusion.draws import per_image

# Ruifrok and Johnston 2001: optical density of haematoxylin, eosin and their residual, rows normalised.
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], np.float32)
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)
UNMIX = np.linalg.inv(STAINS).astype(np.float32)


def densities(images: Tensor) -> Tensor:
    """Optical density of haematoxylin, eosin and their residual.

    Parameters
    ----------
    images : Tensor of float32, shape (n, 3, height, width)
        RGB in [-1, 1].

    Returns
    -------
    Tensor of float32, shape (n, 3, height, width)
    """
    rgb = (images + 1) * 127.5
    return torch.einsum("nchw,cd->ndhw", -torch.log((rgb + 1) / 256), torch.from_numpy(UNMIX).to(images))


def jitter(images: Tensor, generator: torch.Generator, *, strength: float, shift: float) -> Tensor:
    """Vary the amount of each stain, for each image by itself (Tellez et al. 2018, HED-light).

    Parameters
    ----------
    images : Tensor of float32, shape (n, 3, height, width)
        RGB in [-1, 1].
    generator : torch.Generator
        On the CPU.
    strength, shift : float
        Each stain's optical density is multiplied by a number in ``1 +- strength``, and a number in
        ``+- shift`` is added.

    Returns
    -------
    Tensor of float32, shape (n, 3, height, width)
        RGB in [-1, 1].
    """

    def draw(count: int) -> Tensor:
        return torch.rand((2, count, 3, 1, 1), generator=generator).transpose(0, 1)

    factor, added = (per_image(draw, len(images), generator) * 2 - 1).to(images).unbind(1)
    changed = densities(images) * (1 + strength * factor) + shift * added
    mixed = torch.einsum("nchw,cd->ndhw", changed, torch.from_numpy(STAINS).to(images))
    return ((torch.exp(-mixed) * 256 - 1) / 127.5 - 1).clamp(-1, 1)
