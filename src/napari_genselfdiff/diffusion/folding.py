"""A network at one fixed time step, with its batch normalisation folded into the convolutions."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_genselfdiff.diffusion.unet import ResidualBlock, UNet


class FoldedBlock(nn.Module):
    """A residual block in use: two convolutions with SiLU, and no normalisation left."""

    def __init__(self, conv1: nn.Conv2d, conv2: nn.Conv2d, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1, self.conv2, self.shortcut = conv1, conv2, shortcut

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Transform features; ``time`` is the one that was folded in, whatever is given."""
        h = F.silu(self.conv1(x), inplace=True)
        h = F.silu(self.conv2(h), inplace=True)
        return h.add_(self.shortcut(x))


@torch.no_grad()
def folded(network: UNet, timestep: int) -> UNet:
    """A copy for inference at one time step, in which no normalisation is left to compute.

    Parameters
    ----------
    network : UNet
        With or without batch normalisation.
    timestep : int
        The time step of all images.

    Returns
    -------
    UNet
        Computes what ``network.eval()`` does at ``timestep``, to rounding; cannot be trained. The network
        itself where it has no batch normalisation, as other kinds depend on the image.

    Notes
    -----
    ``scale * (gain * (conv(x) - mean) / sqrt(var + eps) + bias) + shift`` is a convolution with
    other numbers.
    """
    if network.config.norm != "batch" or isinstance(network.final, FoldedBlock):
        return network
    result = copy.deepcopy(network).eval().requires_grad_(False)
    device = next(result.parameters()).device
    time = result.embed_time(torch.tensor([timestep], device=device))
    for parent in list(result.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ResidualBlock):
                setattr(parent, name, _folded_block(child, time))
    return result


def _folded_block(block: ResidualBlock, time: Tensor) -> FoldedBlock:
    scale, shift = block.modulation(time)
    first = _absorbed(block.conv1, block.norm1)
    first.weight.mul_(scale[0, :, None, None, None])
    assert first.bias is not None
    first.bias.mul_(scale[0]).add_(shift[0])
    return FoldedBlock(first, _absorbed(block.conv2, block.norm2), block.shortcut)


def _absorbed(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    assert isinstance(norm, nn.BatchNorm2d)
    return torch.nn.utils.fuse_conv_bn_eval(conv, norm)
