"""Rectangles on a slide, in level-0 pixels, ``(y, x)``, and its power-of-two layers.

Layer k of a slide has pixels of ``2**k`` level-0 pixels, whatever levels the file has.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Region:
    """A rectangle in level-0 pixels.

    Attributes
    ----------
    y, x : int
        First row and column.
    height, width : int
        Size in pixels, positive.
    """

    y: int
    x: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """Row behind the last one."""
        return self.y + self.height

    @property
    def right(self) -> int:
        """Column behind the last one."""
        return self.x + self.width

    @property
    def centre(self) -> tuple[float, float]:
        """``(y, x)`` of the middle."""
        return self.y + self.height / 2, self.x + self.width / 2

    def grown(self, border: int) -> Region:
        """With so many pixels more on every side."""
        return Region(self.y - border, self.x - border, self.height + 2 * border, self.width + 2 * border)

    def within(self, outer: Region) -> tuple[slice, slice]:
        """Where it lies in an array of the pixels of an outer region."""
        return (
            slice(self.y - outer.y, self.bottom - outer.y),
            slice(self.x - outer.x, self.right - outer.x),
        )

    def clipped(self, height: int, width: int) -> Region | None:
        """The part that lies on a slide of this size, or None when nothing does."""
        return self.intersection(Region(0, 0, height, width))

    def intersection(self, other: Region) -> Region | None:
        """The part that two regions share, or None."""
        y, x = max(self.y, other.y), max(self.x, other.x)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return Region(y, x, bottom - y, right - x) if bottom > y and right > x else None


COARSEST = 512
"""Layers are added until the longer side is at most this long."""


def layer_shape(shape: tuple[int, int], layer: int) -> tuple[int, int]:
    """``(height, width)`` of a layer of a slide with this level-0 shape; the last pixels may be partial."""
    return -(-shape[0] >> layer), -(-shape[1] >> layer)


def layer_count(shape: tuple[int, int], coarsest: int = COARSEST) -> int:
    """Layers until the longer side is at most ``coarsest`` pixels."""
    count = 1
    while max(layer_shape(shape, count - 1)) > coarsest:
        count += 1
    return count
