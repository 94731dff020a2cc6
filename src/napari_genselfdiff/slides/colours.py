"""Pixels of any layout become uint8 RGB."""

from __future__ import annotations

import struct
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides.levels import WHITE, Pixels

UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    struct.error,
    zipfile.BadZipFile,
)
"""What decoders raise on damaged data; ``RuntimeError`` must not pass, see ``UserError``."""


def as_rgb(pixels: NDArray[Any], *, background: tuple[int, int, int] = (WHITE, WHITE, WHITE)) -> Pixels:
    """Grey, RGB or RGBA pixels as uint8 RGB.

    Parameters
    ----------
    pixels : ndarray of uint8 or float (0 to 1), shape (height, width) or (height, width, 1 | 3 | 4)
    background : tuple of int
        Colour under transparent pixels.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
    """
    if pixels.dtype.kind == "f":
        pixels = (np.nan_to_num(pixels).clip(0, 1) * 255 + 0.5).astype(np.uint8)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    if pixels.shape[2] == 3:
        return pixels
    alpha = pixels[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(pixels[..., :3])
    opaque = alpha.astype(np.uint16)
    mixed = pixels[..., :3] * opaque + np.asarray(background, np.uint16) * (255 - opaque)
    return ((mixed + 127) // 255).astype(np.uint8)


class ArraySource:
    """Source of a level that is an array, in any order of axes.

    Parameters
    ----------
    array : array-like
        NumPy, dask or zarr; uint8 or float in 0 to 1.
    axes : str
        One letter an axis: ``y``, ``x``, ``c`` (the colours); any other axis is read at index 0.
    name : object
        What is told when a part cannot be read.
    inverted : bool
        Whether 0 is white.
    """

    def __init__(self, array: Any, axes: str, *, name: object, inverted: bool = False) -> None:
        self._array = array
        self.axes, self.name, self.inverted = axes, name, inverted

    @property
    def array(self) -> Any:
        """The array."""
        return self._array

    def __call__(self, y: int, x: int, height: int, width: int) -> Pixels:
        """Read pixels inside the level."""
        window = {"y": slice(y, y + height), "x": slice(x, x + width), "c": slice(None)}
        kept = [axis for axis in self.axes if axis in window]
        try:
            pixels = np.asarray(self.array[tuple(window.get(axis, 0) for axis in self.axes)])
        except UNREADABLE as error:
            raise damaged(self.name, error) from error
        pixels = pixels.transpose([kept.index(axis) for axis in "yxc" if axis in kept])
        return as_rgb(255 - pixels if self.inverted else pixels)


def damaged(name: object, error: Exception) -> UserError:
    """Tell that a part of a slide cannot be decoded."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(
        f"a part of the slide could not be read ({reason})",
        str(name),
        "the file may be damaged: copy it again",
    )
