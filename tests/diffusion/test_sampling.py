"""DDIM: images from noise, whatever the network says of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.diffusion.sampling import Denoiser, ddim_sample, estimate_x0
from napari_genselfdiff.diffusion.schedules import add_noise, alpha_bars
from napari_genselfdiff.diffusion.unet import UNet


class Oracle(nn.Module):
    """Knows the clean image, and so the noise in whatever it is shown; says either."""

    def __init__(self, x0: Tensor, schedule: str, prediction: Denoiser = "epsilon") -> None:
        super().__init__()
        self.x0, self.alpha_bar, self.prediction = x0, alpha_bars(schedule), prediction
        self.times: list[int] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (len(x),)
        self.times.append(int(t[0]))
        if self.prediction == "x0":
            return self.x0
        alpha_bar = self.alpha_bar[t][:, None, None, None]
        return (x - alpha_bar.sqrt() * self.x0) / (1 - alpha_bar).sqrt()


@pytest.mark.parametrize("prediction", ["epsilon", "x0"])
def test_a_network_that_knows_the_truth_recovers_the_image(prediction: Denoiser) -> None:
    x0 = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9
    for schedule, steps in (("quadratic", 20), ("linear", 7), ("quadratic", 1)):
        oracle = Oracle(x0, schedule, prediction)
        images = ddim_sample(oracle, count=2, size=16, steps=steps, schedule=schedule, prediction=prediction)
        torch.testing.assert_close(images, x0, atol=1e-3, rtol=0)
        assert len(oracle.times) == steps
        assert oracle.times[0] == 999
        assert oracle.times == sorted(oracle.times, reverse=True)


def test_what_a_network_says_is_not_taken_for_the_other_thing() -> None:
    x0 = torch.full((1, 3, 16, 16), 0.5)
    misread = ddim_sample(Oracle(x0, "quadratic", "x0"), count=1, size=16, steps=5, prediction="epsilon")
    assert (misread - x0).abs().mean() > 0.1


@pytest.mark.parametrize("prediction", ["epsilon", "x0"])
def test_one_step_takes_away_the_noise_of_each_image(prediction: Denoiser) -> None:
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(3, 3, 16, 16, generator=generator) * 1.8 - 0.9
    t, alpha_bar = torch.tensor([10, 300, 900]), alpha_bars("cosine")
    noisy = add_noise(x0, torch.randn(x0.shape, generator=generator), alpha_bar[t])
    estimate = estimate_x0(Oracle(x0, "cosine", prediction), noisy, t, alpha_bar, prediction)
    torch.testing.assert_close(estimate, x0, atol=1e-3, rtol=0)


def test_an_estimate_is_clamped_to_the_range_of_images() -> None:
    bright = torch.full((1, 3, 16, 16), 1.7)
    t, alpha_bar = torch.tensor([300]), alpha_bars("quadratic")
    for prediction in ("epsilon", "x0"):
        oracle = Oracle(bright, "quadratic", prediction)
        assert estimate_x0(oracle, torch.zeros_like(bright), t, alpha_bar, prediction).max() == 1


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
