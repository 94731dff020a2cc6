"""The U-Net's two configurations."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from napari_genselfdiff.diffusion.config import COMPACT, CONFIGS, PAPER, UNetConfig
from napari_genselfdiff.diffusion.unet import PixelNorm, ResidualBlock, UNet, timestep_embedding

SMALL_PAPER = replace(PAPER, widths=(8, 16, 16))
SMALL_COMPACT = replace(COMPACT, widths=(8, 16), full_width=8)
SMALL_PIXEL = replace(SMALL_COMPACT, norm="pixel")


def seeded(config: UNetConfig, out_channels: int = 3) -> UNet:
    torch.manual_seed(0)
    return UNet(config, out_channels).eval()


@pytest.fixture(scope="module")
def paper() -> UNet:
    """The network without its 31 million numbers."""
    with torch.device("meta"):
        return UNet(PAPER)


def test_paper_is_the_published_network(paper: UNet) -> None:
    assert sum(parameter.numel() for parameter in paper.parameters()) == 31_341_827
    assert PAPER.widths == (64, 128, 256, 512)
    assert PAPER.stride == 8
    blocks = [module for module in paper.modules() if isinstance(module, ResidualBlock)]
    assert len(blocks) == 4 * 2 + 2 + 3 * 2 + 1
    norms = [norm for block in blocks for norm in (block.norm1, block.norm2)]
    assert all(isinstance(norm, nn.GroupNorm) and norm.num_groups == 8 for norm in norms)
    assert [block.conv2.out_channels for block in blocks[1:8:2]] == [64, 128, 256, 512]
    assert [level.attention.linear for level in (*paper.down, *paper.up)] == [True] * 7


def test_gains_of_the_normalisation_start_at_1() -> None:
    for config in (SMALL_PAPER, SMALL_PIXEL, SMALL_COMPACT):
        norms = [
            m for m in seeded(config).modules() if isinstance(m, nn.GroupNorm | nn.BatchNorm2d | PixelNorm)
        ]
        assert norms
        assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms)


def test_compact_is_small_and_free_of_tile_statistics() -> None:
    network = seeded(COMPACT)
    assert sum(parameter.numel() for parameter in network.parameters()) < 4_000_000  # 8 MB in half precision
    assert COMPACT.stride == 16
    assert COMPACT.tile_independent
    assert not PAPER.tile_independent
    assert not any(isinstance(m, nn.GroupNorm) for m in network.modules())


@pytest.mark.parametrize(
    "config", [SMALL_PAPER, SMALL_PIXEL, SMALL_COMPACT, COMPACT], ids=["group", "pixel", "batch", "compact"]
)
def test_outputs_have_the_size_of_the_input(config: UNetConfig) -> None:
    network, s = seeded(config, out_channels=5), config.stride
    x = torch.zeros(2, 3, 2 * s, 3 * s)
    with torch.inference_mode():
        assert network(x, torch.tensor([3, 7])).shape == (2, 5, 2 * s, 3 * s)
        features = network.features(x, torch.tensor([3]))  # one time step for all images
        assert features.shape == (2, network.feature_width, 2 * s, 3 * s)


@pytest.mark.parametrize("config", [SMALL_PAPER, SMALL_PIXEL, SMALL_COMPACT], ids=["group", "pixel", "batch"])
def test_the_time_step_matters(config: UNetConfig) -> None:
    network, x = seeded(config), torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.inference_mode():
        early, late = network(x, torch.tensor([0])), network(x, torch.tensor([900]))
    assert (early - late).abs().max() > 1e-3


def test_the_timestep_embedding_is_the_sinusoidal_one() -> None:
    embedding = timestep_embedding(torch.tensor([0.0, 3.0]), 8).numpy()
    frequencies = 10_000.0 ** (-np.arange(4) / 3)
    expected = np.concatenate([np.sin(3 * frequencies), np.cos(3 * frequencies)])
    np.testing.assert_allclose(embedding[0], [0, 0, 0, 0, 1, 1, 1, 1])
    np.testing.assert_allclose(embedding[1], expected, atol=1e-6)


def test_pixel_norm_looks_at_one_pixel_alone() -> None:
    x = torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    normed = PixelNorm(8)(x)
    pixel = x[1, :, 2, 0].numpy().astype(np.float64)
    expected = (pixel - pixel.mean()) / np.sqrt(pixel.var() + 1e-5)
    np.testing.assert_allclose(normed[1, :, 2, 0].detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    "config", [SMALL_PAPER, SMALL_PIXEL, SMALL_COMPACT, COMPACT], ids=["group", "pixel", "batch", "compact"]
)
def test_the_full_resolution_skip_reaches_the_output(config: UNetConfig) -> None:
    """With all coarser paths silenced, the output still follows single pixels of the input."""
    network = seeded(config)
    with torch.no_grad():
        silenced = network.unshuffled if network.full is not None else network.grow[-1]
        assert isinstance(silenced, nn.Module)
        for parameter in silenced.parameters():
            parameter.zero_()
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    x.requires_grad_()
    network(x, torch.tensor([50]))[0, 0, 16, 16].backward()
    assert x.grad is not None
    influence = x.grad.abs().sum(dim=1)[0]
    assert influence[16, 16] > 1e-3
    if network.full is not None:  # the last convolution sees a neighbourhood of 3 x 3 pixels, and no more
        influence[15:18, 15:18] = 0
        assert (influence == 0).all()


def test_a_pattern_of_single_pixels_changes_the_output_of_compact_there() -> None:
    """A checkerboard has no trace at half the resolution of the stem's averaging; the skip must carry it."""
    network = seeded(COMPACT)
    x = torch.zeros(1, 3, 64, 64)
    x[:, :, 32, 32] = 1
    with torch.inference_mode():
        change = (network(x, torch.tensor([50])) - network(torch.zeros_like(x), torch.tensor([50]))).abs()
    change = change.amax(dim=1)[0]
    assert change[32, 32] > 0.01
    assert change[32, 32] > 3 * change.mean()


