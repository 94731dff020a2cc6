"""Denoise into features: from a noisy, re-stained, partly hidden image to what the clean one is like.

A short pretext of predicting noise learns little but fine texture. Here every level of the decoder also says
what classical image analysis would measure of the clean image in its normalised stain: intensity, edges,
ridges, blobs and roughness of haematoxylin, eosin and brightness, at its own scale and the coarser ones. The
idea is that of MaskFeat (Wei et al. 2022, arXiv 2112.09133), whose targets are histograms of gradients. No
label is used.
"""

from __future__ import annotations

from itertools import islice
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_genselfdiff.diffusion import stain
from napari_genselfdiff.diffusion.draws import noise_like, per_image, places
from napari_genselfdiff.diffusion.objectives.base import TASK_TIMESTEP, ObjectiveOptions, hidden_blocks
from napari_genselfdiff.diffusion.schedules import add_noise, alpha_bars
from napari_genselfdiff.diffusion.unet import UNet

BLOCK = 16
HIDDEN = 0.4
SPAN = 2
"""Scales that a level predicts: its own and the next coarser ones."""
MAPS = 15
"""Five measures of three channels."""
LIMIT = 3.0
"""Targets are cut here, in standard deviations: a speck of dirt is not worth more than a field of nuclei."""


class Features(nn.Module):
    """The objective; its heads are left behind when the pretext is done.

    Notes
    -----
    Time steps are drawn as ``1000 u^2`` with u uniform: more of the small noise levels, at which the task's
    features are. Every fourth image is clean, at the time step of the task; every second one has hidden
    blocks. The output layer predicts the clean image (``x0``).
    """

    def __init__(self, options: ObjectiveOptions) -> None:
        super().__init__()
        self.options = options
        self.alpha_bar = alpha_bars(options.schedule)
        scales = len(options.level_widths)
        # The level at 1 / 2^k of the resolution predicts the scales k, k + 1, ... as far as there are any.
        self.heads = nn.ModuleList(
            nn.Conv2d(width, MAPS * min(index + 1, SPAN), 1)
            for index, width in enumerate(options.level_widths)
        )
        self.standard = nn.ModuleList(nn.BatchNorm2d(MAPS, affine=False) for _ in range(scales))

    def forward(self, network: UNet, x0: Tensor, generator: torch.Generator) -> Tensor:
        """Loss of a batch of clean images."""
        with torch.no_grad(), torch.autocast(x0.device.type, enabled=False):
            measured = feature_maps(x0, scales=len(self.heads))
            targets = [
                norm(maps).clamp(-LIMIT, LIMIT) for norm, maps in zip(self.standard, measured, strict=True)
            ]
            shown, t = self._shown(x0, generator)
        levels = network.pyramid(shown, t)
        loss = (network.output(levels[-1]).float() - x0).abs().mean()
        for index, (head, level) in enumerate(zip(self.heads, levels, strict=True)):
            predicted = head(level).float().split(MAPS, dim=1)
            scales = islice(targets, len(levels) - 1 - index, None)
            for maps, target in zip(predicted, scales, strict=False):
                if target.shape != maps.shape:
                    target = F.interpolate(target, size=maps.shape[-2:], mode="bilinear")
                loss = loss + F.smooth_l1_loss(maps, target) / len(predicted)
        return cast(Tensor, loss)

    def _shown(self, x0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What the network sees of clean images, and its time steps."""
        count, _, height, width = x0.shape
        x = x0
        if self.options.stain:
            x = stain.jitter(x0, generator, strength=self.options.stain, shift=self.options.stain / 5)
        u = per_image(lambda n: torch.rand(n, generator=generator), count, generator)
        t = (u**2 * len(self.alpha_bar)).long()
        noise = noise_like(x0, generator)
        hidden = hidden_blocks(count, height, width, share=HIDDEN, block=BLOCK, generator=generator).to(x0)
        noisy = add_noise(x, noise, self.alpha_bar[t].to(x0))
        place = places(count, generator)
        clean, open_ = place % 4 == 0, place % 2 == 1
        noisy[clean], t[clean] = x[clean], TASK_TIMESTEP
        hidden[open_] = 0
        return (noisy * (1 - hidden)).contiguous(memory_format=torch.channels_last), t.to(x0.device)


def feature_maps(images: Tensor, *, scales: int) -> list[Tensor]:
    """What classical image analysis measures of an image, scale by scale.

    Parameters
    ----------
    images : Tensor of float32, shape (n, 3, height, width)
        RGB in [-1, 1].
    scales : int
        Each has half the resolution of the one before.

    Returns
    -------
    list of Tensor, shapes (n, 15, height / 2^k, width / 2^k)
        Of haematoxylin, eosin and brightness: the Gaussian mean (sigma 1), the gradient's magnitude, the
        larger and the smaller eigenvalue of the Hessian, and the local standard deviation.

    Notes
    -----
    Stains are normalised for each image by itself, by mean and standard deviation of their optical density,
    so that the answer is the same whatever the staining.
    """
    density = stain.densities(images)[:, :2]
    mean, spread = density.mean((2, 3), keepdim=True), density.std((2, 3), keepdim=True)
    brightness = images.amin(dim=1, keepdim=True)
    return measured(torch.cat([((density - mean) / (spread + 0.05)).clamp(-4, 4), brightness], dim=1), scales)


def measured(values: Tensor, scales: int) -> list[Tensor]:
    """Mean, gradient, both eigenvalues of the Hessian, and deviation of channels, scale by scale.

    Parameters
    ----------
    values : Tensor of float32, shape (n, channels, height, width)
        The border is repeated beyond the image: what lies within 5 pixels of it, at each scale, depends on
        the cut.
    scales : int
        Each has half the resolution of the one before.

    Returns
    -------
    list of Tensor, shapes (n, 5 * channels, height / 2^k, width / 2^k)
    """
    result = []
    for scale in range(scales):
        if scale:
            values = F.avg_pool2d(values, 2)
        smooth = _blur(values)
        dy, dx = _slopes(smooth)
        (dyy, dyx), (_, dxx) = _slopes(dy), _slopes(dx)
        trace, split = dyy + dxx, ((dxx - dyy) ** 2 + 4 * dyx**2 + 1e-8).sqrt()
        gradient = (dx**2 + dy**2 + 1e-8).sqrt()
        deviation = (_blur(values**2) - smooth**2).clamp(min=1e-6).sqrt()
        maps = [smooth, gradient, (trace + split) / 2, (trace - split) / 2, deviation]
        result.append(torch.cat(maps, dim=1))
    return result


def _blur(values: Tensor) -> Tensor:
    """Gaussian of sigma 1, cut at 3 pixels."""
    x = torch.arange(-3, 4, device=values.device, dtype=values.dtype)
    kernel = torch.exp(-(x**2) / 2)
    kernel = (kernel / kernel.sum()).expand(values.shape[1], 1, 1, -1)
    values = F.conv2d(F.pad(values, (3, 3, 0, 0), mode="replicate"), kernel, groups=values.shape[1])
    kernel = kernel.transpose(2, 3)
    return F.conv2d(F.pad(values, (0, 0, 3, 3), mode="replicate"), kernel, groups=values.shape[1])


def _slopes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along y and x."""
    padded = F.pad(values, (1, 1, 1, 1), mode="replicate")
    inner = slice(1, -1)
    dy = (padded[..., 2:, inner] - padded[..., :-2, inner]) / 2
    dx = (padded[..., inner, 2:] - padded[..., inner, :-2]) / 2
    return dy, dx
