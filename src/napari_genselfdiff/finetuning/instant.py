"""The first gear: a light classifier on frozen features answers every stroke at once.

Features of what is on the screen are computed once and kept (`feature_tiles`). What was painted, on all
slides and in all views, is kept as features of single pixels (`strokes`): learning needs nothing else. The
choice of the classifier is measured in ``docs/benchmarks/circle.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from napari_genselfdiff.annotations import encode
from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.frozen import Levels
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Clock, Event, Finished, Progress
from napari_genselfdiff.finetuning.feature_tiles import (
    CACHE_BYTES,
    FeatureTiles,
    Place,
    Source,
    tile_region,
    tiles_of,
)
from napari_genselfdiff.finetuning.pixels import (
    LEARNED,
    PixelClassifier,
    balanced_choice,
    fit_classes,
    what_is_missing,
)
from napari_genselfdiff.finetuning.strokes import KEPT, Painted
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.network import MAX_CLASSES, Segmenter
from napari_genselfdiff.segmentation.store import finest_layer
from napari_genselfdiff.slides.fingerprint import slide_fingerprint

if TYPE_CHECKING:
    from napari_genselfdiff.annotations import Annotations, Change
    from napari_genselfdiff.slides import Slide

LARGEST_VIEW = 3 * 2**20
"""Model pixels of a view; of a larger one the middle is answered."""
UNKNOWN = 255
"""Label of a pixel that is not answered yet."""


@dataclass(frozen=True)
class View:
    """A part of a slide that is looked at.

    Attributes
    ----------
    source : Source
        The slide at the model's resolution.
    grid : Region
        The part, in model pixels.
    whole : bool
        Whether all that was asked for is in it; a part that is too large gets its middle.
    """

    source: Source
    grid: Region
    whole: bool = True

    @property
    def tiles(self) -> list[Place]:
        """Tiles of the slide's grid that it meets."""
        return tiles_of(self.grid)


@dataclass(frozen=True)
class Learned:
    """What a classifier was made of.

    Attributes
    ----------
    classifier : PixelClassifier
    classes : tuple of int
        Classes that were painted; the classifier knows no others.
    pixels : int
        So many pixels it learned from.
    """

    classifier: PixelClassifier
    classes: tuple[int, ...]
    pixels: int


@dataclass(frozen=True)
class Answer:
    """An answer for a view.

    Attributes
    ----------
    view : View
    labels : ndarray of uint8, shape of the view's grid
        Class of each pixel; 255 where it is not known yet.
    confidence : ndarray of uint8, same shape
        Probability of that class, 0 to 255.
    """

    view: View
    labels: NDArray[np.uint8]
    confidence: NDArray[np.uint8]

    @property
    def complete(self) -> bool:
        """Whether every pixel is answered."""
        return not bool((self.labels == UNKNOWN).any())


