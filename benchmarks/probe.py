"""How much a network knows before it is trained: a linear classifier on its features.

A logistic regression of the decoder's features at one time step, over blocks of 4 x 4 pixels. It takes a
second where a fine-tune takes a minute, and its answer depends little on chance, so many pretexts can be
ranked with it. It is a stand-in: what it ranks first is still fine-tuned.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from skimage.feature import multiscale_basic_features
from torch import Tensor, nn

from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.finetuning.examples import Example

BLOCK = 4
PIXELS = 12_000
"""At most so many blocks to train on, of all images together."""
PENALTY = 1e-2
"""Half of it times the squared norm of the weights is added to the mean loss."""
CALIBRATION = 20
"""Batches of 16 patches that the statistics of batch normalisation are made of."""
PATCH = 128


@torch.no_grad()
def recalibrated(network: UNet, images: Sequence[NDArray[np.uint8]], time: int) -> UNet:
    """A copy whose batch normalisation has the statistics of clean images, not of noisy ones."""
    result = copy.deepcopy(network)
    for module in result.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over all that it sees
    result.train()
    rng = np.random.default_rng(5)
    for _ in range(CALIBRATION):
        patches = []
        for _ in range(16):
            image = images[int(rng.integers(len(images)))]
            missing = [(0, max(0, PATCH - side)) for side in image.shape[:2]]
            image = np.pad(image, (*missing, (0, 0)), mode="symmetric")
            y, x = (int(rng.integers(side - PATCH + 1)) for side in image.shape[:2])
            patches.append(image[y : y + PATCH, x : x + PATCH])
        result.pyramid(to_unit_range(np.stack(patches)), torch.tensor([time]))
    return result.eval()


@torch.inference_mode()
def network_features(network: UNet, rgb: NDArray[np.uint8], time: int) -> NDArray[np.float32]:
    """All levels of the decoder, a row a block; shape (blocks, features)."""
    height, width = rgb.shape[:2]
    stride = network.config.stride
    grown = np.pad(rgb, ((0, -height % stride), (0, -width % stride), (0, 0)), mode="symmetric")
    levels = network.pyramid(to_unit_range(grown[None]), torch.tensor([time]))
    side = grown.shape[0] // BLOCK, grown.shape[1] // BLOCK
    blocks = [
        F.interpolate(level, size=side, mode="bilinear") if level.shape[-2] < side[0] else _mean(level, side)
        for level in levels
    ]
    return _rows(torch.cat(blocks, dim=1), height, width)


def handmade_features(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """scikit-image's multiscale intensity, edges and texture (sigma to 16), a row a block."""
    measure: Any = multiscale_basic_features
    measured = np.ascontiguousarray(measure(rgb, sigma_max=16, channel_axis=-1), np.float32)
    planes = torch.from_numpy(measured).permute(2, 0, 1)[None]
    return _rows(F.avg_pool2d(planes, BLOCK), rgb.shape[0], rgb.shape[1])


def block_labels(example: Example) -> NDArray[np.bool_]:
    """Whether most pixels of a block are foreground."""
    height, width = (side // BLOCK * BLOCK for side in example.labels.shape)
    foreground = example.labels[:height, :width] > 0
    mean: NDArray[np.float64] = foreground.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK).mean((1, 3))
    return np.asarray(mean.ravel() > 0.5)


class Linear:
    """A logistic regression on standardised features.

    Parameters
    ----------
    features : sequence of ndarray, each of shape (blocks, features)
        Of the labelled images.
    labels : sequence of ndarray of bool
    seed : int
        Of the choice of blocks.
    """

    def __init__(
        self, features: Sequence[NDArray[np.float32]], labels: Sequence[NDArray[np.bool_]], *, seed: int
    ) -> None:
        x, y = np.concatenate(features), np.concatenate(labels)
        places = np.random.default_rng(seed).permutation(len(x))[:PIXELS]
        x, y = x[places], y[places]
        self.mean, self.spread = x.mean(axis=0), x.std(axis=0) + 1e-4
        inputs = torch.from_numpy((x - self.mean) / self.spread)
        targets = torch.from_numpy(y.astype(np.float32))
        weights = torch.zeros(x.shape[1] + 1, requires_grad=True)
        optimizer = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            logits = inputs @ weights[:-1] + weights[-1]
            value = F.binary_cross_entropy_with_logits(logits, targets)
            value = value + PENALTY * weights[:-1].square().sum() / 2
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        self.weights = weights.detach().numpy()

    def dice(self, features: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
        """Dice of an image's blocks; 1 where neither has foreground."""
        found = ((features - self.mean) / self.spread) @ self.weights[:-1] + self.weights[-1] > 0
        both = int(found.sum() + truth.sum())
        return float(2 * (found & truth).sum() / both) if both else 1.0


def _mean(level: Tensor, side: tuple[int, int]) -> Tensor:
    return F.avg_pool2d(level, level.shape[-2] // side[0])


def _rows(planes: Tensor, height: int, width: int) -> NDArray[np.float32]:
    inside = planes[0, :, : height // BLOCK, : width // BLOCK]
    return np.asarray(inside.flatten(1).T.contiguous().numpy(), np.float32)
