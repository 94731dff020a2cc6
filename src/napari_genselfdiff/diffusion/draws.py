"""Random numbers of a batch, the same for an image whether one process sees the batch or several share it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class PartGenerator(torch.Generator):
    """A generator on the CPU for some of the images of a batch.

    `per_image` draws for all of the batch and keeps what is theirs; with a plain generator, the images that
    it is asked about are the whole batch.

    Attributes
    ----------
    first : int
        Place in the batch of the first of them.
    total : int
        Images of the batch.
    """

    first: int = 0
    total: int = 0

    @classmethod
    def seeded(cls, seed: int, *, first: int, total: int) -> PartGenerator:
        """Make one."""
        generator = cls()
        generator.manual_seed(seed)
        generator.first, generator.total = first, total
        return generator


def per_image(draw: Callable[[int], Tensor], count: int, generator: torch.Generator) -> Tensor:
    """Random numbers of each image.

    Parameters
    ----------
    draw : callable
        Draws with the generator for so many images, shape (images, ...).
    count : int
        Images that this process sees.
    generator : torch.Generator

    Returns
    -------
    Tensor, shape (count, ...)
    """
    if not isinstance(generator, PartGenerator):
        return draw(count)
    return draw(generator.total)[generator.first : generator.first + count]


def places(count: int, generator: torch.Generator) -> Tensor:
    """Places in the batch of the images that this process sees, int64, shape (count,)."""
    return torch.arange(count) + (generator.first if isinstance(generator, PartGenerator) else 0)


def noise_like(images: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise for images ``(n, ...)``.

    Each has a seed of its own, so that nobody draws the noise of images that others see: it costs more than a
    training step on a graphics card.
    """
    seeds = per_image(
        lambda n: torch.randint(2**62, (n,), generator=generator), len(images), generator
    ).tolist()
    shape = images.shape[1:]
    drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn).to(images)
