"""One object split, joined, deleted or drawn anew: what a stroke means, and the pixels that say so.

Each gesture is a function of what is there and of where the mouse went. What a person says of an object is
kept on its core, the pixels that do not touch its border, as joined pixels (`annotations.codes`): whatever a
model says later, those lie in one object, and no other object holds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.draw import polygon
from skimage.morphology import skeletonize

from napari_genselfdiff.annotations.codes import Codes, Mask, encode
from napari_genselfdiff.segmentation.cells import Cells, line_between

LEAST_PIECE = 12.0
"""A line that leaves less than this on one side, in model pixels, only grazed the object; a smaller outline
is a slip of the hand."""
BEYOND = (0.0, 2.0, 4.0, 8.0)
"""A line that ends inside goes on in its direction by so many cells: the least of these that divides."""
SLIT = 2
"""What lies between two objects that become one is filled where it is up to twice as many cells wide."""
AROUND = np.ones((3, 3), bool)

Path = NDArray[np.float64]
"""Where the mouse went: shape (n, 2), ``(y, x)`` in the window's pixels, centred on whole numbers."""


@dataclass(frozen=True)
class Objects:
    """What is there before a gesture.

    Attributes
    ----------
    cells : Cells
    classes : ndarray of uint8, shape (height, width)
        Of the window's pixels.
    ids : ndarray of int32
        Object of each cell, 0 is the background.
    joined : ndarray of bool
        Which cells were joined before.
    """

    cells: Cells
    classes: NDArray[np.uint8]
    ids: NDArray[np.int32]
    joined: Mask


@dataclass(frozen=True)
class Edit:
    """What a gesture draws: codes of a window's pixels, and which of them.

    Attributes
    ----------
    codes : ndarray of uint8, shape (height, width)
    mask : ndarray of bool, shape (height, width)
    done : str
        What was done, in plain words.
    """

    codes: Codes
    mask: Mask
    done: str


def split(there: Objects, path: Path) -> Edit | None:
    """Cut what a line divides; what it only grazes stays whole.

    Parameters
    ----------
    there : Objects
    path : ndarray
        The line.

    Returns
    -------
    Edit or None
        The line becomes background, one cell wide, in the objects that it divides. None if there are none.
    """
    touched = np.unique(there.ids[_drawn(there.cells, path)])
    touched = touched[touched > 0]
    for beyond in BEYOND:
        line = _drawn(there.cells, path, beyond=beyond * there.cells.size)
        edit = _cut(there, line, touched)
        if edit is not None:
            return edit
    return None


def _cut(there: Objects, line: Mask, touched: NDArray[np.int32]) -> Edit | None:
    gap, held, redrawn = (np.zeros_like(line) for _ in range(3))
    pieces = 0
    for number in touched.tolist():
        mine = there.ids == number
        parts, count = ndimage.label(mine & ~line)
        areas = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        large = np.flatnonzero(areas >= _least(there.cells)) + 1
        if len(large) < 2:
            continue
        pieces += len(large)
        gap |= line & _with_fringe(there, mine)
        redrawn |= mine & there.joined
        for part in large:
            held |= _core(parts == part)
    return _edit(there, f"Split into {pieces}.", gap=gap, held=held, redrawn=redrawn) if pieces else None


def merge(there: Objects, path: Path) -> Edit | None:
    """Make one object of those that a stroke touches.

    Parameters
    ----------
    there : Objects
    path : ndarray
        From one object to another.

    Returns
    -------
    Edit or None
        What lies between them is filled, around the path and where it is narrow, and all have the class of
        the first one. None if the path does not touch two.
    """
    route = _route(there.cells, path)
    passed = there.ids[tuple(route.T)]
    on = np.flatnonzero(passed)
    numbers = np.unique(passed[on])
    if len(numbers) < 2:
        return None
    bridge = np.zeros(there.ids.shape, bool)
    bridge[tuple(route[on[0] : on[-1] + 1].T)] = True
    whole, free = np.isin(there.ids, numbers), there.ids == 0
    bridge &= free
    near = ndimage.binary_closing(np.pad(whole, SLIT), AROUND, SLIT)[SLIT:-SLIT, SLIT:-SLIT]
    gaps, _ = ndimage.label((ndimage.binary_dilation(bridge, AROUND) | near) & free, AROUND)
    filled = np.isin(gaps, np.unique(gaps[bridge]))
    label = _class_of(there, there.ids == passed[on[0]])
    other = there.cells.sampled(there.classes) != label
    return _edit(
        there,
        f"{len(numbers)} objects are one.",
        label=label,
        filled=filled,
        held=_core(whole | filled),
        redrawn=whole & (there.joined | other),
    )


def delete(there: Objects, place: Path) -> Edit | None:
    """Make an object background.

    Parameters
    ----------
    there : Objects
    place : ndarray, shape (1, 2)
        Where it was clicked; `None` is returned when nothing is there.
    """
    clicked = _inside(there.cells, there.cells.of(place[:1]))
    number = int(there.ids[tuple(clicked[0])]) if len(clicked) else 0
    if not number:
        return None
    return _edit(there, "Deleted.", gap=_with_fringe(there, there.ids == number))


