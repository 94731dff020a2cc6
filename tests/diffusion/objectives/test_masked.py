"""Painting in hidden blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from napari_genselfdiff.diffusion.objectives.base import TASK_TIMESTEP, ObjectiveOptions, hidden_blocks
from napari_genselfdiff.diffusion.objectives.masked import masked, ssim


class Oracle(nn.Module):
    """Knows the clean image, and remembers what it was shown."""

    def __init__(self, clean: Tensor, wrong: float = 0.0) -> None:
        super().__init__()
        self.clean, self.wrong = clean, wrong

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.x, self.t = x, t
        return self.clean + self.wrong


def images(count: int = 4, size: int = 64) -> Tensor:
    return torch.rand((count, 3, size, size), generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9


def test_ssim_is_that_of_scikit_image() -> None:
    a = images(1)[0]
    b = (a + 0.3 * torch.randn(a.shape, generator=torch.Generator().manual_seed(1))).clamp(-1, 1)
    expected = structural_similarity(
        a.numpy(), b.numpy(), channel_axis=0, data_range=2, win_size=7, use_sample_covariance=False
    )
    assert ssim(a[None], b[None]).item() == pytest.approx(expected, abs=1e-4)
    assert ssim(a[None], a[None]).item() == pytest.approx(1)


def test_whole_blocks_of_a_share_between_a_half_and_three_quarters_are_hidden() -> None:
    clean = images(16)
    network = Oracle(clean)
    for seed in range(5):
        masked(ObjectiveOptions())(network, clean, torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
        hidden = (network.x == 0).all(dim=1)
        blocks = hidden.unflatten(1, (4, 16)).unflatten(3, (4, 16)).float().mean(dim=(2, 4))
        assert ((blocks == 0) | (blocks == 1)).all()
        assert 0.4 < blocks.mean() < 0.85
        shown = ~hidden[:, None].expand_as(clean)
        assert torch.equal(network.x[shown], clean[shown])
        assert network.t.tolist() == [TASK_TIMESTEP]


def test_the_loss_is_0_for_the_clean_image_and_counts_errors_everywhere() -> None:
    clean = images()
    objective = masked(ObjectiveOptions())

    def loss(wrong: float) -> float:
        network = Oracle(clean, wrong)
        return objective(network, clean, torch.Generator().manual_seed(0)).item()  # type: ignore[arg-type]

    assert loss(0) == pytest.approx(0, abs=1e-5)
    assert loss(0.2) > 0.2  # L1 alone is 0.2


def test_hidden_blocks_have_the_share_that_was_asked_for() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = hidden_blocks(50, 64, 32, share=0.3, block=8, generator=generator)
    assert mask.shape == (50, 1, 64, 32)
    assert set(np.unique(mask)) == {0, 1}
    assert mask.mean().item() == pytest.approx(0.3, abs=0.03)
