"""Arithmetic of layers: layer ``k`` is the slide at 1 / 2**k, each pixel 2 x 2 pixels of the layer below.

Rectangles here are `Region` objects in the pixels of a layer, not of level 0.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.annotations.codes import JOINED_BIT, UNSEEN, Codes, Mask, is_edited
from napari_genselfdiff.geometry import Region

Pixel = TypeVar("Pixel", bound=np.generic)


def layer_count(shape: tuple[int, int], chunk: int) -> int:
    """Layers until the whole slide fits into one chunk."""
    count = 1
    while max(layer_shape(shape, count - 1)) > chunk:
        count += 1
    return count


def layer_shape(shape: tuple[int, int], layer: int) -> tuple[int, int]:
    """Size of a layer in its pixels; the last ones may be partial."""
    return -(-shape[0] >> layer), -(-shape[1] >> layer)


def rescaled(box: Region, source: int, target: int) -> Region:
    """Return the smallest rectangle in the pixels of layer ``target`` that covers one of layer ``source``."""
    if target <= source:
        up = source - target
        return Region(box.y << up, box.x << up, box.height << up, box.width << up)
    down = target - source
    y, x = box.y >> down, box.x >> down
    return Region(y, x, -(-box.bottom >> down) - y, -(-box.right >> down) - x)


def hull(boxes: list[Region]) -> Region:
    """Return the smallest rectangle around some rectangles."""
    y, x = min(box.y for box in boxes), min(box.x for box in boxes)
    return Region(y, x, max(box.bottom for box in boxes) - y, max(box.right for box in boxes) - x)


def within(part: Region, whole: Region) -> tuple[slice, slice]:
    """Return the slices of a rectangle in an image of another one that holds it."""
    y, x = part.y - whole.y, part.x - whole.x
    return slice(y, y + part.height), slice(x, x + part.width)


def bounds(mask: Mask) -> Region | None:
    """Return the smallest rectangle around the set pixels, or None."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    y, x = int(rows[0]), int(columns[0])
    return Region(y, x, int(rows[-1]) - y + 1, int(columns[-1]) - x + 1)


def enlarged(
    coarse: NDArray[Pixel], origin: tuple[int, int], box: Region, factor_log2: int
) -> NDArray[Pixel]:
    """Nearest-neighbour enlargement by ``2**factor_log2``, cut to a box of the finer layer.

    Parameters
    ----------
    coarse : ndarray, shape (height, width)
        Pixels of the coarser layer.
    origin : tuple of int
        ``(y, x)`` of its first pixel, in the coarser layer.
    box : Region
        What to return, in the pixels of the finer layer.
    """
    rows = (np.arange(box.y, box.bottom) >> factor_log2) - origin[0]
    columns = (np.arange(box.x, box.right) >> factor_log2) - origin[1]
    large: NDArray[Pixel] = coarse[rows[:, None], columns[None, :]]
    return large


def any_of_four(mask: Mask) -> Mask:
    """Whether any of the 2 x 2 pixels is set; both sides are even."""
    some: Mask = mask[0::2, 0::2] | mask[0::2, 1::2] | mask[1::2, 0::2] | mask[1::2, 1::2]
    return some


def halved(codes: Codes) -> Codes:
    """Take the most frequent seen code of each 2 x 2 pixels; both sides are even.

    Unseen pixels do not vote. Between equally frequent codes, an edited one wins over an accepted one, then
    the first in reading order. Whether they are joined does not count; the winner is, if any of its kind is.
    """
    children = codes[0::2, 0::2], codes[0::2, 1::2], codes[1::2, 0::2], codes[1::2, 1::2]
    result: Codes = children[0].copy()
    # Most pixels lie inside of something: only those on a border need a vote.
    mixed = (children[1] != result) | (children[2] != result) | (children[3] != result)
    if not bool(mixed.any()):
        return result
    voters = np.stack([child[mixed] for child in children])
    joined, voters = voters, voters & np.uint8(0xFF ^ JOINED_BIT)
    votes = np.zeros(voters.shape, np.uint8)
    for voter in voters:
        votes += voters == voter
    votes = np.where(voters == UNSEEN, np.uint8(0), votes * np.uint8(2) + is_edited(voters))
    winners = np.take_along_axis(voters, votes.argmax(axis=0)[None], axis=0)[0]
    held = (joined == winners | np.uint8(JOINED_BIT)).any(axis=0)
    result[mixed] = winners | np.where(held, np.uint8(JOINED_BIT), np.uint8(0))
    return result
