"""Labelled images of any resolution become examples at a model's resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.segmentation.instances import Separation, core_target, label_instances, relative_depth

if TYPE_CHECKING:
    from napari_genselfdiff.exchange.pairs import LabelledImage

OBJECT_PIXELS = 16.0
"""Diameter that the median object should have at the model's resolution."""
NECK = 0.55
"""Where a mask's depth falls below this part of the depth on both sides, it is cut."""
COARSEST_MPP = 2.5
MAX_DOWNSAMPLE = 8.0


def to_example(image: LabelledImage, *, scale: float, instances: bool) -> Example:
    """Resample a labelled image to a model's resolution.

    Parameters
    ----------
    image : LabelledImage
        With classes, or with instance ids when ``instances``.
    scale : float
        Input pixels a model pixel.
    instances : bool
        Make the target of the core head from the ids, which a binary mask gets from `separated`; all of
        them are class 1.
    """
    height, width = (max(1, round(side / scale)) for side in image.labels.shape)
    rgb = np.asarray(Image.fromarray(image.rgb).resize((width, height), Image.Resampling.BILINEAR))
    labels: NDArray[Any] = _nearest(image.labels, height, width)
    valid = _nearest(image.valid, height, width)
    core = None
    if instances:
        ids = np.where(valid, labels, 0)
        core = core_target(separated(ids) if is_binary_mask(ids) else ids)
        labels = labels > 0
    return Example(
        image.name,
        rgb,
        np.where(valid, labels, 0).astype(np.uint8),
        valid.astype(np.float32),
        core,
    )


def is_binary_mask(ids: NDArray[Any]) -> bool:
    """Whether labels say where objects are but not which: one number, and several connected parts."""
    from scipy import ndimage

    foreground = ids > 0
    values = ids[foreground]
    if not values.size or values.min() != values.max():
        return False
    return bool(ndimage.label(foreground)[1] > 1)


def separated(mask: NDArray[Any]) -> NDArray[np.int32]:
    """Ids of the objects of a binary mask: its connected parts, split at their necks.

    Parameters
    ----------
    mask : ndarray, shape (height, width)
        At the model's resolution, where objects are about 16 pixels wide; 0 is background.
    """
    from scipy import ndimage

    foreground = mask > 0
    depth = relative_depth(ndimage.label(foreground)[0])
    return label_instances(foreground, depth, Separation(marker=NECK, smoothing=1.0, min_area=0))


def choose_resolution(
    images: Sequence[LabelledImage], *, mpp: float | None, instances: bool
) -> tuple[float | None, float]:
    """Resolution for a new model: the median object is about 16 pixels wide, as far as that makes sense.

    Parameters
    ----------
    images : sequence of LabelledImage
    mpp : float or None
        Resolution of the images in micrometres per pixel, when it is known.
    instances : bool
        Whether the labels are instance ids.

    Returns
    -------
    mpp : float or None
        Resolution of the model, never finer than the images', at most 2.5; None when theirs is not known.
    downsample : float
        Image pixels a model pixel.
    """
    areas = [_areas(np.where(image.valid, image.labels, 0), instances=instances) for image in images[:50]]
    sizes = np.concatenate(areas) if areas else np.zeros(0, np.int64)
    sizes = sizes[sizes >= 9]
    if not len(sizes):
        raise UserError("the labels hold no object", None, "label some pixels as 1 or higher")
    # Weighted by area: a few specks beside a gland do not make the task a task of specks.
    order = np.sort(sizes)
    half = order[np.searchsorted(np.cumsum(order), order.sum() / 2)]
    diameter = 2 * float(np.sqrt(half / np.pi))
    limit = MAX_DOWNSAMPLE if mpp is None else max(1.0, COARSEST_MPP / mpp)
    downsample = float(np.clip(diameter / OBJECT_PIXELS, 1.0, limit))
    return (None if mpp is None else mpp * downsample), downsample


def object_areas(image: LabelledImage, *, scale: float) -> NDArray[np.float64]:
    """Areas of the objects of an image in model pixels.

    Parameters
    ----------
    image : LabelledImage
        With instance ids. One that is labelled in part has none: a stroke does not say how large an
        object is.
    scale : float
        Input pixels a model pixel.
    """
    if not image.valid.all():
        return np.zeros(0)
    return _areas(image.labels, instances=True) / scale**2


def _areas(labels: NDArray[Any], *, instances: bool) -> NDArray[np.int64]:
    """Pixels of each object."""
    from scipy import ndimage

    ids = labels if instances and not is_binary_mask(labels) else ndimage.label(labels > 0)[0]
    if not ids.any():
        return np.zeros(0, np.int64)
    return np.unique(ids[ids > 0], return_counts=True)[1]


def _nearest(array: NDArray[np.generic], height: int, width: int) -> NDArray[np.generic]:
    rows = ((np.arange(height) + 0.5) * array.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * array.shape[1] / width).astype(int)
    return array[np.ix_(rows, columns)]
