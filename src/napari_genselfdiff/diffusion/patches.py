"""Unlabelled patches of images, in an order that depends on the seed and the step alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from napari_genselfdiff.images import find_images as find_images
from napari_genselfdiff.images import image_size, read_rgb

CACHE_BYTES = 4 * 2**30

Picture = Path | NDArray[np.uint8]
"""An image file, or RGB pixels that were read already, such as a tile of a slide."""


def to_unit_range(patches: NDArray[np.uint8]) -> Tensor:
    """uint8 images ``(n, height, width, 3)`` as float32 ``(n, 3, height, width)`` in [-1, 1].

    The one input range of the pretext and of the segmenter.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(patches)).permute(0, 3, 1, 2)
    return tensor.contiguous(memory_format=torch.channels_last).float().div_(127.5).sub_(1)


class _Place(NamedTuple):
    """Where a patch lies in an image, in its pixels, and how it is turned."""

    picture: int
    y: int
    x: int
    side: int
    turns: int
    flipped: bool


@dataclass
class PatchSource:
    """Random square patches at random magnifications, flipped and turned.

    Attributes
    ----------
    pictures : sequence of Path or ndarray
        Images, files or uint8 RGB; a patch is as likely to come from a small image as from a large one.
    size : int
        Side of a patch in pixels.
    zoom : tuple of float
        Range of the side of the tissue that a patch shows, in multiples of ``size`` image pixels: 1 is the
        image's own magnification, 4 shows four times as wide a field. Drawn log-uniformly, and no wider than
        the image.
    seed : int
        Seed of the order.
    """

    pictures: Sequence[Picture]
    size: int
    zoom: tuple[float, float] = (1.0, 1.0)
    seed: int = 0
    _cache: dict[int, NDArray[np.uint8]] = field(default_factory=dict, repr=False)
    _cached_bytes: int = 0
    _sizes: dict[int, tuple[int, int]] = field(default_factory=dict, repr=False)

    def batch(self, step: int, count: int, part: slice = slice(None)) -> Tensor:
        """Patches of one step, float32 in [-1, 1], shape ``(count, 3, size, size)``, or a part of them."""
        rng = np.random.default_rng((self.seed, step))
        places = [self._place(rng) for _ in range(count)]
        return to_unit_range(np.stack([self._patch(place) for place in places[part]]))

    def _place(self, rng: np.random.Generator) -> _Place:
        index = int(rng.integers(len(self.pictures)))
        size = self._size(index)
        low, high = np.log(self.zoom)
        side = min(round(self.size * float(np.exp(rng.uniform(low, high)))), min(size))
        y, x = (int(rng.integers(extent - side + 1)) for extent in size)
        return _Place(index, y, x, side, int(rng.integers(4)), bool(rng.integers(2)))

    def _patch(self, place: _Place) -> NDArray[np.uint8]:
        y, x, side = place.y, place.x, place.side
        patch = self._image(place.picture)[y : y + side, x : x + side]
        if side != self.size:
            resized = Image.fromarray(patch).resize((self.size, self.size), Image.Resampling.BILINEAR)
            patch = np.asarray(resized)
        patch = np.rot90(patch, place.turns)
        return patch[::-1] if place.flipped else patch

    def _size(self, index: int) -> tuple[int, int]:
        """Height and width of an image; a file is not read for it."""
        picture = self.pictures[index]
        if not isinstance(picture, Path):
            return picture.shape[0], picture.shape[1]
        if index not in self._sizes:
            self._sizes[index] = image_size(picture)
        return self._sizes[index]

    def _image(self, index: int) -> NDArray[np.uint8]:
        picture = self.pictures[index]
        if not isinstance(picture, Path):
            return picture
        if index in self._cache:
            return self._cache[index]
        image = read_rgb(picture)
        if self._cached_bytes + image.nbytes <= CACHE_BYTES:
            self._cache[index] = image
            self._cached_bytes += image.nbytes
        return image
