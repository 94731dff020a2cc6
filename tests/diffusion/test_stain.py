"""Optical densities and their jitter."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from napari_genselfdiff.diffusion.stain import densities, jitter


def tissue(count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand((count, 3, 8, 8), generator=generator) * 1.6 - 0.9


def test_densities_are_those_of_ruifrok_and_johnston() -> None:
    """Beer-Lambert by hand: light that has passed 0.8 of haematoxylin and 0.5 of eosin."""
    haematoxylin, eosin = (np.array(v) / np.linalg.norm(v) for v in ([0.65, 0.70, 0.29], [0.07, 0.99, 0.11]))
    rgb = 256 * np.exp(-(0.8 * haematoxylin + 0.5 * eosin)) - 1
    image = torch.tensor(rgb / 127.5 - 1, dtype=torch.float32)[None, :, None, None]
    np.testing.assert_allclose(densities(image).ravel(), [0.8, 0.5, 0], atol=1e-5)


def test_white_has_no_stain() -> None:
    assert densities(torch.ones(1, 3, 4, 4)).abs().max() < 1e-5


def test_jitter_of_no_strength_changes_nothing() -> None:
    images = tissue()
    same = jitter(images, torch.Generator().manual_seed(1), strength=0, shift=0)
    torch.testing.assert_close(same, images, atol=1e-4, rtol=0)


def test_each_image_gets_a_stain_of_its_own_that_the_seed_decides() -> None:
    images = tissue(1).expand(2, -1, -1, -1)
    first = jitter(images, torch.Generator().manual_seed(1), strength=0.3, shift=0.05)
    again = jitter(images, torch.Generator().manual_seed(1), strength=0.3, shift=0.05)
    other = jitter(images, torch.Generator().manual_seed(2), strength=0.3, shift=0.05)
    assert torch.equal(first, again)
    assert (first[0] - first[1]).abs().max() > 0.01
    assert (first - other).abs().max() > 0.01
    assert first.abs().max() <= 1
