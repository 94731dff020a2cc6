"""Denoising into features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.diffusion.objectives.base import TASK_TIMESTEP, ObjectiveOptions
from napari_genselfdiff.diffusion.objectives.features import Features, feature_maps
from napari_genselfdiff.diffusion.stain import densities, jitter
from napari_genselfdiff.diffusion.unet import UNet

TINY = replace(COMPACT, name="tiny", widths=(8, 16), full_width=8)


def tissue(count: int = 4, size: int = 64) -> Tensor:
    """Smooth random colours."""
    small = torch.rand((count, 3, size // 8, size // 8), generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(small, size=(size, size), mode="bicubic").clamp(0, 1) * 1.6 - 0.8


def test_the_maps_are_what_scipy_measures() -> None:
    images = tissue(1)
    maps = feature_maps(images, scales=1)[0][0].numpy()
    density = densities(images)[0, 0].numpy()
    values = (density - density.mean()) / (density.std(ddof=1) + 0.05)
    inner = np.s_[12:-12, 12:-12]

    smooth = ndimage.gaussian_filter(values, 1, truncate=3)
    np.testing.assert_allclose(maps[0][inner], smooth[inner], atol=1e-4)
    dy, dx = np.gradient(smooth)
    np.testing.assert_allclose(maps[3][inner], np.hypot(dy, dx)[inner], atol=1e-3)
    (dyy, dyx), (_, dxx) = np.gradient(dy), np.gradient(dx)
    hessian = np.stack([dyy, dyx, dyx, dxx], axis=-1).reshape(*dyy.shape, 2, 2)
    smaller, larger = np.moveaxis(np.linalg.eigvalsh(hessian), -1, 0)
    np.testing.assert_allclose(maps[6][inner], larger[inner], atol=1e-3)
    np.testing.assert_allclose(maps[9][inner], smaller[inner], atol=1e-3)
    squares = ndimage.gaussian_filter(values**2, 1, truncate=3)
    deviation = np.sqrt(np.maximum(squares - smooth**2, 1e-6))
    np.testing.assert_allclose(maps[12][inner], deviation[inner], atol=2e-3)


def test_every_scale_has_half_the_resolution() -> None:
    shapes = [tuple(maps.shape) for maps in feature_maps(tissue(2), scales=3)]
    assert shapes == [(2, 15, 64, 64), (2, 15, 32, 32), (2, 15, 16, 16)]


def test_the_targets_hardly_notice_the_stain() -> None:
    images = tissue(8)
    stained = jitter(images, torch.Generator().manual_seed(3), strength=0.3, shift=0.1)
    plain, changed = (feature_maps(x, scales=1)[0][:, :2] for x in (images, stained))
    assert (plain - changed).abs().mean() < 0.1 * plain.std()
    assert (images - stained).abs().mean() > 0.05


def test_the_network_sees_noise_hidden_blocks_and_clean_images_at_the_time_step_of_the_task() -> None:
    network = UNet(TINY)
    objective = Features(ObjectiveOptions(network.level_widths))
    clean = tissue(8)
    shown, t = objective._shown(clean, torch.Generator().manual_seed(0))
    assert t[::4].tolist() == [TASK_TIMESTEP] * 2
    hidden = (shown == 0).all(dim=1)
    share = hidden.float().mean(dim=(1, 2))
    assert (share[1::2] == 0).all()
    assert (share[::2] > 0.1).all()
    visible = ~hidden[0].expand(3, -1, -1)
    assert torch.equal(shown[0][visible], clean[0][visible])
    assert (shown[1] - clean[1]).abs().mean() > 1e-3


def test_it_learns_and_every_level_of_the_decoder_gets_a_gradient() -> None:
    torch.manual_seed(0)
    network = UNet(TINY)
    objective = Features(ObjectiveOptions(network.level_widths, stain=0.1))
    optimizer = torch.optim.Adam([*network.parameters(), *objective.parameters()], lr=3e-3)
    losses = []
    for step in range(30):
        loss = objective(network, tissue(), torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
