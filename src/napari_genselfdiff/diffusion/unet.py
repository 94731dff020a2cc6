"""One U-Net for the pretext and for the segmenter."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_genselfdiff.diffusion.config import UNetConfig

GROUPS = 8
HEADS, HEAD_WIDTH = 4, 32


def timestep_embedding(t: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding of time steps (Vaswani et al. 2017, section 3.5).

    Parameters
    ----------
    t : Tensor, shape (n,)
        Time steps, 0 to T - 1; fractions are allowed.
    width : int
        Even number of features.

    Returns
    -------
    Tensor of float32, shape (n, width)
    """
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(10_000.0) / (half - 1)))
    angles = t.float()[:, None] * frequencies[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class PixelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel; knows nothing of the pixel's neighbours."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(n, channels, height, width)``."""
        return self.with_gain(x, self.weight, self.bias)

    def with_gain(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Normalise with another gain and bias, each of shape (channels,)."""
        normed = F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias)
        return normed.permute(0, 3, 1, 2)


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(GROUPS, channels) if kind == "group" else PixelNorm(channels)


def _normed_and_scaled(norm: nn.Module, h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``norm(h) * scale + shift`` with (n, channels) scales and shifts.

    With one time step for all images, as in a segmenter, they go into the normalisation's own gain and bias,
    which saves a pass over the memory.
    """
    if isinstance(norm, PixelNorm) and len(scale) == 1:
        return norm.with_gain(h, norm.weight * scale[0], norm.bias * scale[0] + shift[0])
    return torch.addcmul(shift[:, :, None, None], norm(h), scale[:, :, None, None])


class ResidualBlock(nn.Module):
    """Two convolutions with normalisation and SiLU; the time step shifts (and scales) the first."""

    def __init__(self, width_in: int, width_out: int, time_width: int, config: UNetConfig) -> None:
        super().__init__()
        self.time_scale = config.time_scale
        norm = config.norm
        self.time = nn.Linear(time_width, (2 if self.time_scale else 1) * width_out)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1)
        self.norm1 = _norm(norm, width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1)
        self.norm2 = _norm(norm, width_out)
        self.shortcut: nn.Module = nn.Identity()
        if width_in != width_out:
            self.shortcut = nn.Conv2d(width_in, width_out, 1)

    def modulation(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift of the first normalisation's output, each ``(n, width_out)``."""
        shift = self.time(F.silu(time))
        if not self.time_scale:
            return torch.ones_like(shift), shift
        scale, shift = shift.chunk(2, dim=1)
        return scale + 1, shift

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Transform features at a time embedding ``(n, time_width)``."""
        h = self.conv1(x)
        if self.time_scale:
            h = _normed_and_scaled(self.norm1, h, *self.modulation(time))
        else:
            h = self.norm1(h) + self.modulation(time)[1][:, :, None, None]
        # Without gradients nothing needs the values before.
        spare = not torch.is_grad_enabled()
        h = self.norm2(self.conv2(F.silu(h, inplace=spare)))
        h = F.silu(h, inplace=spare)
        return cast(Tensor, h + self.shortcut(x))


class Attention(nn.Module):
    """Residual self-attention over the pixels of a tile.

    Full (softmax) attention, or linear attention (Shen et al. 2021, arXiv 1812.01243), whose cost grows with
    the number of pixels instead of its square.
    """

    def __init__(self, channels: int, *, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        inner = HEADS * HEAD_WIDTH
        self.norm = nn.GroupNorm(1, channels)
        self.qkv = nn.Conv2d(channels, 3 * inner, 1, bias=False)
        self.out = nn.Conv2d(inner, channels, 1)
        self.out_norm = nn.GroupNorm(1, channels) if linear else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Mix the pixels of each image."""
        n, _, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(n, 3, HEADS, HEAD_WIDTH, height * width)
        q, k, v = qkv.unbind(1)
        if self.linear:
            q = q.softmax(dim=-2) * HEAD_WIDTH**-0.5
            context = k.softmax(dim=-1) @ v.transpose(-1, -2)
            mixed = context.transpose(-1, -2) @ q
        else:
            q, k, v = (part.transpose(-1, -2) for part in (q, k, v))
            mixed = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        mixed = mixed.reshape(n, HEADS * HEAD_WIDTH, height, width)
        return cast(Tensor, x + self.out_norm(self.out(mixed)))


class Level(nn.Module):
    """Residual blocks at one resolution, then linear attention where the configuration has it."""

    def __init__(self, width_in: int, width_out: int, time_width: int, config: UNetConfig) -> None:
        super().__init__()
        widths = [width_in] + [width_out] * config.blocks
        self.blocks = nn.ModuleList(ResidualBlock(a, b, time_width, config) for a, b in pairwise(widths))
        self.attention = Attention(width_out, linear=True) if config.attention else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Transform features at a time embedding."""
        for block in self.blocks:
            x = block(x, time)
        return cast(Tensor, self.attention(x))


class UNet(nn.Module):
    """U-Net with time conditioning.

    Parameters
    ----------
    config : UNetConfig
        Shape of the network.
    out_channels : int
        Channels of the output layer: 3 for the pretext, the number of classes for a segmenter.

    Notes
    -----
    Input and output are ``(n, channels, height, width)`` with height and width multiples of
    ``config.stride``. Inputs are in [-1, 1], in the pretext and downstream alike. The full-resolution skip
    is used: the level-0 features of a stride-1 network, the input itself behind a stride-2 stem.
    """

    def __init__(self, config: UNetConfig, out_channels: int = 3) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        base = widths[0]
        time_width = 4 * base
        self.time_embedding = nn.Sequential(
            nn.Linear(base, time_width), nn.GELU(), nn.Linear(time_width, time_width)
        )
        kernel = 7 if config.stem_stride == 1 else 4
        padding = 3 if config.stem_stride == 1 else 1
        self.stem = nn.Conv2d(3, base, kernel, stride=config.stem_stride, padding=padding)

        self.down = nn.ModuleList(Level(a, b, time_width, config) for a, b in pairwise((base, *widths)))
        kernel, padding = config.resample_kernel, config.resample_kernel // 2 - 1
        self.shrink = nn.ModuleList(
            nn.Conv2d(width, width, kernel, stride=2, padding=padding) for width in widths[:-1]
        )
        coarsest = widths[-1]
        self.middle = nn.ModuleList([ResidualBlock(coarsest, coarsest, time_width, config)])
        if config.attention:
            self.middle.append(Attention(coarsest, linear=False))
            self.middle.append(ResidualBlock(coarsest, coarsest, time_width, config))
        pairs = list(pairwise(widths))[::-1]
        self.up = nn.ModuleList(Level(2 * b, a, time_width, config) for a, b in pairs)
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(a, a, kernel, stride=2, padding=padding) for a, _ in pairs
        )
        self.final = ResidualBlock(2 * base, base, time_width, config)

        features = base
        self.full: nn.Sequential | None = None
        if config.stem_stride == 2:
            features = config.full_width
            self.unshuffled = nn.Conv2d(base, 4 * features, 1)
            self.full = nn.Sequential(nn.Conv2d(features + 3, features, 3, padding=1), nn.SiLU())
        self.feature_width = features
        self.output = nn.Conv2d(features, out_channels, 1)

    def features(self, x: Tensor, t: Tensor, *, margin: int = 0) -> Tensor:
        """Features at full resolution, before the output layer.

        Parameters
        ----------
        x : Tensor, shape (n, 3, height, width)
            Images in [-1, 1].
        t : Tensor, shape (n,) or (1,)
            Time steps.
        margin : int
            Pixels at every border that are seen but for which no features are wanted, a multiple of
            ``config.stride``. The decoder leaves out what nothing depends on.

        Returns
        -------
        Tensor, shape (n, feature_width, height - 2 * margin, width - 2 * margin)
        """
        return self.pyramid(x, t, margin=margin)[-1]

    def embed_time(self, t: Tensor) -> Tensor:
        """What the residual blocks are told of time steps ``(n,)``; shape (n, 4 * widths[0])."""
        return cast(Tensor, self.time_embedding(timestep_embedding(t, self.config.widths[0])))

    def pyramid(self, x: Tensor, t: Tensor, *, margin: int = 0) -> list[Tensor]:
        """Features of the middle and of every level of the decoder, from coarse to fine.

        Parameters are those of `features`, whose result is the last of the list. The resolutions rise from
        1 / ``config.stride`` of the image's to its own; the widths are ``level_widths``.
        """
        time = self.embed_time(t)
        h = self.stem(x)
        skips, levels = [], []
        for index, level in enumerate(self.down):
            h = level(h, time)
            skips.append(h)
            if index < len(self.shrink):
                h = self.shrink[index](h)
        for layer in self.middle:
            h = layer(h) if isinstance(layer, Attention) else layer(h, time)
        left, stride, needed = margin, self.config.stride, iter(self.config.decoder_margins)

        def joined() -> Tensor:
            """The features of this level and its skip, without what no wanted pixel sees."""
            nonlocal left
            spare = max(0, left // stride - next(needed))
            left -= spare * stride
            return torch.cat([_inner(h, spare), _inner(skips.pop(), (margin - left) // stride)], dim=1)

        for level, grow in zip(self.up, self.grow, strict=True):
            levels.append(h)
            h = grow(level(joined(), time))
            stride //= 2
        h = self.final(joined(), time)
        levels.append(h if self.full is not None else _inner(h, left))
        if self.full is not None:
            h = F.pixel_shuffle(self.unshuffled(h), 2)
            spare = max(0, left - 1)
            h = self.full(torch.cat([_inner(h, spare), _inner(x, margin - left + spare)], dim=1))
            levels.append(_inner(h, left - spare))
        return levels

    @property
    def level_widths(self) -> tuple[int, ...]:
        """Channels of each of `pyramid`'s levels."""
        widths = self.config.widths
        # A level of the decoder leaves with the width of the next finer one.
        return (widths[-1], *widths[-2::-1], *((self.feature_width,) if self.full is not None else ()))

    def forward(self, x: Tensor, t: Tensor, *, margin: int = 0) -> Tensor:
        """Output of the network for images ``x`` at time steps ``t``; shapes as in `features`."""
        return cast(Tensor, self.output(self.features(x, t, margin=margin)))


def _inner(h: Tensor, border: int) -> Tensor:
    """Features without so many pixels at every border."""
    return h[..., border : h.shape[-2] - border, border : h.shape[-1] - border] if border else h
