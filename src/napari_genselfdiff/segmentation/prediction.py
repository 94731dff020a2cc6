"""What a segmenter said about a region, and how it looks at another resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Prediction:
    """Probabilities of a region on the model's slide-wide pixel grid.

    Attributes
    ----------
    origin : tuple of int
        ``(y, x)`` of the first pixel on the grid.
    scale : float
        Width of a pixel of the grid in level-0 pixels.
    probabilities : ndarray of uint8, shape (classes, height, width)
        0 to 255; all zero where nothing was predicted.
    core : ndarray of uint8, shape (height, width), or None
        Probability of an object's core, 0 to 255, of models that know instances.
    """

    origin: tuple[int, int]
    scale: float
    probabilities: NDArray[np.uint8]
    core: NDArray[np.uint8] | None

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Most probable class of each pixel, shape (height, width)."""
        classes: NDArray[np.uint8] = self.probabilities.argmax(axis=0).astype(np.uint8)
        return classes

    @property
    def confidence(self) -> NDArray[np.uint8]:
        """Probability of that class, 0 to 255; 0 where nothing was predicted."""
        return cast("NDArray[np.uint8]", self.probabilities.max(axis=0))

    def resampled(self, y: int, x: int, height: int, width: int) -> Prediction:
        """The same at level-0 pixels.

        Parameters
        ----------
        y, x, height, width : int
            A region in level-0 pixels.

        Returns
        -------
        Prediction
            With scale 1; probabilities are interpolated bilinearly, so that outlines stay smooth. Zero where
            this prediction does not reach.
        """
        from PIL import Image

        rows = _span(y, height, self.origin[0], self.scale, self.probabilities.shape[1])
        columns = _span(x, width, self.origin[1], self.scale, self.probabilities.shape[2])
        box = (columns.first, rows.first, columns.last, rows.last)
        inside = np.outer(rows.inside, columns.inside)

        def resize(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
            image = Image.fromarray(np.pad(plane, (rows.beyond, columns.beyond), mode="edge"))
            image = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
            return np.where(inside, np.asarray(image), 0).astype(np.uint8)

        planes = np.stack([resize(plane) for plane in self.probabilities])
        core = None if self.core is None else resize(self.core)
        return Prediction((y, x), 1.0, planes, core)


class _Span(NamedTuple):
    """One side of a region on the grid of a prediction, which grew by ``beyond`` pixels to hold it."""

    first: float
    last: float
    beyond: tuple[int, int]
    inside: NDArray[np.bool_]


def _span(start: int, length: int, origin: int, scale: float, side: int) -> _Span:
    first, last = start / scale - origin, (start + length) / scale - origin
    before, after = max(0, math.ceil(-first)), max(0, math.ceil(last - side))
    centres = first + (np.arange(length) + 0.5) / scale
    return _Span(first + before, last + before, (before, after), (centres >= 0) & (centres < side))
