"""From a foreground and the cores of objects to numbered objects, and the cores to learn from.

An object's core is what lies more than `RIM` pixels inside of it; of a small object, what lies more than half
as deep as its middle. Cores of objects that touch do not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.segmentation import watershed

RIM = 3.0
"""Pixels between the border of an object and its core: what the network blurs, and no more. A wider rim takes
long glands to pieces."""
LEAST_SMOOTHING = 0.75
"""Standard deviation, in model pixels."""
LEAST_AREA = 12.0
"""Smaller objects are dropped, in model pixels."""
LEAST_SHARE = 0.1
"""So are those of less than this part of the usual area."""


@dataclass(frozen=True)
class Separation:
    """How objects are told apart, see `label_instances`; by default, where their usual size is not known."""

    marker: float = 0.7
    smoothing: float = LEAST_SMOOTHING
    min_area: int = 12


def separation(object_area: float | None, *, scale: float = 1.0) -> Separation:
    """What suits objects of a usual size.

    Parameters
    ----------
    object_area : float or None
        Median area of the objects that the model learned, in model pixels; None when it is not known.
    scale : float
        Pixels of the map a model pixel.

    Notes
    -----
    The core of a large object has narrow gaps that are no border. So the larger the objects, the wider the
    smoothing: a fifth of a core's radius. It is at least so wide that all of a rim is a slope, and no wider,
    for a core of three pixels is soon gone. Chosen on training images of MoNuSeg and GlaS.
    """
    least = LEAST_AREA * min(scale, 8) ** 2
    if not object_area:
        return Separation(smoothing=LEAST_SMOOTHING * scale, min_area=math.ceil(least))
    radius = math.sqrt(object_area / math.pi)
    return Separation(
        smoothing=scale * max(LEAST_SMOOTHING, (radius - RIM) / 5),
        min_area=math.ceil(max(least, LEAST_SHARE * object_area * scale**2)),
    )


def relative_depth(ids: NDArray[Any], *, deepest: float = math.inf) -> NDArray[np.float32]:
    """How deep every pixel lies in its own object: a ridge in the middle, a valley where two objects touch.

    Parameters
    ----------
    ids : ndarray of int, shape (height, width)
        Number of the object that a pixel belongs to; 0 is background. Numbers need not be consecutive, and
        the pixels of an object need not be connected.
    deepest : float
        Pixels from the outside that are as deep as the middle of an object.

    Returns
    -------
    ndarray of float32, shape (height, width)
        In [0, 1]: the distance to the nearest pixel outside of the object, divided by that of its middle or
        ``deepest``; 0 in the background.

    Notes
    -----
    The image's edge is not an outside: an object that is cut by it has its ridge where the rest would go on.
    """
    ids = np.asarray(ids)
    target = np.zeros(ids.shape, np.float32)
    if ids.size and ids.max() > ids.size:  # find_objects has one entry for every number up to the largest
        ids = np.unique(ids, return_inverse=True)[1].reshape(ids.shape) + (0 if (ids == 0).any() else 1)
    for number, box in enumerate(ndimage.find_objects(ids.astype(np.int64)), start=1):
        if box is None:
            continue
        # One pixel around the object holds the nearest outside pixel of each of its pixels.
        window = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        inside = ids[window] == number
        distance = ndimage.distance_transform_edt(inside) if not inside.all() else inside
        target[window][inside] = np.minimum(distance[inside] / min(distance.max(), deepest), 1)
    return target


def core_target(ids: NDArray[Any]) -> NDArray[np.float32]:
    """The cores of objects, for a network to learn: 1 there, 0 elsewhere.

    Parameters
    ----------
    ids : ndarray of int, shape (height, width)
        As for `relative_depth`, at the model's resolution.
    """
    return (relative_depth(ids, deepest=2 * RIM) > 0.5).astype(np.float32)


def label_instances(
    foreground: NDArray[Any],
    core: NDArray[Any],
    how: Separation | None = None,
    *,
    joined: NDArray[np.bool_] | None = None,
    threshold: float = 0.5,
) -> NDArray[np.int32]:
    """Find the objects of a foreground and number them.

    The connected parts of the cores grow by watershed until they fill the foreground. A connected part of the
    foreground without a core is one object.

    Parameters
    ----------
    foreground : ndarray of bool or float, shape (height, width)
        A mask, or the probability of the foreground.
    core : ndarray of bool or float, shape (height, width)
        Probability that a pixel lies in the core of an object (`core_target`); where it is highest, objects
        begin, so any map with a ridge in every object will do.
    how : Separation, optional
        ``marker``: from which probability on a pixel is of a core, after smoothing. ``smoothing``: standard
        deviation of the Gaussian that smooths ``core``, in pixels; background does not pull it down, so small
        objects keep their height. ``min_area``: smaller objects are dropped, in pixels.
    joined : ndarray of bool, shape (height, width), optional
        What a person said: foreground pixels that are set here and touch, also at their corners, lie in one
        object, and in another one than all others that are set. Such an object is kept whatever its size.
    threshold : float
        Probability from which on a pixel is foreground.

    Returns
    -------
    ndarray of int32, shape (height, width)
        0 is background; the objects have numbers from 1 on, in the raster order of their first pixels.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    foreground, core = np.asarray(foreground), np.asarray(core, np.float32)
    if foreground.shape != core.shape or foreground.ndim != 2:
        raise ValueError(f"foreground {foreground.shape} and core {core.shape} must be images of one size")
    how = how or Separation()
    mask = foreground if foreground.dtype == bool else foreground >= threshold
    if how.smoothing > 0:
        weight = _smoothed(mask.astype(np.float32), how.smoothing)
        core = _smoothed(np.where(mask, core, 0), how.smoothing) / np.maximum(weight, 1e-6)
    high, held = mask & (core >= how.marker), None if joined is None else mask & joined
    markers = ndimage.label(high)[0] if held is None or not held.any() else _markers(high, held)
    parts, _ = ndimage.label(mask)
    has_marker = np.zeros(int(parts.max()) + 1, bool)
    has_marker[parts[markers > 0]] = True
    ids = watershed(-core, markers, mask=mask & has_marker[parts])
    ids = np.where(mask & ~has_marker[parts], parts + markers.max(initial=0), ids)
    return _renumbered(ids, how.min_area, held)


