"""Any RGB image that is open already is a slide too."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides.colours import ArraySource
from napari_genselfdiff.slides.levels import TILE, Calibration, Level, tile_side, whole_downsample
from napari_genselfdiff.slides.slide import Slide, build_slide

TODO = "choose an image layer with red, green and blue"


def slide_from_arrays(levels: Any, *, name: str, mpp: float | None = None) -> Slide:
    """Make a slide of an image that is open already, without copying it.

    Parameters
    ----------
    levels : array-like, or sequence of array-like
        NumPy, dask or zarr, shape ``(height, width, 3 | 4)``, uint8 or float in 0 to 1; of a multiscale
        image all levels, the largest first.
    name : str
        The layer's name.
    mpp : float, optional
        Micrometres per pixel of the first level.

    Raises
    ------
    UserError
        If it is not an RGB image.
    """
    arrays = list(levels) if isinstance(levels, Sequence) else [levels]
    if not arrays:
        raise UserError("the layer has no image in it", name, TODO)
    for array in arrays:
        _check(array, name)
    readers = [_level(array, name) for array in arrays]
    if any(small.size >= large.size for large, small in pairwise(readers)):
        raise UserError("the levels of the image do not become smaller", name, "put the largest one first")
    if np.dtype(arrays[-1].dtype).kind == "f":
        _check_range(arrays[-1], name)
    slide = build_slide(
        name,
        readers,
        [whole_downsample(readers[0].size, level.size) for level in readers],
        backend="array",
        calibration=Calibration(),
    )
    return slide if mpp is None else slide.with_mpp(mpp)


def _check(array: Any, name: str) -> None:
    shape = tuple(getattr(array, "shape", ()))
    if len(shape) != 3 or shape[2] not in (3, 4):
        raise UserError(f"an image of shape {shape} is not an RGB image", name, TODO)
    if 0 in shape:
        raise UserError("the image is empty", name, TODO)
    dtype = np.dtype(array.dtype)
    if dtype != np.uint8 and dtype.kind != "f":
        raise UserError(
            f"the image has {dtype} pixels instead of 8-bit RGB", name, "convert the layer to 8-bit RGB"
        )


def _check_range(array: Any, name: str) -> None:
    step = max(1, max(array.shape[:2]) // TILE)
    sample = np.asarray(array[::step, ::step])
    if sample.size and not (np.nanmin(sample) >= -0.001 and np.nanmax(sample) <= 1.001):
        raise UserError(
            "the image's colours are not in the range 0 to 1", name, "divide them by their maximum"
        )


def _level(array: Any, name: str) -> Level:
    size = (int(array.shape[0]), int(array.shape[1]))
    source = ArraySource(array, "yxc", name=name)
    if isinstance(array, np.ndarray):
        return Level(source, size, cached=False)
    chunks = getattr(array, "chunksize", None) or getattr(array, "chunks", None) or (TILE, TILE)
    return Level(source, size, tile=(tile_side(chunks[0]), tile_side(chunks[1])))
