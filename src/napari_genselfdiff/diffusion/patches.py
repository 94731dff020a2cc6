"""Unlabelled patches from folders of images, in an order that depends on the seed and the step alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from napari_genselfdiff.images import find_images as find_images
from napari_genselfdiff.images import read_rgb

CACHE_BYTES = 4 * 2**30


def to_unit_range(patches: NDArray[np.uint8]) -> Tensor:
    """uint8 images ``(n, height, width, 3)`` as float32 ``(n, 3, height, width)`` in [-1, 1].

    The one input range of the pretext and of the segmenter.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(patches)).permute(0, 3, 1, 2)
    return tensor.contiguous(memory_format=torch.channels_last).float().div_(127.5).sub_(1)


@dataclass
class PatchSource:
    """Random square patches at random magnifications, flipped and turned.

    Attributes
    ----------
    files : list of Path
        Images; a patch is as likely to come from a small image as from a large one.
    size : int
        Side of a patch in pixels.
    zoom : tuple of float
        Range of the side of the tissue that a patch shows, in multiples of ``size`` image pixels: 1 is the
        image's own magnification, 4 shows four times as wide a field. Drawn log-uniformly, and no wider than
        the image.
    seed : int
        Seed of the order.
    """

    files: list[Path]
    size: int
    zoom: tuple[float, float] = (1.0, 1.0)
    seed: int = 0
    _cache: dict[Path, NDArray[np.uint8]] = field(default_factory=dict, repr=False)
    _cached_bytes: int = 0

    def batch(self, step: int, count: int) -> Tensor:
        """Patches of one step, float32 in [-1, 1], shape ``(count, 3, size, size)``."""
        rng = np.random.default_rng((self.seed, step))
        return to_unit_range(np.stack([self._patch(rng) for _ in range(count)]))

    def _patch(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        image = self._image(self.files[rng.integers(len(self.files))])
        low, high = np.log(self.zoom)
        shorter = min(image.shape[:2])
        side = min(round(self.size * float(np.exp(rng.uniform(low, high)))), shorter)
        y, x = (int(rng.integers(extent - side + 1)) for extent in image.shape[:2])
        patch = image[y : y + side, x : x + side]
        if side != self.size:
            resized = Image.fromarray(patch).resize((self.size, self.size), Image.Resampling.BILINEAR)
            patch = np.asarray(resized)
        patch = np.rot90(patch, int(rng.integers(4)))
        return patch[::-1] if rng.integers(2) else patch

    def _image(self, path: Path) -> NDArray[np.uint8]:
        if path in self._cache:
            return self._cache[path]
        image = read_rgb(path)
        if self._cached_bytes + image.nbytes <= CACHE_BYTES:
            self._cache[path] = image
            self._cached_bytes += image.nbytes
        return image
