"""A region of any size is segmented at level 0 with bounded memory.

Probabilities exist for one band of rows at a time; what grows with the region is one byte a pixel for the
classes, and one for the cores and four for the ids where objects are asked for. Planes of more than a
gigabyte lie in a temporary file.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Clock, Finished, Progress
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.inference import BLOCK, predict_region
from napari_genselfdiff.segmentation.instances import label_instances, separation
from napari_genselfdiff.segmentation.network import Segmenter
from napari_genselfdiff.segmentation.prediction import Prediction
from napari_genselfdiff.slides import Slide

logger = logging.getLogger(__name__)

BAND_PIXELS = 64_000_000
"""Model pixels of a band."""
LEAST_BAND = 512
"""Model rows of the lowest band: lower ones would spend their time on the seams."""
STRIP_PIXELS = 8_000_000
"""Level-0 pixels that are interpolated at once."""
IN_MEMORY = 2**30
OBJECT_BLOCK = 3072
"""Side in level-0 pixels of the blocks in which objects are separated."""
OBJECT_REACH = 128
"""Model pixels around a block that are seen with it; the median object is about 16 wide."""
COARSE = 0.5


@dataclass(frozen=True)
class Segmentation:
    """Labels of a region at level-0 pixels.

    Attributes
    ----------
    labels : ndarray of uint8, shape (height, width)
        Class of each pixel.
    objects : ndarray of int32, shape (height, width), or None
        Ids of the objects, where they were asked for.
    """

    labels: NDArray[np.uint8]
    objects: NDArray[np.int32] | None


def segment_region(
    segmenter: Segmenter,
    slide: Slide,
    region: Region,
    *,
    compute: Compute,
    objects: bool = False,
    scratch: Path | None = None,
    cancel: CancelToken | None = None,
) -> Generator[Progress, None, Segmentation | None]:
    """Segment a region of a slide.

    Parameters
    ----------
    segmenter : Segmenter
    slide : Slide
    region : Region
        Within the slide.
    compute : Compute
    objects : bool
        Whether to number the objects too.
    scratch : Path, optional
        Folder of the temporary files of large regions.
    cancel : CancelToken, optional

    Yields
    ------
    Progress
        In level-0 rows.

    Returns
    -------
    Segmentation or None
        None when it was cancelled.

    Raises
    ------
    MissingScaleError
        If the model works at a known resolution and the slide does not say its own.
    """
    cancel = cancel or CancelToken()
    which = slide.where
    scale = segmenter.spec.scale_for(slide.mpp, which)
    if scale < COARSE:
        logger.warning("%s is %.1f times coarser than what the model was trained on", which, 1 / scale)
    shape = region.height, region.width
    labels = _plane(shape, np.uint8, scratch)
    keep_core = objects and segmenter.spec.instances
    core = _plane(shape, np.uint8, scratch) if keep_core else None

    margin = math.ceil(1 / scale) + 2  # What interpolation looks at beyond a band, in model pixels.
    fitting = BAND_PIXELS // math.ceil(region.width / scale)
    rows = math.floor(min(max(fitting, LEAST_BAND), BLOCK - 2 * margin - 2) * scale)
    clock = Clock()
    for top in range(region.y, region.bottom, max(1, rows)):
        band = Region(top, region.x, min(max(1, rows), region.bottom - top), region.width)
        done = top - region.y
        events = _predict_band(segmenter, slide, band, scale, margin, compute, cancel)
        while True:
            try:
                share = next(events)
            except StopIteration as stop:
                prediction = stop.value
                break
            progress = done + share * band.height
            yield Progress(progress, region.height, "segmenting", clock.left(progress, region.height))
        if cancel.cancelled:
            return None
        height = max(1, STRIP_PIXELS // region.width)
        for start in range(band.y, band.bottom, height):
            strip = replace(band, y=start, height=min(height, band.bottom - start))
            fine = _interpolated(prediction, strip, margin)
            there = np.s_[start - region.y : strip.bottom - region.y]
            labels[there] = fine.labels
            if core is not None and fine.core is not None:
                core[there] = fine.core
    if not objects:
        return Segmentation(labels, None)
    yield Progress(region.height, region.height, "separating objects", None)
    ids = _plane(shape, np.int32, scratch)
    number_objects(labels, core, scale=scale, object_area=segmenter.spec.object_area, out=ids)
    return Segmentation(labels, ids)


def number_objects(
    labels: NDArray[np.uint8],
    core: NDArray[np.uint8] | None,
    *,
    scale: float,
    object_area: float | None = None,
    out: NDArray[np.int32],
    block: int = OBJECT_BLOCK,
) -> int:
    """Number the objects of a map, block by block.

    Parameters
    ----------
    labels : ndarray of uint8, shape (height, width)
        Classes; all but 0 are objects.
    core : ndarray of uint8, shape (height, width), or None
        Probability of cores, 0 to 255; without them, objects that touch are one.
    scale : float
        Pixels a model pixel.
    object_area : float or None
        Usual area of an object in model pixels.
    out : ndarray of int32, shape (height, width)
        All zero; receives the ids.
    block : int
        Side of the blocks.

    Returns
    -------
    int
        How many there are.

    Notes
    -----
    A block is seen with a margin several objects wide, and an object that reaches into the block is taken
    whole, so cuts leave no trace. An object that a block before took already goes on with its number.
    """
    height, width = labels.shape
    reach = math.ceil(OBJECT_REACH * scale)
    block = max(block, 2 * reach)
    count, how = 0, separation(object_area, scale=scale)
    for y in range(0, height, block):
        for x in range(0, width, block):
            top, left = max(0, y - reach), max(0, x - reach)
            view = np.s_[top : y + block + reach, left : x + block + reach]
            foreground = labels[view] > 0
            if not foreground.any():
                continue
            ridges = foreground if core is None else core[view] / np.float32(255)
            found = label_instances(foreground, ridges, how)
            inner = found[y - top : y - top + block, x - left : x - left + block]
            count = _merge(found, inner, out[view], count)
    return count


def _merge(found: NDArray[np.int32], inner: NDArray[np.int32], out: NDArray[np.int32], count: int) -> int:
    """Add the objects that reach into ``inner`` to ``out``; returns the largest number so far."""
    total = int(found.max()) + 1
    wanted = np.zeros(total, bool)
    wanted[inner.ravel()] = True
    wanted[0] = False
    area = np.bincount(found.ravel(), minlength=total)
    taken = (out > 0) & wanted[found]
    pairs, shared = np.unique(found[taken].astype(np.int64) << 32 | out[taken], return_counts=True)
    mine, before = pairs >> 32, pairs & 0xFFFFFFFF
    order = np.argsort(shared, kind="stable")
    numbers = np.zeros(total, np.int32)
    numbers[mine[order]] = before[order]  # Of repeated indices the last one stays: the most pixels.
    new = wanted & (2 * np.bincount(mine, shared, total) <= area)
    numbers[new] = np.arange(count + 1, count + 1 + int(new.sum()))
    free = (out == 0) & wanted[found]
    out[free] = numbers[found[free]]
    return count + int(new.sum())


def _predict_band(
    segmenter: Segmenter,
    slide: Slide,
    band: Region,
    scale: float,
    margin: int,
    compute: Compute,
    cancel: CancelToken,
) -> Generator[float, None, Prediction]:
    """Predict a band and what interpolation needs around it; yields the share that is done."""
    bounds = math.ceil(slide.shape[0] / scale), math.ceil(slide.shape[1] / scale)
    top, left = (max(0, math.floor(side / scale) - margin) for side in (band.y, band.x))
    bottom = min(bounds[0], math.ceil(band.bottom / scale) + margin)
    right = min(bounds[1], math.ceil(band.right / scale) + margin)

    def read(y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        return slide.read_scaled(y, x, height, width, scale=scale)

    part = (top, left, bottom - top, right - left)
    for event in predict_region(
        segmenter, read, part, bounds=bounds, scale=scale, compute=compute, cancel=cancel
    ):
        if isinstance(event, Progress):
            yield event.done / event.total
        elif isinstance(event, Finished):
            prediction = event.result
    assert isinstance(prediction, Prediction)
    return prediction


def _interpolated(prediction: Prediction, strip: Region, margin: int) -> Prediction:
    """A strip at level-0 pixels; only the rows around it are touched."""
    scale, first = prediction.scale, prediction.origin[0]
    low = max(0, math.floor(strip.y / scale) - first - margin)
    high = math.ceil(strip.bottom / scale) - first + margin
    rows = replace(
        prediction,
        origin=(first + low, prediction.origin[1]),
        probabilities=prediction.probabilities[:, low:high],
        core=None if prediction.core is None else prediction.core[low:high],
    )
    return rows.resampled(strip.y, strip.x, strip.height, strip.width)


def _plane(shape: tuple[int, int], dtype: Any, scratch: Path | None) -> NDArray[Any]:
    if math.prod(shape) * np.dtype(dtype).itemsize <= IN_MEMORY:
        return np.zeros(shape, dtype)
    try:
        with tempfile.TemporaryFile(dir=scratch) as file:
            return np.memmap(file, dtype, mode="w+", shape=shape)
    except OSError as error:
        raise UserError(
            f"there is no room for the result ({error.strerror})", scratch, "free space or choose a region"
        ) from error
