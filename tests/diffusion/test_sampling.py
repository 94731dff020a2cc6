"""DDIM: images from noise."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.diffusion.sampling import ddim_sample
from napari_genselfdiff.diffusion.schedules import alpha_bars
from napari_genselfdiff.diffusion.unet import UNet


class Oracle(nn.Module):
    """Knows the clean image, and so the noise in whatever it is shown."""

    def __init__(self, x0: Tensor, schedule: str) -> None:
        super().__init__()
        self.x0, self.alpha_bar = x0, alpha_bars(schedule)
        self.times: list[int] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (len(x),)
        self.times.append(int(t[0]))
        alpha_bar = self.alpha_bar[t][:, None, None, None]
        return (x - alpha_bar.sqrt() * self.x0) / (1 - alpha_bar).sqrt()


def test_a_network_that_knows_the_noise_recovers_the_image() -> None:
    x0 = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9
    for schedule, steps in (("quadratic", 20), ("linear", 7), ("quadratic", 1)):
        oracle = Oracle(x0, schedule)
        images = ddim_sample(oracle, count=2, size=16, steps=steps, schedule=schedule)
        torch.testing.assert_close(images, x0, atol=1e-3, rtol=0)
        assert len(oracle.times) == steps
        assert oracle.times[0] == 999
        assert oracle.times == sorted(oracle.times, reverse=True)


def test_images_are_in_range_and_follow_the_seed() -> None:
    torch.manual_seed(0)
    network = UNet(replace(COMPACT, widths=(8, 16), full_width=8)).eval()
    first, again, other = (ddim_sample(network, count=3, size=16, steps=5, seed=s) for s in (1, 1, 2))
    assert first.shape == (3, 3, 16, 16)
    assert first.dtype == torch.float32
    assert first.abs().max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
