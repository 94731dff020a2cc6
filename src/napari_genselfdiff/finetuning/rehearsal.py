"""Tissue far from all corrections, on which a young model rehearses what it says.

What was corrected is hard, and lies in a few windows. A model that learns from these and their surroundings
alone, round after round, can lose the rest of the slides without a sign of it
(``docs/benchmarks/circle.md``). So a part of the patches shows random tissue of the same slides with what the
model in use says there (rehearsal of pseudo-patterns, Robins 1995, Connection Science 7, 123).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

import numpy as np

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Event, Progress
from napari_genselfdiff.finetuning.corrections import Outline, Place, Source, read_place
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.finetuning.feature_tiles import Source as Scaled
from napari_genselfdiff.finetuning.holdout import CELL, held_out_slides
from napari_genselfdiff.finetuning.strokes import codes_on_grid
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.network import Segmenter
from napari_genselfdiff.slides.tiles import sample_tiles

TILES, SIDE = 6, 4 * CELL
"""So many squares of tissue, and their side in model pixels."""


def rehearsed(
    sources: Sequence[Source], segmenter: Segmenter, *, compute: Compute, seed: int, cancel: CancelToken
) -> Generator[Event, None, list[Example]]:
    """Random tissue of corrected slides, with what the model in use says there, by how sure it is.

    What is held out is not rehearsed either, and what a person drew counts for nothing here.

    Parameters
    ----------
    sources : sequence of Source
        Slides that can be read.
    segmenter : Segmenter
        The model in use.
    compute : Compute
    seed : int
        Each gives other tiles.
    cancel : CancelToken

    Yields
    ------
    Event
        `Progress`.

    Returns
    -------
    list of Example
        Fewer than `TILES`, or none, where slides have no tissue or no resolution, or a file cannot be read.
    """
    apart = held_out_slides([source.name for source in sources])
    free = [source for source in sources if source.name not in apart]
    rng, examples = np.random.default_rng(seed), list[Example]()
    counts = np.bincount(rng.integers(len(free), size=TILES), minlength=len(free))
    for source, count in zip(free, counts.tolist(), strict=True):
        if cancel.cancelled or not count:
            continue
        yield Progress(len(examples), TILES, "looking at the rest of the slides")
        try:
            examples += [place.example() for place in _places(source, segmenter, compute, count, seed)]
        except (UserError, OSError):
            continue  # the corrections themselves were read, and a round does not need this
    return examples


def _places(source: Source, segmenter: Segmenter, compute: Compute, count: int, seed: int) -> Iterator[Place]:
    slide = source.slide
    scale = segmenter.spec.scale_for(slide.mpp, slide.where)
    sample = sample_tiles([slide], mpp=scale * (slide.mpp or 0), side=SIDE, count=count, seed=seed)
    for tile in sample.training:
        part = Region(tile.y, tile.x, tile.height, tile.width)
        nothing = np.zeros((tile.height, tile.width), np.uint8)
        place = read_place(Outline(source, (tile.y, tile.x), scale, nothing), segmenter, compute=compute)
        drawn = codes_on_grid(source.annotations, Scaled(slide, source.name, scale), part) > 0
        yield replace(place, sure=np.where(drawn, np.float32(0), place.sure))
