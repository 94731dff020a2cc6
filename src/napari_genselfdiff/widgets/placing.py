"""Where the editable window lies, given what is on the screen."""

from __future__ import annotations

import math
from dataclasses import dataclass

from napari_genselfdiff.geometry import Region, layer_shape

LARGEST = 2048
"""Longest side of the window in its own pixels; painting is fast up to here."""
SMALLEST_MARGIN = LARGEST // 10
"""Pixels of the window beyond the view on every side, so that small moves stay inside."""
_TOLERANCE = 0.75
"""Zooming changes the magnification of the window when it is further off than so many powers of two."""


@dataclass(frozen=True)
class Place:
    """A place of the editable window.

    Attributes
    ----------
    layer : int
        Magnification: a pixel of the window is ``2**layer`` level-0 pixels wide.
    y, x, height, width : int
        In the window's pixels, counted from the slide's corner.
    """

    layer: int
    y: int
    x: int
    height: int
    width: int

    @property
    def region(self) -> Region:
        """The place on the slide, in level-0 pixels; the last pixels may reach beyond it."""
        pixel = 2**self.layer
        return Region(self.y * pixel, self.x * pixel, self.height * pixel, self.width * pixel)


def place_for(
    view: Region, screen_pixel: float, shape: tuple[int, int], layers: int, now: Place | None = None
) -> Place:
    """The place that a window should have.

    Parameters
    ----------
    view : Region
        What is on the screen, in level-0 pixels; on the slide.
    screen_pixel : float
        Level-0 pixels across a screen pixel.
    shape : tuple of int
        ``(height, width)`` of the slide in level-0 pixels.
    layers : int
        Number of layers of the slide.
    now : Place, optional
        Where it is.

    Returns
    -------
    Place
        ``now`` itself when it still does. Else the view in its middle, with a margin of half the view where
        there is room for it.
    """
    wanted = math.log2(max(1.0, screen_pixel))
    layer = round(wanted) if now is None or abs(wanted - now.layer) > _TOLERANCE else now.layer
    layer = min(layer, layers - 1)
    # A view that is too large for the window gets a coarser one rather than one of a part of the view.
    while max(view.height, view.width) > (LARGEST - 2 * SMALLEST_MARGIN) << layer and layer < layers - 1:
        layer += 1
    if now is not None and now.layer == layer and now.region.intersection(view) == view:
        return now
    (y, height), (x, width) = (
        _with_margin(start >> layer, -(-end >> layer), limit)
        for (start, end), limit in zip(
            ((view.y, view.bottom), (view.x, view.right)), layer_shape(shape, layer), strict=True
        )
    )
    return Place(layer, y, x, height, width)


def _with_margin(start: int, end: int, limit: int) -> tuple[int, int]:
    """First pixel and length of one side of the window."""
    margin = min((end - start) // 2, (LARGEST - (end - start)) // 2)
    first, last = max(0, start - margin), min(limit, end + margin)
    return first, last - first
