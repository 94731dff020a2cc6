"""Patches of corrections: scribbles are not drowned by filled areas, and hard places come more often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.finetuning.augmentation import Appearance
from napari_genselfdiff.finetuning.examples import Example, PatchBatch, PatchSampler
from napari_genselfdiff.finetuning.holdout import CELL

LESS_THAN_DRAWN = 0.5
"""Pixels that count at most this much are what the model itself said."""
SIZE = 0.75
"""What was drawn in a patch counts by this power of its size."""
HARDEST = 2.0
"""Places come up to this much more or less often than by their size, as their loss is high or low."""
MEMORY = 0.7
"""Share of a place's earlier loss in its moving average."""
RAREST = 4.0
"""Pixels of a class that is rare in a patch count up to this many times as much as the others."""


class CorrectionSampler(PatchSampler):
    """Patches centred on what was drawn; the order depends on seed, step and the losses that were told.

    A group is what was drawn in one class in one cell of an example. Groups are drawn by the square root of
    their size, times how high their loss was lately; the pixel around which a patch is cut is any of the
    group's.

    Parameters are those of `PatchSampler`.

    Attributes
    ----------
    hardness : ndarray of float, shape (groups,)
        Moving average of each group's loss; 0 until it was seen.
    """

    def __init__(
        self, examples: Sequence[Example], *, size: int, seed: int, appearance: Appearance | None = None
    ) -> None:
        super().__init__(examples, size=size, seed=seed, appearance=appearance)
        self._groups: list[tuple[int, NDArray[np.int64]]] = []
        for index, example in enumerate(self.examples):
            places = np.argwhere(example.weight > LESS_THAN_DRAWN)
            if len(places):
                keys = np.column_stack([places // CELL, example.labels[tuple(places.T)]])
                group = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
                order = np.argsort(group, kind="stable")
                for part in np.split(order, np.cumsum(np.bincount(group))[:-1]):
                    self._groups.append((index, places[part]))
        self._sizes = np.sqrt([float(len(pixels)) for _, pixels in self._groups])
        self.hardness = np.zeros(len(self._groups))
        self._drawn: list[int] = []

    def __len__(self) -> int:
        """Number of groups that were drawn."""
        return len(self._groups)

    def batch(self, step: int, count: int) -> PatchBatch:
        """Patches of one step."""
        self._drawn = []
        return super().batch(step, count)

    def tell(self, losses: Sequence[float]) -> None:
        """Say what each patch of the last batch cost."""
        for group, loss in zip(self._drawn, losses, strict=True):
            before = self.hardness[group]
            self.hardness[group] = MEMORY * before + (1 - MEMORY) * loss if before > 0 else loss

    def _patch(self, rng: np.random.Generator) -> Example:
        chances = self._sizes * self._eagerness()
        group = int(rng.choice(len(chances), p=chances / chances.sum()))
        self._drawn.append(group)
        index, pixels = self._groups[group]
        return balanced(self.cut(self.examples[index], pixels[rng.integers(len(pixels))], rng))

    def _eagerness(self) -> NDArray[np.float64]:
        seen = self.hardness > 0
        if not seen.any():
            return np.ones(len(self.hardness))
        share = np.where(seen, self.hardness, self.hardness[seen].mean()) / self.hardness[seen].mean()
        return np.asarray(np.clip(share, 1 / HARDEST, HARDEST), np.float64)


def balanced(patch: Example) -> Example:
    """Weigh what was drawn in a patch so that it counts by less than its size, as do its classes.

    Ten pixels of a scribble beside four thousand of a filled area would otherwise not be felt, nor would they
    beside all that the model said itself. A patch that is drawn on as a whole, in classes of one size, stays
    as it is.
    """
    drawn = patch.weight > LESS_THAN_DRAWN
    count = int(drawn.sum())
    if not count:
        return patch
    sizes = np.bincount(patch.labels[drawn]).astype(float)
    present = sizes > 0
    factor = np.zeros(len(sizes))
    factor[present] = np.sqrt(sizes[present].max() / sizes[present]).clip(max=RAREST)
    weight = patch.weight.copy()
    weight[drawn] *= factor[patch.labels[drawn]].astype(np.float32)
    total = patch.weight.size ** (1 - SIZE) * count**SIZE
    weight[drawn] *= np.float32(total / max(float(weight[drawn].sum()), 1e-6))
    return replace(patch, weight=weight)
