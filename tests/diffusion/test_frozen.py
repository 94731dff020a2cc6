"""Features of pixels from networks that are not trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_genselfdiff.diffusion.config import COMPACT, PAPER, UNetConfig
from napari_genselfdiff.diffusion.folding import folded
from napari_genselfdiff.diffusion.frozen import Levels, frozen_levels, image_levels, margin_for
from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.diffusion.unet import UNet

SMALL = replace(COMPACT, widths=(8, 16, 24), full_width=8)
SMALL_PAPER = replace(PAPER, widths=(8, 16, 16))
SIDE = 96


def network(config: UNetConfig) -> UNet:
    torch.manual_seed(0)
    return folded(UNet(config).eval(), 50)


def image(net: UNet) -> torch.Tensor:
    side = SIDE + 2 * margin_for(net)
    return torch.rand((1, 3, side, side), generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.inference_mode()
def levels(net: UNet, x: torch.Tensor) -> Levels:
    return frozen_levels(net, x.contiguous(), 50, margin=margin_for(net))


@pytest.mark.parametrize("config", [SMALL, SMALL_PAPER], ids=["compact", "paper"])
def test_every_level_of_the_decoder_and_what_is_measured_are_there(config: UNetConfig) -> None:
    net = network(config)
    found = levels(net, image(net))
    assert found.shape == (SIDE, SIDE)
    assert found.strides == (config.stride, *(config.stride >> k for k in range(1, len(found.strides))))
    assert found.strides[-1] == 1
    # Five measures of three channels at every resolution, and the colour of the pixel itself.
    assert found.width == sum(net.level_widths) + 3 + 15 * len(found.strides) + 3
    assert found.nbytes < 2 * found.width * SIDE**2


def test_a_linear_map_of_the_levels_is_that_of_the_features_of_each_pixel() -> None:
    net = network(SMALL)
    found = levels(net, image(net))
    weights, bias = torch.randn(4, found.width), torch.randn(4)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    pixels = found.at(rows.flatten(), columns.flatten()) @ weights.T + bias
    mapped = found.mapped(weights, bias)
    np.testing.assert_allclose(pixels.T.reshape(mapped.shape), mapped, atol=1e-4)


def test_a_part_of_the_levels_says_the_same() -> None:
    net = network(SMALL)
    found = levels(net, image(net))
    weights, bias = torch.randn(4, found.width), torch.randn(4)
    whole = found.mapped(weights, bias)
    for top, left, bottom, right in ((0, 0, SIDE, SIDE), (13, 30, 41, 31), (90, 3, 96, 50)):
        part, y, x = found.around(top, left, bottom, right)
        assert y <= top
        assert x <= left
        assert part.shape[0] < bottom - top + 2 * found.strides[0]
        here = part.mapped(weights, bias)[:, top - y : bottom - y, left - x : right - x]
        np.testing.assert_allclose(here, whole[:, top:bottom, left:right], atol=1e-5)


def test_the_finest_features_are_the_networks_own() -> None:
    net = network(SMALL)
    x = image(net)
    with torch.inference_mode():
        expected = net.features(x, torch.tensor([50]), margin=margin_for(net))[0]
    found = levels(net, x).maps[-1][: net.feature_width].float()
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_features_do_not_depend_on_how_an_image_is_cut() -> None:
    net = network(SMALL)
    x, part = image(net), (16, 48)
    whole = levels(net, x)
    side = 32 + 2 * margin_for(net)
    cut = levels(net, x[..., part[0] : part[0] + side, part[1] : part[1] + side])
    weights, bias = torch.randn(4, whole.width), torch.zeros(4)
    inside = whole.mapped(weights, bias)[:, part[0] : part[0] + 32, part[1] : part[1] + 32]
    np.testing.assert_allclose(cut.mapped(weights, bias), inside, atol=0.02)


def test_parts_can_be_left_out() -> None:
    net = network(SMALL)
    x, margin = image(net), margin_for(net)
    with torch.inference_mode():
        known = frozen_levels(net, x, 50, margin=margin, says=False, measures=False)
        finest = frozen_levels(net, x, 50, margin=margin, known=1, says=False, measures=False)
        said = frozen_levels(net, x, 50, margin=margin, known=0, measures=False)
        measured = frozen_levels(net, x, 50, margin=margin, known=0, says=False)
        expected = net(x, torch.tensor([50]), margin=margin)[0]
    assert known.width == sum(net.level_widths)
    assert (finest.width, finest.strides) == (net.feature_width, (1,))
    assert known.width + said.width + measured.width == levels(net, x).width
    np.testing.assert_allclose(said.maps[0].float(), expected, atol=2e-3)


def test_an_image_of_any_size_is_seen_with_its_own_mirror_image() -> None:
    net, margin = network(SMALL), margin_for(network(SMALL))
    rgb = np.random.default_rng(0).integers(0, 255, (37, 50, 3)).astype(np.uint8)
    with torch.inference_mode():
        found = image_levels(net, rgb, 50)
    stride = SMALL.stride
    assert found.shape == (-(-37 // stride) * stride, -(-50 // stride) * stride)
    grown = np.pad(
        rgb, ((margin, margin + -37 % stride), (margin, margin + -50 % stride), (0, 0)), "symmetric"
    )
    expected = levels(net, to_unit_range(grown[None]))
    for a, b in zip(found.maps, expected.maps, strict=True):
        np.testing.assert_allclose(a.float(), b.float(), atol=2e-3)
