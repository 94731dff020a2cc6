"""From the corrections of several slides to what a round trains on and what it is judged by."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Clock, Event, Progress
from napari_genselfdiff.finetuning.corrections import (
    Outline,
    Place,
    Source,
    nothing_corrected,
    outline_corrections,
    read_place,
)
from napari_genselfdiff.finetuning.holdout import cell_numbers, held_out_slides
from napari_genselfdiff.finetuning.pixels import what_is_missing
from napari_genselfdiff.finetuning.recipe import Amount
from napari_genselfdiff.segmentation.network import Segmenter

MOST_PIXELS = 4_000_000
"""Model pixels that are read for one round; of more, places are chosen by chance."""
HALVES = 2


@dataclass(frozen=True)
class Cut:
    """What a round trains on and is judged by.

    Attributes
    ----------
    places : list of Place
        ``held`` of each says what is never trained on.
    positions : dict of str to int
        Position in the journal of each source that the places belong to.
    reading : float
        Seconds that it took to read the places and to ask the model about them.
    """

    places: list[Place]
    positions: dict[str, int]
    reading: float = 0.0

    @property
    def trained(self) -> list[NDArray[np.bool_]]:
        """What was drawn and is trained on, of each place."""
        return [place.drawn & ~place.held for place in self.places]

    @property
    def names(self) -> list[str]:
        """Sources that have a place."""
        return sorted({place.slide for place in self.places})

    @property
    def amount(self) -> Amount:
        """How much is trained on."""
        cells = set[tuple[str, int]]()
        for place, mask in zip(self.places, self.trained, strict=True):
            numbers = np.unique(cell_numbers(mask.shape, place.origin)[mask])
            cells |= {(place.slide, cell) for cell in numbers.tolist()}
        pixels = sum(int(mask.sum()) for mask in self.trained)
        pairs = zip(self.places, self.trained, strict=True)
        return Amount(pixels, sum(int((place.changed & mask).sum()) for place, mask in pairs), len(cells))

    @property
    def classes(self) -> list[int]:
        """Those of which something is trained on."""
        pairs = zip(self.places, self.trained, strict=True)
        return sorted({label for place, mask in pairs for label in np.unique(place.labels[mask]).tolist()})

    def settled(self) -> Cut:
        """With what is held out where several slides were corrected, or where all would be held out."""
        whole = held_out_slides(self.names)
        places = [replace(p, held=np.ones_like(p.held)) if p.slide in whole else p for p in self.places]
        if not any((place.drawn & ~place.held).any() for place in places):
            # All that was drawn lies in what is held out: learn from it, and leave the score open.
            places = [replace(place, held=np.zeros_like(place.held)) for place in places]
        return replace(self, places=places)

    def of_two_classes(self, classes: Sequence[str]) -> Cut:
        """With two classes at least to learn from, as a model needs that knows nothing yet.

        Where what is not held out is of one class alone, all is learned from, and the score is left open.

        Raises
        ------
        UserError
            If only one class was drawn.
        """
        if len(self.classes) > 1:
            return self
        present = np.unique(np.concatenate([place.labels[place.drawn] for place in self.places]))
        if len(present) < 2:
            raise UserError(what_is_missing(present, classes))
        return replace(self, places=[replace(p, held=np.zeros_like(p.held)) for p in self.places])

    def halves(self) -> list[list[NDArray[np.bool_]]]:
        """For each half of the regions that are trained on, where it lies in each place."""
        halves: list[list[NDArray[np.bool_]]] = [[] for _ in range(HALVES)]
        for place in self.places:
            cells = cell_numbers(place.held.shape, place.origin)
            numbers, where = np.unique(cells, return_inverse=True)
            half = np.array([_half(f"{place.slide}:{cell}") for cell in numbers.tolist()])
            for index, masks in enumerate(halves):
                masks.append((half == index)[where.reshape(cells.shape)] & ~place.held)
        return halves


def cut_places(
    sources: Sequence[Source],
    segmenter: Segmenter,
    *,
    compute: Compute,
    fresh: bool,
    seed: int,
    cancel: CancelToken,
) -> Generator[Event, None, Cut | None]:
    """Cut the examples of a round; None when it was cancelled.

    Parameters are those of `rounds.train_round`.

    Raises
    ------
    UserError
        If nothing was corrected, only one class for a model that is new, or no corrected slide could be read.
    """
    outlines: list[Outline] = []
    positions: dict[str, int] = {}
    failure: UserError | None = None
    for source in sources:
        try:
            found, position = outline_corrections(source, segmenter)
        except (UserError, OSError) as error:
            failure = failure or _told(error, source)
            yield Progress(0, 0, f"left out: {_told(error, source)}")
            continue
        if found:
            outlines += found
            positions[source.name] = position
    outlines = _some(outlines, seed)
    places: list[Place] = []
    lost: set[str] = set()
    clock, notes = Clock(), list[str]()
    for index, outline in enumerate(outlines):
        if cancel.cancelled:
            return None
        yield Progress(index, len(outlines), "reading your corrections", clock.left(index, len(outlines)))
        if outline.source.name in lost:
            continue
        try:
            places.append(read_place(outline, segmenter, compute=compute, fresh=fresh, notes=notes))
        except (UserError, OSError) as error:
            failure = failure or _told(error, outline.source)
            lost.add(outline.source.name)
            yield Progress(index, len(outlines), f"left out: {_told(error, outline.source)}")
        yield from (Progress(index, len(outlines), note) for note in notes)
        notes.clear()
    places = [place for place in places if place.slide not in lost]
    if not places:
        raise failure or nothing_corrected(sources[0].slide.name if sources else None)
    belonging = {name: positions[name] for name in sorted({place.slide for place in places})}
    cut = Cut(places, belonging, clock.seconds).settled()
    return cut.of_two_classes(segmenter.spec.classes) if fresh else cut


def _told(error: UserError | OSError, source: Source) -> UserError:
    if isinstance(error, UserError):
        return error
    return UserError(
        f"the slide could not be read ({error})", source.slide.name, "check that it is in its place"
    )


def _some(outlines: list[Outline], seed: int) -> list[Outline]:
    """As many places as can be read in a round, chosen by chance where there are more."""
    order = np.random.default_rng(seed).permutation(len(outlines)).tolist()
    chosen, left = set[int](), MOST_PIXELS
    for index in order:
        if outlines[index].codes.size <= left or not chosen:
            chosen.add(index)
            left -= outlines[index].codes.size
    return [outlines[index] for index in sorted(chosen)]


def _half(key: str) -> int:
    return hashlib.sha256(f"half {key}".encode()).digest()[0] % HALVES
