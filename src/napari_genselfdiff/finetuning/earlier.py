"""Beside what was drawn an earlier model teaches: the first one that learned from it.

Strokes lie where a model was wrong. What it had right beside them, the person saw and left as it was; without
that, errors are all that there is to learn from, and what is learned from errors alone is nearly the reverse
of the tissue (measured in ``docs/benchmarks/circle.md``). The model that came of the strokes knows what was
right and what was put right. Later ones began again with ever more errors, and may have lost it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.network import Segmenter

Models = Callable[[str], Segmenter | None]
"""The model that came of what was drawn while the one of a tag was in use; None where there is none now."""


def no_models(_tag: str) -> None:
    """No earlier model is there."""
    return


class Looks:
    """Where a slide was changed, and which model was in use; there may be a hundred thousand.

    Parameters
    ----------
    changes : iterable of (Region, str, int)
        In level-0 pixels, the tag of the model, and the position in the journal; the oldest first.
    """

    def __init__(self, changes: Iterable[tuple[Region, str, int]] = ()) -> None:
        known = list(changes)
        corners = [(box.y, box.x, box.bottom, box.right) for box, _, _ in known]
        self._corners = np.array(corners, np.float64).reshape(-1, 4)
        self._tags = [tag for _, tag, _ in known]
        self._positions = [position for _, _, position in known]

    def under(
        self, region: Region, scale: float, drawn: NDArray[np.bool_]
    ) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Divide a place by the model that was in use when the nearest pixel was drawn.

        Parameters
        ----------
        region : Region
            The place, in model pixels.
        scale : float
            Level-0 pixels a model pixel.
        drawn : ndarray of bool, shape (region.height, region.width)

        Yields
        ------
        tag : str
            Of two changes of one pixel, that of the later one. Never empty: where there was no model, nothing
            was right.
        where : ndarray of bool, shape (region.height, region.width)
        """
        tags = [""]
        number = np.zeros(drawn.shape, np.int32)
        for index, where in self._inside(region, scale):
            tag = self._tags[index]
            if tag not in tags:
                tags.append(tag)
            number[where] = tags.index(tag)
        nearest = ndimage.distance_transform_edt(~drawn, return_distances=False, return_indices=True)
        number = number[tuple(nearest)]
        for index in np.unique(number).tolist():
            if index:
                yield tags[index], number == index

    def first(self, region: Region, scale: float) -> NDArray[np.int64]:
        """Position in the journal of the first change of each pixel of a place; 0 where there was none.

        A change covers the box around it, so a pixel beside a stroke may have an earlier one than its own.
        Parameters are those of `under`.
        """
        first = np.zeros((region.height, region.width), np.int64)
        for index, where in reversed(list(self._inside(region, scale))):
            first[where] = self._positions[index]
        return first

    def _inside(self, region: Region, scale: float) -> Iterator[tuple[int, tuple[slice, slice]]]:
        """The changes of a place, the oldest first, and where they lie in it."""
        corner = np.array([region.y, region.x])
        starts = np.floor(self._corners[:, :2] / scale).astype(int) - corner
        ends = np.ceil(self._corners[:, 2:] / scale).astype(int) - corner
        shape = (region.height, region.width)
        for index in np.flatnonzero(((ends > 0) & (starts < shape)).all(axis=1)).tolist():
            (top, left), (bottom, right) = starts[index].clip(min=0), ends[index]
            yield index, np.s_[top:bottom, left:right]


def same_task(model: Segmenter, other: Segmenter) -> bool:
    """Whether what one model says of a pixel is an answer for the other, which came of it.

    Classes may have been named anew meanwhile; of those that came later, the earlier model knows nothing.
    """
    one, two = model.spec, other.spec
    same = (one.mpp, one.downsample, one.instances) == (two.mpp, two.downsample, two.instances)
    return same and len(one.classes) == len(two.classes)
