"""A pathologist who corrects with a brush, as far as one can be simulated.

What is wrong in a window falls into connected parts. Those that a person would see, which outlines that are
off by a pixel or two are not, are painted over one after another, the largest first, foreground and
background in turns. A stroke runs through the middle of the part, along the longest way in its skeleton, in
straight pieces between a few points, as a hand draws them. The brush is round. A person stays inside: what
a stroke would paint beyond its own class is left out. The window is done when nothing is left to see or the
budget of touched pixels is used.

Positions are pixels of the model, ``(y, x)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import line
from skimage.graph import MCP_Geometric
from skimage.measure import approximate_polygon
from skimage.morphology import disk, skeletonize

from napari_genselfdiff.geometry import Region

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]

RADIUS = 2
"""Of the brush in pixels: 5 pixels across, 2.5 µm on nuclei and 8 µm on glands."""
LONGEST = 60
"""Pixels; then the hand is lifted."""
STROKES = 5
"""At least so many share a budget, so that both classes get their part."""
STRAIGHT = 1.0
"""Pixels that a stroke may leave the skeleton by."""
SMALLEST = 12
"""Pixels of a part that a person still corrects."""
APART = 3 * RADIUS
"""Pixels between strokes in one large part."""
UNPREDICTED = 255
"""In place of a class where no model has said anything."""


@dataclass(frozen=True)
class Stroke:
    """One movement of the brush.

    Attributes
    ----------
    label : int
        The class that is painted.
    points : tuple of (int, int)
        Corners of the line, ``(y, x)`` in the image.
    radius : int
    """

    label: int
    points: tuple[tuple[int, int], ...]
    radius: int = RADIUS

    def mask(self, truth: Labels) -> Mask:
        """What is painted: the line with the brush's width, as far as it is right."""
        drawn = np.zeros(truth.shape, bool)
        drawn[self.points[0]] = True
        for (y, x), (to_y, to_x) in pairwise(self.points):
            drawn[line(y, x, to_y, to_x)] = True
        painted: Mask = ndimage.binary_dilation(drawn, disk(self.radius)) & (truth == self.label)
        return painted


def correct(truth: Labels, predicted: Labels, drawn: Mask, window: Region, *, budget: int) -> list[Stroke]:
    """Strokes that correct a window.

    Parameters
    ----------
    truth, predicted : ndarray of uint8, shape (height, width)
        Classes of the whole image; `UNPREDICTED` where there is no prediction yet.
    drawn : ndarray of bool, shape (height, width)
        What was painted before, and is not painted again.
    window : Region
        In pixels of the image.
    budget : int
        Touched pixels; the last stroke ends where they are used up.

    Returns
    -------
    list of Stroke
    """
    view = np.s_[window.y : window.bottom, window.x : window.right]
    right = truth[view]
    touched = drawn[view].copy()
    strokes: list[Stroke] = []
    left, most, painted = budget, max(SMALLEST, budget // STROKES), True
    while painted and left >= SMALLEST:
        painted = False
        # The second time round in what is still untouched of large parts, at a distance from other strokes.
        near = ndimage.binary_dilation(touched, disk(APART))
        for label, part in _in_turns((right != predicted[view]) & ~near, right):
            for points in _within_budget(_through_the_middle(part), min(left, most)):
                stroke = Stroke(label, points)
                new = stroke.mask(right) & ~touched
                if new.sum() <= min(left, most):
                    touched |= new
                    left -= int(new.sum())
                    strokes.append(Stroke(label, tuple((y + window.y, x + window.x) for y, x in points)))
                    painted = True
                    break
            if left < SMALLEST:
                break
    return strokes


def _in_turns(missed: Mask, truth: Labels) -> Iterator[tuple[int, Mask]]:
    """Connected parts of what is wrong, largest first, the classes in turns."""
    queues: list[list[tuple[int, int, Mask]]] = []
    for label in np.unique(truth[missed]).tolist():
        numbers, count = ndimage.label(_seen(missed & (truth == label)))
        sizes = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
        order = np.argsort(-sizes, kind="stable")
        queues.append([(int(sizes[i]), label, numbers == i + 1) for i in order if sizes[i] >= SMALLEST])
    queues.sort(key=lambda queue: -queue[0][0] if queue else 0)
    while any(queues):
        for queue in queues:
            if queue:
                _, label, part = queue.pop(0)
                yield label, part


def _seen(missed: Mask) -> Mask:
    """Without rims one or two pixels wide."""
    opened: Mask = ndimage.binary_opening(missed, disk(1))
    return opened


def _through_the_middle(part: Mask) -> list[tuple[int, int]]:
    """The longest way in the skeleton of a part, at most `LONGEST` pixels of it."""
    skeleton = skeletonize(part)
    if not skeleton.any():
        skeleton = part
    places = np.argwhere(skeleton)
    costs = np.where(skeleton, 1.0, np.inf)
    first = _farthest(costs, tuple(places[len(places) // 2]), skeleton)
    finder: Any = MCP_Geometric(costs)
    reached = finder.find_costs([first])[0]
    last = _argmax(np.where(skeleton & np.isfinite(reached), reached, -1))
    way = [(int(y), int(x)) for y, x in finder.traceback(last)]
    spare = max(0, len(way) - LONGEST) // 2
    return way[spare : spare + LONGEST]


def _farthest(costs: NDArray[np.float64], start: tuple[int, ...], skeleton: Mask) -> tuple[int, ...]:
    finder: Any = MCP_Geometric(costs)
    reached = finder.find_costs([start])[0]
    return _argmax(np.where(skeleton & np.isfinite(reached), reached, -1))


def _argmax(values: NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(values.argmax()), values.shape))


def _within_budget(way: list[tuple[int, int]], left: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """The line through a way, and shorter ones for when it would touch too much."""
    length = min(len(way), max(1, left // (2 * RADIUS)))
    while length >= 1:
        corners = approximate_polygon(np.array(way[:length]), STRAIGHT)
        yield tuple((int(y), int(x)) for y, x in corners)
        length = length * 3 // 4
