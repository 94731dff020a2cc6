"""Segment a part of a slide, or all of it, into a store that can be looked at meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Event, Finished
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.network import Segmenter
from napari_genselfdiff.segmentation.objects import number_cells
from napari_genselfdiff.segmentation.pace import Pace
from napari_genselfdiff.segmentation.store import PredictionStore
from napari_genselfdiff.segmentation.streaming import segment_cells
from napari_genselfdiff.slides import Slide
from napari_genselfdiff.slides.tissue import Tissue


def stream_region(
    segmenter: Segmenter,
    slide: Slide,
    region: Region,
    store: PredictionStore,
    *,
    compute: Compute,
    pace: Pace | None = None,
    centre: Callable[[], tuple[float, float] | None] = lambda: None,
    tissue: Tissue | None = None,
    objects: bool = False,
    cancel: CancelToken | None = None,
) -> Iterator[Event]:
    """Segment a region of a slide into a store.

    Parameters
    ----------
    segmenter : Segmenter
    slide : Slide
    region : Region
        On the slide.
    store : PredictionStore
        Made for this slide and for the segmenter's resolution.
    compute : Compute
    pace : Pace, optional
        See `segment_cells`.
    centre : callable, optional
        ``(y, x)`` in level-0 pixels of what is looked at now; the nearest tiles come first.
    tissue : Tissue, optional
        Tiles without tissue are left out.
    objects : bool
        Whether to number the objects too, if the model knows any.
    cancel : CancelToken, optional

    Yields
    ------
    Event
        As `segment_cells` does; the message of the last one says how large the region is, and how many
        objects there are.

    Raises
    ------
    UserError
        If the slide has no tissue.
    """
    if tissue is not None and not tissue.mask.any():
        raise UserError(
            "no tissue was found on the slide",
            slide.where,
            "take paler tissue in (the slider beside Tissue outline), or segment the view",
        )
    scale = store.scale
    top, left = math.floor(region.y / scale), math.floor(region.x / scale)
    bottom = min(math.ceil(region.bottom / scale), store.grid[0])
    right = min(math.ceil(region.right / scale), store.grid[1])

    def read(y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        return slide.read_scaled(y, x, height, width, scale=scale)

    def looked_at() -> tuple[float, float] | None:
        place = centre()
        return None if place is None else (place[0] / scale, place[1] / scale)

    def wanted(part: Region) -> bool:
        sides = part.y * scale, part.x * scale, part.height * scale, part.width * scale
        return tissue is None or tissue.meets(*sides)

    part = Region(top, left, bottom - top, right - left)
    for event in segment_cells(
        segmenter,
        read,
        part,
        store,
        compute=compute,
        pace=pace,
        centre=looked_at,
        wanted=wanted,
        cancel=cancel,
    ):
        if not isinstance(event, Finished) or event.cancelled:
            yield event
            continue
        message = event.message
        if slide.mpp is not None:
            message = f"{region.height * slide.mpp:,.0f} x {region.width * slide.mpp:,.0f} µm"
        if not objects or not segmenter.spec.instances:
            yield replace(event, message=message)
            continue
        for numbered in number_cells(store, part, object_area=segmenter.spec.object_area, cancel=cancel):
            if isinstance(numbered, Finished):
                numbered = replace(numbered, result=event.result, message=f"{message}, {numbered.message}")
            yield numbered
