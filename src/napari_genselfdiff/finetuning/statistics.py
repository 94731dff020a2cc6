"""Batch normalisation's statistics of the images at hand, in place of those that a network came with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_genselfdiff.compute import Compute, is_out_of_memory, release_memory
from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.errors import OutOfMemoryError
from napari_genselfdiff.segmentation.network import Segmenter, copy_segmenter

PATCH = 128
BATCH = 8
BATCHES = 12
"""A second's work; 24 batches of four times as many pixels gave the same Dice."""


@torch.no_grad()
def acquainted(segmenter: Segmenter, images: Sequence[NDArray[np.uint8]], *, compute: Compute) -> Segmenter:
    """A copy that knows what its features are like on these images.

    A pretext's statistics are those of noised images of its own training set, and those that a fine-tune
    gathers are of the few places that were labelled: on another slide both are off. Measured on clean tissue
    before the fine-tune, and left as they are in it, they are worth more than the weights (Dice after a first
    round, ``docs/benchmarks/circle.md``).

    Parameters
    ----------
    segmenter : Segmenter
        One without batch normalisation is copied as it is.
    images : sequence of ndarray of uint8, shapes (height, width, 3)
        At the model's resolution; no label is needed. Patches are drawn by area, the same ones each time.
    compute : Compute

    Returns
    -------
    Segmenter
        In evaluation mode.
    """
    result = copy_segmenter(segmenter).eval()
    norms = [module for module in result.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms or not images:
        return result
    try:
        _measure(result.to(compute.apply()), norms, images)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        release_memory(compute)
        try:
            _measure(result.cpu(), norms, images)  # in smaller batches they would be other statistics
        except (RuntimeError, MemoryError) as again:
            if not is_out_of_memory(again):
                raise
            raise OutOfMemoryError("the computer ran out of memory: close other programs") from again
    return result


def _measure(
    segmenter: Segmenter, norms: Sequence[nn.BatchNorm2d], images: Sequence[NDArray[np.uint8]]
) -> None:
    device = next(segmenter.parameters()).device
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all that it sees
        norm.train()
    for patches in _batches(images):
        segmenter(to_unit_range(patches).to(device))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
        norm.eval()


def _batches(images: Sequence[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    areas = np.array([image.shape[0] * image.shape[1] for image in images], float)
    padded = [_padded(image) for image in images]
    for _ in range(BATCHES):
        chosen = rng.choice(len(padded), size=BATCH, p=areas / areas.sum()).tolist()
        yield np.stack([_patch(padded[index], rng) for index in chosen])


def _patch(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    y, x = (int(rng.integers(side - PATCH + 1)) for side in image.shape[:2])
    return image[y : y + PATCH, x : x + PATCH]


def _padded(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    missing = [(0, max(0, PATCH - side)) for side in image.shape[:2]]
    return np.pad(image, (*missing, (0, 0)), mode="symmetric")
