"""The place that the plugin suggests, asked for as the plugin asks: from the stores of its predictions."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from interactive_learners import CLASSES, result_of
from interactive_project import WINDOW, Page, Place, free_places
from napari_genselfdiff.events import TileDone
from napari_genselfdiff.finetuning.suggestions import SegmentedSlide, Suggestion, next_place
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.store import PredictionStore


def suggested_place(pages: Sequence[Page], maps: Sequence[NDArray[np.float32]]) -> Place:
    """Where to correct next; the first free window when the plugin has nothing more to suggest.

    Parameters
    ----------
    pages : sequence of Page
    maps : sequence of ndarray of float32
        Probability of the foreground on each.
    """
    with tempfile.TemporaryDirectory() as folder:
        slides = []
        for number, (page, probability) in enumerate(zip(pages, maps, strict=True)):
            store = PredictionStore(Path(folder) / f"{number}.zarr", page.slide.shape, page.scale)
            labels = (probability > 0.5).astype(np.uint8)
            sure = np.rint(np.maximum(probability, 1 - probability) * 255).astype(np.uint8)
            store.write_tile(TileDone((0, 0), labels, sure), (0, 0))
            seen = [_scaled(window, page.scale) for window in page.windows]
            slides.append(SegmentedSlide(page.slide, store, CLASSES, seen))
        found: Suggestion | None = result_of(next_place(slides, window=WINDOW))
    if found is None:
        return free_places(pages)[0]
    page = pages[found.slide]
    there = _scaled(found.region, 1 / page.scale)
    height, width = page.drawn.shape
    sides = min(WINDOW, height), min(WINDOW, width)
    return Place(found.slide, Region(min(there.y, height - sides[0]), min(there.x, width - sides[1]), *sides))


def _scaled(region: Region, factor: float) -> Region:
    return Region(*(round(value * factor) for value in (region.y, region.x, region.height, region.width)))
