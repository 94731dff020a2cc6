"""The pretext's loss against hand computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_genselfdiff.diffusion.draws import noise_like
from napari_genselfdiff.diffusion.objectives import OBJECTIVES, ObjectiveOptions
from napari_genselfdiff.diffusion.objectives.ddpm import ddpm, loss_weights
from napari_genselfdiff.diffusion.schedules import alpha_bars
from napari_genselfdiff.errors import UserError


class Fixed(nn.Module):
    """Predicts a tenth of its input plus the time step in thousands, and remembers what it was given."""

    x: Tensor
    t: Tensor

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.x, self.t = x, t
        return 0.1 * x + t.float()[:, None, None, None] / 1000


def test_p2_weights_have_the_published_values() -> None:
    alpha_bar = alpha_bars("quadratic")
    weights = loss_weights(alpha_bar, "p2")
    torch.testing.assert_close(weights, 1 - alpha_bar, rtol=1e-3, atol=1e-7)
    assert weights[0].item() == pytest.approx(1e-4, rel=0.01)
    assert weights[50].item() == pytest.approx(0.009, abs=0.0005)
    assert weights[150].item() == pytest.approx(0.063, abs=0.001)
    assert weights[250].item() == pytest.approx(0.18, abs=0.001)


def test_other_weightings() -> None:
    alpha_bar = torch.tensor([0.9, 0.5])  # SNR 9 and 1
    assert loss_weights(alpha_bar, "min-snr").tolist() == pytest.approx([5 / 9, 1])
    assert loss_weights(alpha_bar, "flat").tolist() == [1, 1]
    with pytest.raises(UserError, match="no such loss weighting"):
        loss_weights(alpha_bar, "p3")


@pytest.mark.parametrize(("schedule", "weighting"), [("quadratic", "p2"), ("cosine", "flat")])
def test_the_ddpm_loss_is_the_weighted_squared_error_of_the_noise(schedule: str, weighting: str) -> None:
    x0 = torch.linspace(-1, 1, 3 * 3 * 4 * 4).reshape(3, 3, 4, 4)
    network = Fixed()
    loss = ddpm(ObjectiveOptions(schedule=schedule, weighting=weighting))(
        network, x0, torch.Generator().manual_seed(5)
    )

    # The generator draws the time steps, then the noise.
    generator = torch.Generator().manual_seed(5)
    t = torch.randint(1000, (3,), generator=generator).numpy()
    noise = noise_like(x0, generator).numpy().astype(np.float64)
    if schedule == "quadratic":
        betas = np.linspace(0.01, np.sqrt(0.02), 1000) ** 2
    else:
        f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - f[1:] / f[:-1], 0.999)
    alpha_bar = np.cumprod(1 - betas)[t][:, None, None, None]
    x_t = np.sqrt(alpha_bar) * x0.numpy() + np.sqrt(1 - alpha_bar) * noise
    predicted = 0.1 * x_t + t[:, None, None, None] / 1000
    error = ((predicted - noise) ** 2).mean(axis=(1, 2, 3))
    weight = 1 / (1 + alpha_bar / (1 - alpha_bar)) if weighting == "p2" else np.ones_like(alpha_bar)
    expected = (weight.ravel() * error).mean()

    assert network.t.tolist() == t.tolist()
    np.testing.assert_allclose(network.x.numpy(), x_t, atol=1e-5)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_a_perfect_prediction_costs_nothing_and_seeds_repeat() -> None:
    x0 = torch.zeros(4, 3, 8, 8)
    alpha_bar = alpha_bars("quadratic")

    class Oracle(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return x / (1 - alpha_bar[t])[:, None, None, None].sqrt()  # x0 is 0

    objective = OBJECTIVES["ddpm"](ObjectiveOptions())
    assert objective(Oracle(), x0, torch.Generator().manual_seed(1)).item() < 1e-9
    first, again, other = (objective(Fixed(), x0, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert first == again
    assert first != other
