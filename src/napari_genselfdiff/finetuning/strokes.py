"""What was painted on slides, as features of pixels that outlive the features of their surroundings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_genselfdiff.annotations import classes_of, is_edited
from napari_genselfdiff.diffusion.frozen import Levels
from napari_genselfdiff.finetuning.feature_tiles import TILE, Place, Source, tile_region, tiles_of
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.store import finest_layer

if TYPE_CHECKING:
    from napari_genselfdiff.annotations import Annotations

A_TILE = 1000
"""At most so many pixels of a class are taken from a tile."""
A_BOX = 24
"""At most so many tiles of one box of what was drawn: a tumour outlined on the overview has thousands."""
KEPT = 40_000
"""Pixels that are kept of all slides, at a kilobyte each; beyond, every tile gives up half of its own."""
ACCEPTED_WEIGHT = 0.25
"""Of a pixel that was accepted as it stood, against one that was painted."""
BESIDE = 500
"""Pixels of such a tile that nobody painted, at most: what the model says of them is learned, too."""


@dataclass(frozen=True)
class Samples:
    """Pixels that were painted or accepted, and some beside them that a model says something of.

    Attributes
    ----------
    rows, columns : ndarray of int, shape (n,)
        In the tile.
    classes : ndarray of int, shape (n,)
    weight : ndarray of float32, shape (n,)
        Of what a model says: how sure it is, 0 at a probability of one half or less, 1 at one.
    said : ndarray of bool, shape (n,)
        Whether a model says the class, and nobody painted there.
    features : Tensor of float16, shape (n, features)
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    classes: NDArray[np.int16]
    weight: NDArray[np.float32]
    said: NDArray[np.bool_]
    features: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def chosen(self, which: NDArray[np.bool_]) -> Samples:
        """Some of them."""
        return Samples(
            self.rows[which],
            self.columns[which],
            self.classes[which],
            self.weight[which],
            self.said[which],
            self.features[torch.from_numpy(which)],
        )


class Painted:
    """What was painted on one slide, tile by tile.

    Parameters
    ----------
    source : Source
    annotations : Annotations

    Attributes
    ----------
    stale : set of tuple of int
        Tiles in which something may have changed since they were looked at.
    samples : dict
    """

    def __init__(self, source: Source, annotations: Annotations) -> None:
        self.source, self.annotations = source, annotations
        self.samples: dict[Place, Samples] = {}
        self.stale: set[Place] = set()
        self.touch_all()

    def touch_all(self) -> None:
        """Look again at all that is painted, and at all that was."""
        self.stale.update(self.samples)
        for box in self.annotations.supervised_boxes():
            self.stale.update(self._some(box))

    def touch(self, region: Region) -> None:
        """Look again at a rectangle of level-0 pixels."""
        around = self._grid(region)
        known = (place for place in self.samples if tile_region(place).intersection(around))
        self.stale.update([*known, *self._some(region)])

    def update(self, place: Place, levels: Levels | None, said: Tensor | None = None) -> bool:
        """Look at a tile; False when its features are needed, because something is painted there.

        Until then, pixels that were taken before and are still painted are kept, with their class of now.

        Parameters
        ----------
        place : tuple of int
        levels : Levels or None
            Its features, where they are kept.
        said : Tensor, shape (classes, height, width), optional
            Logits of a model that knows the task; what it says beside what was painted is taken, too.
        """
        codes = codes_on_grid(self.annotations, self.source, tile_region(place))
        known = self.samples.pop(place, None)
        if levels is not None:
            taken = _taken(codes, levels, said, seed=place)
        elif known is not None:
            taken = _revised(known, codes)
        else:
            taken = None
        if taken is not None and len(taken):
            self.samples[place] = taken
        done = levels is not None or not codes.any()
        if done:
            self.stale.discard(place)
        return done

    def thin(self) -> None:
        """Give up every second pixel of each tile."""
        self.samples = {
            place: found.chosen(np.arange(len(found)) % 2 == 0) for place, found in self.samples.items()
        }

    def _some(self, box: Region) -> Iterator[Place]:
        """Tiles of a rectangle of level-0 pixels; of a large one some, always the same."""
        grid = self._grid(box)
        if grid.height * grid.width <= A_BOX * TILE**2:
            yield from tiles_of(grid)
            return
        rng = np.random.default_rng((grid.y, grid.x))
        for across, down in rng.random((A_BOX, 2)).tolist():
            yield (int(grid.y + down * grid.height) // TILE, int(grid.x + across * grid.width) // TILE)

    def _grid(self, box: Region) -> Region:
        return self.source.grid_of(box) or Region(0, 0, 1, 1)


def codes_on_grid(annotations: Annotations, source: Source, part: Region) -> NDArray[np.uint8]:
    """Codes of a rectangle of the model's grid, each read in the middle of a model pixel."""
    layer = finest_layer(source.scale, source.slide.shape)
    ratio = source.scale / 2**layer
    rows = ((np.arange(part.y, part.bottom) + 0.5) * ratio).astype(int)
    columns = ((np.arange(part.x, part.right) + 0.5) * ratio).astype(int)
    top, left = int(rows[0]), int(columns[0])
    around = Region(top, left, int(rows[-1]) - top + 1, int(columns[-1]) - left + 1)
    return annotations.read(layer, around)[np.ix_(rows - top, columns - left)]


def _taken(codes: NDArray[np.uint8], levels: Levels, said: Tensor | None, *, seed: Place) -> Samples:
    """Pixels of each class, the painted ones first, chosen by chance; and what is said beside them."""
    rng = np.random.default_rng(seed)
    classes, edited = classes_of(codes).ravel(), is_edited(codes).ravel()
    chosen = []
    for label in np.unique(classes[classes >= 0]):
        ours = classes == label
        painted, accepted = np.flatnonzero(ours & edited), np.flatnonzero(ours & ~edited)
        some = rng.permutation(painted)[:A_TILE]
        chosen += [some, rng.permutation(accepted)[: A_TILE - len(some)]]
    places = np.concatenate(chosen) if chosen else np.zeros(0, np.intp)
    classes, weight = classes[places], np.where(edited[places], 1, ACCEPTED_WEIGHT).astype(np.float32)
    count = len(places)
    if said is not None and count:
        everywhere = rng.permutation(codes.size)
        beside = everywhere[codes.ravel()[everywhere] == 0][:BESIDE]
        likely, label = said.flatten(1)[:, torch.from_numpy(beside)].float().softmax(dim=0).max(dim=0)
        sure = 2 * likely.numpy() - 1
        places = np.concatenate([places, beside[sure > 0]])
        classes = np.concatenate([classes, label.numpy()[sure > 0].astype(np.int16)])
        weight = np.concatenate([weight, sure[sure > 0]])
    rows, columns = np.divmod(places, codes.shape[1])
    features = levels.at(torch.from_numpy(rows), torch.from_numpy(columns)).half()
    return Samples(rows, columns, classes, weight, np.arange(len(places)) >= count, features)


def _revised(known: Samples, codes: NDArray[np.uint8]) -> Samples:
    """What is left of samples, with the classes that they have now."""
    now = codes[known.rows, known.columns]
    weight = np.where(is_edited(now), 1, ACCEPTED_WEIGHT).astype(np.float32)
    still = replace(
        known,
        classes=np.where(known.said, known.classes, classes_of(now)),
        weight=np.where(known.said, known.weight, weight),
    ).chosen((now > 0) != known.said)
    return still.chosen(~still.said) if still.said.all() else still
