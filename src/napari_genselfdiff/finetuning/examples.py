"""Labelled images at a model's resolution, and random patches of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.finetuning.augmentation import Appearance, vary_appearance

Pixel = TypeVar("Pixel", bound=np.generic)

ZOOM = 1.28
"""Patches show tissue up to this much larger or smaller than it is."""
HELD_OUT_SHARE = 5
"""One cell, or one image, of this many is held out."""


@dataclass(frozen=True)
class Example:
    """A labelled image at the model's resolution.

    Attributes
    ----------
    name : str
        File or place that it comes from.
    rgb : ndarray of uint8, shape (height, width, 3)
    labels : ndarray of uint8, shape (height, width)
        Class of each pixel; any value where ``weight`` is 0.
    weight : ndarray of float32, shape (height, width)
        How much a pixel counts in the loss; 0 for pixels that are not labelled.
    core : ndarray of float32, shape (height, width), or None
        Target of the core head, 0 or 1; negative where it is not known.
    """

    name: str
    rgb: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    weight: NDArray[np.float32]
    core: NDArray[np.float32] | None = None

    def weighted(self, where: NDArray[np.bool_]) -> Example:
        """The same, counting only where ``where`` is true."""
        return replace(self, weight=np.where(where, self.weight, np.float32(0)))


@dataclass(frozen=True)
class PatchBatch:
    """Patches on their way to the network; shapes (n, 3, size, size) and (n, size, size)."""

    images: Tensor
    labels: Tensor
    weight: Tensor
    core: Tensor | None


def held_out_cells(
    shape: tuple[int, int], *, cell: int, origin: tuple[int, int] = (0, 0), salt: str = ""
) -> NDArray[np.bool_]:
    """A fixed fifth of an image's square cells, chosen by hashing their position.

    Parameters
    ----------
    shape : tuple of int
        ``(height, width)`` in pixels.
    cell : int
        Side of a cell in pixels.
    origin : tuple of int
        ``(y, x)`` of the first pixel; the choice belongs to the slide, not to the cut.
    salt : str
        Name of the slide or image.

    Returns
    -------
    ndarray of bool, shape (height, width)
        True for pixels that are never trained on.
    """
    rows = (np.arange(shape[0]) + origin[0]) // cell
    columns = (np.arange(shape[1]) + origin[1]) // cell
    chosen = np.array([[_held_out(f"{salt}:{r}:{c}") for c in np.unique(columns)] for r in np.unique(rows)])
    return chosen[np.ix_(rows - rows[0], columns - columns[0])]


def split_examples(examples: Sequence[Example], *, cell: int = 64) -> tuple[list[Example], list[Example]]:
    """Split into a part to train on and a part to score on.

    Whole images where there are at least five, chosen by hashing their names; else the cells of each image,
    see `held_out_cells`.

    Returns
    -------
    training, held_out : list of Example
    """
    if len(examples) >= HELD_OUT_SHARE:
        ranked = sorted(examples, key=lambda e: hashlib.sha256(e.name.encode()).hexdigest())
        names = {e.name for e in ranked[: len(examples) // HELD_OUT_SHARE]}
        return [e for e in examples if e.name not in names], [e for e in examples if e.name in names]
    training, held_out = [], []
    for example in examples:
        mask = _cells_of(example, cell)
        training.append(example.weighted(~mask))
        held_out.append(example.weighted(mask))
    return training, held_out


class PatchSampler:
    """Random patches, centred on pixels that count, augmented; the order depends on seed and step alone.

    Parameters
    ----------
    examples : sequence of Example
    size : int
        Side of the patches in pixels.
    seed : int
    appearance : Appearance, optional
        How far their look may change.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        size: int,
        seed: int,
        appearance: Appearance | None = None,
    ) -> None:
        self.examples = [_padded(example, size) for example in examples if example.weight.any()]
        self.size = size
        self.seed = seed
        self.appearance = appearance or Appearance()
        # Places of labelled pixels on a coarse lattice: cheap to draw from, whatever the image's size.
        self._centres = [np.argwhere(example.weight[::4, ::4] > 0) * 4 for example in self.examples]
        self._centres = [
            centres if len(centres) else np.argwhere(example.weight > 0)
            for centres, example in zip(self._centres, self.examples, strict=True)
        ]
        counts = np.sqrt([float((example.weight > 0).sum()) for example in self.examples])
        self._chances = counts / counts.sum() if len(counts) else counts

    def __len__(self) -> int:
        """Number of images that have something to train on."""
        return len(self.examples)

    def batch(self, step: int, count: int) -> PatchBatch:
        """Patches of one step."""
        rng = np.random.default_rng((self.seed, step))
        patches = [self._patch(rng) for _ in range(count)]
        cores = [p.core for p in patches if p.core is not None]
        return PatchBatch(
            to_unit_range(np.stack([p.rgb for p in patches])),
            torch.from_numpy(np.stack([p.labels for p in patches]).astype(np.int64)),
            torch.from_numpy(np.stack([p.weight for p in patches])),
            torch.from_numpy(np.stack(cores)) if cores else None,
        )

    def _patch(self, rng: np.random.Generator) -> Example:
        index = int(rng.choice(len(self.examples), p=self._chances))
        centres = self._centres[index]
        return self.cut(self.examples[index], centres[rng.integers(len(centres))], rng)

    def cut(self, example: Example, around: NDArray[np.int64], rng: np.random.Generator) -> Example:
        """One patch near a pixel ``(y, x)``, turned, mirrored, resized and with another look."""
        side = round(self.size * float(ZOOM ** rng.uniform(-1, 1)))
        side = min(side, *example.labels.shape)
        centre = around + rng.integers(-self.size // 3, self.size // 3 + 1, 2)
        y, x = np.clip(centre - side // 2, 0, np.array(example.labels.shape) - side)
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        nearest = ((np.arange(self.size) + 0.5) * side / self.size).astype(int)

        def turned(part: NDArray[Pixel]) -> NDArray[Pixel]:
            part = np.rot90(part, turns)
            return part[::-1] if mirrored else part

        def cut(array: NDArray[Pixel]) -> NDArray[Pixel]:
            return turned(array[np.ix_(y + nearest, x + nearest)])

        rgb = example.rgb[y : y + side, x : x + side]
        if side != self.size:
            resized = Image.fromarray(rgb).resize((self.size, self.size), Image.Resampling.BILINEAR)
            rgb = np.asarray(resized)
        return Example(
            example.name,
            vary_appearance(turned(rgb), rng, self.appearance),
            cut(example.labels),
            cut(example.weight),
            None if example.core is None else cut(example.core),
        )


def _cells_of(example: Example, cell: int) -> NDArray[np.bool_]:
    """Cells to hold out of one image; shrunk until about a fifth of what is labelled lies in them."""
    labelled = example.weight > 0
    best, best_error = held_out_cells(labelled.shape, cell=cell, salt=example.name), 1.0
    while cell >= 4 and best_error > 0.1 and labelled.any():
        mask = held_out_cells(labelled.shape, cell=cell, salt=example.name)
        error = abs(float(mask[labelled].mean()) - 1 / HELD_OUT_SHARE)
        if error < best_error:
            best, best_error = mask, error
        cell //= 2
    return best


def _held_out(key: str) -> bool:
    return hashlib.sha256(key.encode()).digest()[0] % HELD_OUT_SHARE == 0


def _padded(example: Example, size: int) -> Example:
    """Mirror images that are smaller than a patch; what is added does not count."""
    height, width = example.labels.shape
    grow = ((0, max(0, size - height)), (0, max(0, size - width)))
    if not any(after for _, after in grow):
        return example
    return Example(
        example.name,
        np.pad(example.rgb, (*grow, (0, 0)), mode="symmetric"),
        np.pad(example.labels, grow),
        np.pad(example.weight, grow),
        None if example.core is None else np.pad(example.core, grow),
    )