class InstantTask:
    """Answers strokes on the features of a network that is not trained.

    Parameters
    ----------
    network : Segmenter or UNet
        The model in use, or a pretext for a task that has no model yet.
    compute : Compute
    classes : sequence of str, optional
        Names, the background first, 2 to 17; those of the segmenter by default.
    fresh : bool
        Whether the network knows nothing of the task yet, as a pretext does. Else what it says beside the
        strokes counts, too: they lie where it is wrong, and what is learned from errors alone is nearly the
        reverse of the tissue.
    max_bytes : int
        Of features that are kept.

    Notes
    -----
    The methods belong to one thread at a time. The answer depends on what is painted, and neither on the
    order of the strokes, nor on how views were cut, nor on what was answered before.
    """

    def __init__(
        self,
        network: Segmenter | UNet,
        *,
        compute: Compute,
        classes: Sequence[str] | None = None,
        fresh: bool = False,
        max_bytes: int = CACHE_BYTES,
    ) -> None:
        if classes is None:
            if not isinstance(network, Segmenter):
                raise ValueError("a pretext has no classes: name them")
            classes = network.spec.classes
        if not 2 <= len(classes) <= MAX_CLASSES:
            raise UserError(
                f"a task has 1 to {MAX_CLASSES - 1} classes beside the background",
                f"{len(classes) - 1} were named",
                "name fewer classes",
            )
        self.classes = tuple(classes)
        self.fresh = fresh or not isinstance(network, Segmenter)
        self.tiles = FeatureTiles(network, compute=compute, max_bytes=max_bytes)
        self._keys: WeakKeyDictionary[Slide, str] = WeakKeyDictionary()
        self._painted: dict[str, Painted] = {}

    def source(self, slide: Slide, *, scale: float) -> Source:
        """A slide at so many level-0 pixels a model pixel."""
        if slide not in self._keys:
            self._keys[slide] = slide_fingerprint(slide)
        return Source(slide, f"{self._keys[slide]}-{scale:.6g}", scale)

    def view(self, slide: Slide, region: Region, *, scale: float) -> View:
        """A part of a slide to be answered.

        Parameters
        ----------
        slide : Slide
        region : Region
            In level-0 pixels.
        scale : float
            Level-0 pixels a model pixel.

        Raises
        ------
        UserError
            If the region shows no part of the slide.
        """
        source = self.source(slide, scale=scale)
        grid = source.grid_of(region)
        if grid is None:
            raise UserError("the view shows no part of the slide", slide.name, "move the slide into view")
        inner = _middle(grid)
        return View(source, inner, inner == grid)

    def add_view(self, view: View, *, cancel: CancelToken | None = None) -> Iterator[Event]:
        """Compute the features of a view that are not kept, the middle first.

        Yields
        ------
        Event
            `Progress` in tiles, then `Finished`.
        """
        cancel, clock = cancel or CancelToken(), Clock()
        total = len(self.tiles.missing(view.source, view.tiles))
        done = 0
        for computed in self.tiles.fill(view.source, view.tiles, view.grid.centre):
            done += len(computed)
            yield Progress(done, total, "looking at the view", clock.left(done, total))
            if cancel.cancelled:
                break
        yield Finished(done, f"{done:,} of {total:,} tiles", cancelled=done < total)

    def touch(self, slide: Slide, change: Change | Region | None, *, scale: float) -> None:
        """Say that something was painted, or taken back; a region is in level-0 pixels.

        None says that nobody knows where: all that is painted on the slide, and was, is looked at again.
        """
        painted = self._painted.get(self.source(slide, scale=scale).key)
        if painted is None:
            return  # it will be looked at as a whole
        if change is None:
            painted.touch_all()
            return
        if not isinstance(change, Region):
            width = 2**change.layer
            change = Region(change.y * width, change.x * width, change.height * width, change.width * width)
        painted.touch(change)

    def look(self, slide: Slide, annotations: Annotations, *, scale: float) -> int:
        """Look at what was painted where features are kept.

        Returns
        -------
        int
            Tiles in which something is painted that cannot be learned from before `catch_up`.
        """
        painted = self._of(slide, annotations, scale)
        for place in sorted(painted.stale):
            self._update(painted, place, self.tiles.get(painted.source, place))
        self._thin()
        return len(painted.stale)

    def catch_up(
        self, slide: Slide, annotations: Annotations, *, scale: float, cancel: CancelToken | None = None
    ) -> Iterator[Event]:
        """Compute the features of what was painted out of view (in an earlier session, for one).

        Yields
        ------
        Event
            `Progress` in tiles, then `Finished`; its result is the number of tiles that were learned from.
        """
        cancel, clock = cancel or CancelToken(), Clock()
        self.look(slide, annotations, scale=scale)
        painted = self._of(slide, annotations, scale)
        places = sorted(painted.stale)
        done = 0
        for row, column in places:
            if cancel.cancelled:
                break
            for place, levels in self.tiles.computed(painted.source, Region(row, column, 1, 1)):
                self._update(painted, place, levels)
            done += 1
            yield Progress(done, len(places), "reading earlier strokes", clock.left(done, len(places)))
        self._thin()
        yield Finished(done, f"{done:,} of {len(places):,} places", cancelled=done < len(places))

    def learn(self) -> Learned:
        """Fit the classifier to all that was painted and looked at, on every slide.

        Raises
        ------
        UserError
            If nothing was painted, or one class only and no model says anything of another.
        """
        samples = [
            found
            for _, painted in sorted(self._painted.items())
            for _, found in sorted(painted.samples.items())
        ]
        numbers = np.concatenate([found.classes for found in samples]) if samples else np.zeros(0, np.int16)
        present = np.unique(numbers)
        if not self.fresh and not len(present):
            raise UserError("paint over what the model has wrong")
        if len(present) < 2:
            raise UserError(what_is_missing(present, self.classes))
        said = np.concatenate([found.said for found in samples])
        painted, beside = np.flatnonzero(~said), np.flatnonzero(said)
        beside = np.random.default_rng(0).permutation(beside)[:LEARNED]
        chosen = np.concatenate([painted[balanced_choice(numbers[painted])], beside])
        features = torch.cat([found.features for found in samples])[torch.from_numpy(chosen)].float()
        weight = np.concatenate([found.weight for found in samples])[chosen]
        classifier, present = fit_classes(features, numbers[chosen], weight, said[chosen])
        return Learned(classifier, tuple(int(label) for label in present), len(chosen))

    def answer(self, view: View, learned: Learned) -> Answer:
        """Answer a view as far as its features are kept."""
        answer = _empty(view)
        for place in view.tiles:
            self._answer_tile(answer, place, learned)
        return answer

    def answers(self, view: View, learned: Learned) -> Iterator[Answer]:
        """Answer a view: what is kept at once, the rest as its features are computed, the middle first.

        Yields
        ------
        Answer
            The same one, as it grows.
        """
        answer = self.answer(view, learned)
        yield answer
        for computed in self.tiles.fill(view.source, view.tiles, view.grid.centre):
            for place in computed:
                self._answer_tile(answer, place, learned)
            yield answer

    @torch.inference_mode()
    def _answer_tile(self, answer: Answer, place: Place, learned: Learned) -> None:
        """Write the answer of a tile, where its features are kept."""
        levels = self.tiles.get(answer.view.source, place)
        tile = tile_region(place)
        part = tile.intersection(answer.view.grid)
        if levels is None or part is None:
            return
        top, left = part.y - tile.y, part.x - tile.x
        seen, y, x = levels.around(top, left, top + part.height, left + part.width)
        probability, label = learned.classifier.over(seen).softmax(dim=0).max(dim=0)
        known = torch.tensor(learned.classes)
        label, said = known[label], self.tiles.said(seen)
        if not self.fresh and not set(range(len(said))).issubset(learned.classes):
            # Of a class that is not near any stroke, only the model can say that it is there.
            sure, own = said.float().softmax(dim=0).max(dim=0)
            only = torch.isin(own, known, invert=True)
            label, probability = torch.where(only, own, label), torch.where(only, sure, probability)
        inside = np.s_[top - y : top - y + part.height, left - x : left - x + part.width]
        there = part.within(answer.view.grid)
        answer.labels[there] = label.numpy()[inside].astype(np.uint8)
        answer.confidence[there] = (probability.numpy()[inside] * 255).round().astype(np.uint8)

    def _update(self, painted: Painted, place: Place, levels: Levels | None) -> None:
        said = None if levels is None or self.fresh else self.tiles.said(levels)
        painted.update(place, levels, said)

    def _of(self, slide: Slide, annotations: Annotations, scale: float) -> Painted:
        source = self.source(slide, scale=scale)
        painted = self._painted.get(source.key)
        if painted is None or painted.annotations is not annotations:
            painted = self._painted[source.key] = Painted(source, annotations)
        return painted

    def _thin(self) -> None:
        while sum(len(s) for painted in self._painted.values() for s in painted.samples.values()) > KEPT:
            for painted in self._painted.values():
                painted.thin()


