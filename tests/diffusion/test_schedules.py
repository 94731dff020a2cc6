"""Noise schedules against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from napari_genselfdiff.diffusion.schedules import (
    SCHEDULES,
    STEPS,
    add_noise,
    alpha_bars,
    cosine_betas,
    linear_betas,
    quadratic_betas,
)
from napari_genselfdiff.errors import UserError


def test_quadratic_betas_have_linear_square_roots() -> None:
    betas = quadratic_betas().numpy()
    expected = np.linspace(math.sqrt(1e-4), math.sqrt(0.02), 1000) ** 2
    np.testing.assert_allclose(betas, expected, rtol=1e-12)
    # By hand: the middle of the square roots 0.01 and 0.14142 is 0.07571 (between steps 499 and 500).
    assert betas[0] == pytest.approx(1e-4)
    assert betas[-1] == pytest.approx(0.02)
    assert math.sqrt(betas[499]) + math.sqrt(betas[500]) == pytest.approx(0.01 + 0.141421356, abs=1e-8)


def test_linear_betas_are_those_of_ho_et_al() -> None:
    np.testing.assert_allclose(linear_betas().numpy(), np.linspace(1e-4, 0.02, 1000), rtol=1e-12)


def test_cosine_betas_follow_the_paper() -> None:
    def f(t: float) -> float:
        return math.cos((t / STEPS + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = cosine_betas().numpy()
    for t in (1, 2, 500, 900):
        assert betas[t - 1] == pytest.approx(1 - f(t) / f(t - 1), rel=1e-9)
    assert betas[-1] == 0.999  # clipped: alpha_bar would reach 0
    assert alpha_bars("cosine")[499].item() == pytest.approx(f(500) / f(0), rel=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_alpha_bar_falls_strictly_from_nearly_1_to_nearly_0(schedule: str) -> None:
    alpha_bar = alpha_bars(schedule)
    assert alpha_bar.shape == (1000,)
    assert alpha_bar.dtype == torch.float32
    assert (alpha_bar.diff() < 0).all()
    assert 0.999 < alpha_bar[0] < 1
    assert 0 < alpha_bar[-1] < 1e-2


def test_an_unknown_schedule_is_told() -> None:
    with pytest.raises(UserError, match=r"no such noise schedule, sigmoid, use one of: quadratic"):
        alpha_bars("sigmoid")


def test_noise_is_mixed_in_by_the_square_roots() -> None:
    x0, noise = torch.full((2, 1, 1, 1), 0.5), torch.full((2, 1, 1, 1), -1.0)
    mixed = add_noise(x0, noise, torch.tensor([0.64, 0.36]))
    np.testing.assert_allclose(mixed.flatten().numpy(), [0.8 * 0.5 - 0.6, 0.6 * 0.5 - 0.8], rtol=1e-6)
