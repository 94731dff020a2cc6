"""Beside what was drawn an earlier model teaches: the first one that learned from it.

Strokes lie where a model was wrong. What it had right beside them, the person saw and left as it was; without
that, errors are all that there is to learn from, and what is learned from errors alone is nearly the reverse
of the tissue (measured in ``docs/benchmarks/circle.md``). The model that came of the strokes knows what was
right and what was put right. Later ones began again with ever more errors, and may have lost it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.network import Segmenter

Look = tuple[Region, str]
"""Where something was changed, and the tag of the model that was in use."""
Models = Callable[[str], Segmenter | None]
"""The model that came of what was drawn while the one of a tag was in use; None where it is gone."""


def no_models(_tag: str) -> None:
    """No earlier model is there."""
    return


def drawn_under(
    looks: Sequence[Look], region: Region, scale: float, drawn: NDArray[np.bool_]
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Divide a place by the model that was in use when the nearest pixel was drawn.

    Parameters
    ----------
    looks : sequence of (Region, str)
        In level-0 pixels, the oldest first; of two on one pixel the later one counts.
    region : Region
        The place, in model pixels.
    scale : float
        Level-0 pixels a model pixel.
    drawn : ndarray of bool, shape (region.height, region.width)

    Yields
    ------
    tag : str
        Never empty: where there was no model, nothing was right.
    where : ndarray of bool, shape (region.height, region.width)
    """
    tags = [""]
    number = np.zeros(drawn.shape, np.int32)
    for box, tag in looks:
        top, left = (int(np.floor(start / scale)) for start in (box.y, box.x))
        bottom, right = (int(np.ceil(end / scale)) for end in (box.bottom, box.right))
        part = Region(top, left, bottom - top, right - left).intersection(region)
        if part is not None:
            if tag not in tags:
                tags.append(tag)
            number[part.within(region)] = tags.index(tag)
    nearest = ndimage.distance_transform_edt(~drawn, return_distances=False, return_indices=True)
    number = number[tuple(nearest)]
    for index in np.unique(number).tolist():
        if index:
            yield tags[index], number == index


def same_task(model: Segmenter, other: Segmenter) -> bool:
    """Whether what one model says of a pixel is an answer for the other; the latter may know more classes."""
    one, two = model.spec, other.spec
    same = (one.mpp, one.downsample, one.instances) == (two.mpp, two.downsample, two.instances)
    return same and one.classes == two.classes[: len(one.classes)]