def accept_answer(annotations: Annotations, answer: Answer) -> Change | None:
    """Keep an answer as annotations of the accepted kind; what was painted by hand stays as it is.

    One step of the history, at the slide's layer nearest to the model's resolution.

    Raises
    ------
    UserError
        If the session is read-only or it cannot be written.
    """
    source, grid = answer.view.source, answer.view.grid
    layer = finest_layer(source.scale, source.slide.shape)
    ratio = source.scale / 2**layer
    first_y, first_x = (int(np.ceil(start * ratio - 0.5)) for start in (grid.y, grid.x))
    end_y, end_x = (int(np.ceil(end * ratio - 0.5)) for end in (grid.bottom, grid.right))
    rows = ((np.arange(first_y, end_y) + 0.5) / ratio).astype(int) - grid.y
    columns = ((np.arange(first_x, end_x) + 0.5) / ratio).astype(int) - grid.x
    rows, columns = rows.clip(0, grid.height - 1), columns.clip(0, grid.width - 1)
    labels = answer.labels[np.ix_(rows, columns)]
    codes = encode(np.where(labels == UNKNOWN, -1, labels.astype(np.int16)))
    return annotations.accept(layer, Region(first_y, first_x, *codes.shape), codes)


def _empty(view: View) -> Answer:
    shape = view.grid.height, view.grid.width
    return Answer(view, np.full(shape, UNKNOWN, np.uint8), np.zeros(shape, np.uint8))


def _middle(grid: Region) -> Region:
    """The part of a view that is answered: all of it, or so much of its middle as is fast."""
    share = (LARGEST_VIEW / (grid.height * grid.width)) ** 0.5
    if share >= 1:
        return grid
    height, width = int(grid.height * share), int(grid.width * share)
    return Region(grid.y + (grid.height - height) // 2, grid.x + (grid.width - width) // 2, height, width)