def changed_far_away(config: UNetConfig, side: int, radius: int) -> float:
    """Difference of the output's centre when everything further away than a radius is replaced."""
    network, middle = seeded(config), side // 2
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(1, 3, side, side, generator=generator) * 2 - 1
    other = torch.rand(1, 3, side, side, generator=generator) * 0.2 + 0.8
    near = np.s_[..., middle - radius : middle + radius, middle - radius : middle + radius]
    other[near] = x[near]
    with torch.inference_mode():
        outputs = [network(image, torch.tensor([50]))[..., middle, middle] for image in (x, other)]
    return float((outputs[0] - outputs[1]).abs().max())


def test_compact_does_not_see_what_else_is_in_the_tile() -> None:
    # Its theoretical field of view ends 173 pixels away.
    assert changed_far_away(COMPACT, side=448, radius=176) < 1e-6


def test_group_norm_sees_the_whole_tile() -> None:
    """Proves that the test above can fail."""
    group = replace(SMALL_PAPER, attention=False, blocks=1)
    assert changed_far_away(group, side=256, radius=112) > 1e-3
    assert changed_far_away(replace(group, norm="pixel"), side=256, radius=112) < 1e-6


def test_a_tile_moved_by_the_stride_gives_the_same_pixels() -> None:
    network, s = seeded(SMALL_COMPACT), SMALL_COMPACT.stride
    image = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        first = network(image[..., :128, :128], torch.tensor([50]))
        moved = network(image[..., s : 128 + s, 2 * s : 128 + 2 * s], torch.tensor([50]))
    inner, shifted = first[..., 48:80, 48:80], moved[..., 48 - s : 80 - s, 48 - 2 * s : 80 - 2 * s]
    torch.testing.assert_close(inner, shifted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [SMALL_PAPER, SMALL_COMPACT], ids=["stride-1 stem", "stride-2 stem"])
def test_the_pyramid_goes_from_the_middle_to_full_resolution(config: UNetConfig) -> None:
    network, x = seeded(config), torch.zeros(1, 3, 64, 96)
    with torch.inference_mode():
        levels = network.pyramid(x, torch.tensor([50]))
    assert tuple(level.shape[1] for level in levels) == network.level_widths
    strides = [64 // level.shape[2] for level in levels]
    assert strides == [config.stride // 2**index for index in range(len(levels))]
    assert strides[-1] == 1


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_configurations_survive_json(config: UNetConfig) -> None:
    assert UNetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
