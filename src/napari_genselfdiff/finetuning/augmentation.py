"""Changes of stain, light and focus that a segmenter should not mind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_genselfdiff.diffusion.stain import STAINS, UNMIX

RADIUS = 1.0
"""Gaussian sigma in pixels of the detail that is sharpened."""
LEAST_BLUR = 0.3
GRAIN = (0.6, 2.5)
"""Gaussian sigma in pixels of the texture."""


@dataclass(frozen=True)
class Appearance:
    """How far the look of an image may change; all are in optical density but for the blur.

    Attributes
    ----------
    strength, shift : float
        Each stain's optical density is multiplied by a number in ``1 +- strength``, and a number in
        ``+- shift`` is added (Tellez et al. 2018, HED-light, and wider).
    gain : float
        All is multiplied by a number between ``exp(-gain)`` and ``exp(gain)``: a thinner or thicker section.
    exposure, tint : float
        A number in ``+- exposure`` is added to all, and one in ``+- tint`` to each of red, green and blue:
        the lamp and the white balance.
    sharpness : float
        Every second image is sharpened (unsharp mask) by up to this much: scanners do it, more or less.
    blur : float
        Every fourth image is blurred, by a Gaussian of at most this sigma in pixels.
    texture : float
        Every second image's optical density is multiplied by the exponential of smooth noise (sigma 0.6 to
        2.5 pixels) with a standard deviation of up to this: chromatin, for training images that are too
        blurred to show it.
    """

    strength: float = 0.4
    shift: float = 0.1
    gain: float = 0.3
    exposure: float = 0.25
    tint: float = 0.06
    sharpness: float = 2.5
    blur: float = 1.0
    texture: float = 0.0


def vary_appearance(
    rgb: NDArray[np.uint8], rng: np.random.Generator, appearance: Appearance | None = None
) -> NDArray[np.uint8]:
    """Vary stain, light and focus at random.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (height, width, 3)
    rng : numpy.random.Generator
    appearance : Appearance, optional

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
    """
    how = appearance or Appearance()
    factor = rng.uniform(1 - how.strength, 1 + how.strength, 3)
    offset = rng.uniform(-how.shift, how.shift, 3)
    gain = np.exp(rng.uniform(-how.gain, how.gain))
    light = rng.uniform(-how.exposure, how.exposure) + rng.uniform(-how.tint, how.tint, 3)
    # One matrix does unmixing, scaling and mixing.
    matrix = ((UNMIX * factor) @ STAINS * gain).astype(np.float32)
    density = -np.log((rgb.astype(np.float32) + 1) / 256)
    density = density @ matrix + (offset @ STAINS * gain + light).astype(np.float32)
    focus, amount = rng.random(), rng.random()
    if focus < 0.5 and how.sharpness:
        detail = density - ndimage.gaussian_filter(density, (RADIUS, RADIUS, 0))
        density += detail * np.float32(amount * how.sharpness)
    elif 0.5 <= focus < 0.75 and how.blur:
        sigma = LEAST_BLUR + amount * (how.blur - LEAST_BLUR)
        density = ndimage.gaussian_filter(density, (sigma, sigma, 0))
    if how.texture and rng.random() < 0.5:
        noise = rng.standard_normal(density.shape[:2])
        noise = ndimage.gaussian_filter(noise, np.exp(rng.uniform(*np.log(GRAIN))))
        amount = rng.uniform(0, how.texture)
        density *= np.exp(amount / noise.std() * noise).astype(np.float32)[..., None]
    return (np.exp(-density) * 256 - 1).round().clip(0, 255).astype(np.uint8)
