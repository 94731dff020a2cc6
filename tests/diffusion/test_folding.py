"""Batch normalisation folded into convolutions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.diffusion.folding import folded
from napari_genselfdiff.diffusion.unet import UNet

SMALL = replace(COMPACT, widths=(8, 16), full_width=8, norm="batch")


def used_network(**changes: object) -> UNet:
    """A network whose normalisation has seen images and whose gains are no longer 1."""
    torch.manual_seed(0)
    network = UNet(replace(SMALL, **changes), 2)  # type: ignore[arg-type]
    with torch.no_grad():
        for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.weight.uniform_(0.5, 2)
            norm.bias.uniform_(-1, 1)
        for step in range(5):
            network(torch.randn(4, 3, 32, 32) + step, torch.randint(1000, (4,)))
    return network.eval()


@pytest.mark.parametrize("time_scale", [True, False])
def test_folding_changes_nothing_at_its_time_step(time_scale: bool) -> None:
    network = used_network(time_scale=time_scale)
    x = torch.rand(2, 3, 64, 96) * 2 - 1
    fast = folded(network, 70)
    assert folded(fast, 70) is fast
    with torch.inference_mode():
        expected = network(x, torch.tensor([70]))
        torch.testing.assert_close(fast(x, torch.tensor([70])), expected, atol=1e-4, rtol=1e-4)
        # The time step matters by more than the tolerance, so the right one was folded in.
        assert (network(x, torch.tensor([600])) - expected).abs().max() > 1e-3


def test_nothing_is_left_to_normalise_and_the_network_is_not_touched() -> None:
    network = used_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fast = folded(network, 50)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_a_network_whose_normalisation_depends_on_the_image_is_left_alone() -> None:
    network = UNet(replace(SMALL, norm="pixel")).eval()
    assert folded(network, 50) is network


def test_a_prediction_does_not_depend_on_what_else_is_in_the_batch() -> None:
    network = used_network()
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    with torch.inference_mode():
        alone, together = network(x[:1], torch.tensor([50])), network(x, torch.tensor([50]))
    torch.testing.assert_close(alone[0], together[0], atol=1e-5, rtol=1e-4)