def redraw(there: Objects, outline: Path, *, label: int) -> Edit | None:
    """Put what is inside an outline in the place of the objects that it mostly covers.

    Parameters
    ----------
    there : Objects
    outline : ndarray
        Closed by a straight line.
    label : int
        Class of the new object where it covers none; else it is that of the one that it covers most of.

    Returns
    -------
    Edit or None
        A line of background, one cell wide, keeps it apart from what it touches. None if there is nothing
        inside.
    """
    inside = _filled(there.classes.shape, outline)
    sampled = there.cells.sampled(inside)
    if sampled.sum() < max(1.0, _least(there.cells)):
        return None
    parts, _ = ndimage.label(sampled)
    shared = np.bincount(there.ids[sampled], minlength=int(there.ids.max()) + 1)
    shared[0] = 0
    covered = np.flatnonzero(2 * shared > np.bincount(there.ids.ravel()))
    gone = np.zeros(there.ids.shape, bool)
    for number in covered:
        gone |= _with_fringe(there, there.ids == number)
    if covered.size:
        label = _class_of(there, there.ids == shared.argmax())
    ring = ndimage.binary_dilation(there.cells.any(inside))
    core = _core(parts == np.bincount(parts[parts > 0]).argmax())
    spread = there.cells.spread
    erased = spread(gone | ring) & ~inside & (there.classes > 0)
    codes = encode(np.where(inside, label, 0).astype(np.uint8), joined=inside & spread(core))
    return Edit(codes, inside | erased, "Redrawn." if covered.size else "Drawn.")


def _edit(
    there: Objects,
    done: str,
    *,
    label: int | None = None,
    gap: Mask | None = None,
    filled: Mask | None = None,
    held: Mask | None = None,
    redrawn: Mask | None = None,
) -> Edit:
    """Pixels of cells: ``gap`` becomes background; ``filled`` foreground; ``held`` is joined.

    What is ``redrawn`` keeps its outline, is joined only if it is held, and gets the new class.
    """
    none = np.zeros(there.ids.shape, bool)
    spread = there.cells.spread
    empty, new, joined, again = (
        spread(none if cells is None else cells) for cells in (gap, filled, held, redrawn)
    )
    there_now = there.classes > 0
    classes = np.where(there_now | new, there.classes if label is None else label, 0).astype(np.uint8)
    classes[empty] = 0
    mask = (there_now & (empty | joined | again)) | new
    return Edit(encode(classes, joined=joined & ~empty), mask, done)


def _with_fringe(there: Objects, mine: Mask) -> Mask:
    """An object's cells, and those next to them that no other has: they may hold a few of its pixels."""
    around: Mask = ndimage.binary_dilation(mine, AROUND) & (mine | (there.ids == 0))
    return around


def _core(whole: Mask) -> Mask:
    """What does not touch the border, in one piece: cores of neighbours do not touch each other.

    Where the object is narrow, its skeleton connects the parts.
    """
    rows, columns = np.flatnonzero(whole.any(axis=1)), np.flatnonzero(whole.any(axis=0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    part = np.pad(whole[box], 1)
    core: Mask = ndimage.binary_erosion(part)
    if ndimage.label(core, AROUND)[1] != 1:
        core = _connected(core, part)
    result = np.zeros_like(whole)
    result[box] = core[1:-1, 1:-1]
    return result


def _connected(core: Mask, part: Mask) -> Mask:
    """The parts of a core and what connects them; a pixel in the middle where there is no core."""
    if not core.any():
        pixels = np.argwhere(part)
        middle = pixels[np.abs(pixels - pixels.mean(axis=0)).sum(axis=1).argmin()]
        core[tuple(middle)] = True
        return core
    spine: Mask = skeletonize(part)
    loose: Mask = spine & ~core
    while loose.any():  # ends of the skeleton reach the border, and those of a neighbour there
        ends = loose & (ndimage.convolve((core | loose).astype(np.uint8), AROUND.astype(np.uint8)) <= 2)
        if not ends.any():
            break
        loose &= ~ends
    together = core | loose
    return together if ndimage.label(together, AROUND)[1] == 1 else part


def _class_of(there: Objects, mine: Mask) -> int:
    """The most frequent class of an object."""
    return int(np.bincount(there.cells.sampled(there.classes)[mine]).argmax())


def _least(cells: Cells) -> float:
    return LEAST_PIECE * cells.scale**2


def _drawn(cells: Cells, path: Path, *, beyond: float = 0.0) -> Mask:
    """Cells on a path, prolonged at both ends by some pixels of the window."""
    if beyond:
        path = np.concatenate([[_end(path[::-1], beyond)], path, [_end(path, beyond)]])
    mask = np.zeros(cells.shape, bool)
    corners = cells.of(path)
    for start, end in pairwise([*corners, corners[-1]]):
        mask[tuple(_inside(cells, line_between(start, end)).T)] = True
    return mask


def _end(path: Path, beyond: float) -> Path:
    """Where a path would be some pixels after its end, in the direction of its last part."""
    back = np.linalg.norm(path - path[-1], axis=1)
    far = np.flatnonzero(back >= beyond)
    way = path[-1] - path[far[-1] if far.size else 0]
    length = float(np.linalg.norm(way))
    end: Path = path[-1] + way * (beyond / length if length else 0.0)
    return end


def _route(cells: Cells, path: Path) -> NDArray[np.intp]:
    """Cells along a path in order, each beside the one before, shape (n, 2)."""
    corners = cells.of(path)
    steps = [corners[:1]]
    for start, end in pairwise(corners):
        rows, columns = line_between(start, end).T
        across = np.stack([rows[1:], columns[:-1]], axis=1)  # the corner of a diagonal step
        steps.append(np.stack([across, np.stack([rows[1:], columns[1:]], axis=1)], axis=1).reshape(-1, 2))
    return _inside(cells, np.concatenate(steps))


def _inside(cells: Cells, places: NDArray[np.intp]) -> NDArray[np.intp]:
    return places[((places >= 0) & (places < cells.shape)).all(axis=1)]


def _filled(shape: tuple[int, ...], outline: Path) -> Mask:
    inside = np.zeros(shape, bool)
    inside[polygon(outline[:, 0], outline[:, 1], shape)] = True
    return inside