def _markers(high: NDArray[np.bool_], joined: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Where objects begin: one number a connected part of what is joined, and of the high ground that is not.

    High ground that touches one joined part begins the same object; where it touches several, it is left to
    the watershed between them.
    """
    own, count = ndimage.label(joined, np.ones((3, 3)))
    ground, grounds = ndimage.label(high | joined)
    numbers = np.arange(grounds + 1) + count
    numbers[0] = 0
    pairs = np.unique(ground[joined].astype(np.int64) << 32 | own[joined])
    shared, whose = pairs >> 32, pairs & 0xFFFFFFFF
    numbers[shared] = np.where(np.bincount(shared, minlength=grounds + 1)[shared] == 1, whose, 0)
    markers = numbers[ground].astype(np.int32)
    markers[joined] = own[joined]
    return markers


def _smoothed(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Smooth with a Gaussian; a wide one on a smaller image, which takes a tenth of the time."""
    shrink = int(sigma // 2)
    if shrink < 2:
        return ndimage.gaussian_filter(image, sigma)
    height, width = image.shape
    # Mirrored to whole blocks, and so far that where those end is not seen.
    beyond = [(0, -side % shrink + 8 * shrink) for side in image.shape]
    whole = np.pad(image, beyond, mode="symmetric")
    small = np.asarray(Image.fromarray(whole).reduce(shrink))
    # Means of blocks and linear interpolation smooth as well: variances k^2 / 12 and k^2 / 6.
    small = ndimage.gaussian_filter(small, math.sqrt(sigma**2 / shrink**2 - 1 / 4))
    box = (0, 0, width / shrink, height / shrink)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR, box=box))


def _renumbered(ids: NDArray[Any], min_area: int, held: NDArray[np.bool_] | None = None) -> NDArray[np.int32]:
    """Drop small objects that nothing holds; number the others in the raster order of their first pixels."""
    flat = ids.ravel()
    pixels = np.flatnonzero(flat)
    area = np.bincount(flat[pixels], minlength=1)
    first = np.full(len(area), flat.size)
    first[flat[pixels[::-1]]] = pixels[::-1]  # of repeated indices the last one stays: the first pixel
    large = (area >= min_area) & (area > 0)
    if held is not None:
        large[ids[held]] = True
    kept = np.flatnonzero(large)
    numbers = np.zeros(len(area), np.int32)
    numbers[kept[np.argsort(first[kept])]] = np.arange(1, len(kept) + 1)
    renumbered: NDArray[np.int32] = numbers[ids]
    return renumbered
