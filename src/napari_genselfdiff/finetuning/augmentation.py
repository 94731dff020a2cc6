"""Changes of stain and light that a segmenter should not mind."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.diffusion.stain import STAINS, UNMIX


def jitter_stain(
    rgb: NDArray[np.uint8], rng: np.random.Generator, *, strength: float = 0.15, shift: float = 0.03
) -> NDArray[np.uint8]:
    """Vary the amount of each stain (Tellez et al. 2018, HED-light).

    Parameters
    ----------
    rgb : ndarray of uint8, shape (height, width, 3)
    rng : numpy.random.Generator
    strength, shift : float
        Each stain's optical density is multiplied by a number in ``1 +- strength``, and a number in
        ``+- shift`` is added.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
    """
    factor = rng.uniform(1 - strength, 1 + strength, 3).astype(np.float32)
    offset = rng.uniform(-shift, shift, 3).astype(np.float32)
    # One matrix does unmixing, scaling and mixing.
    matrix = (UNMIX * factor) @ STAINS
    density = -np.log((rgb.astype(np.float32) + 1) / 256)
    changed = density @ matrix + offset @ STAINS
    return (np.exp(-changed) * 256 - 1).round().clip(0, 255).astype(np.uint8)
