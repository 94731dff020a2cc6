"""Why a window is worth correcting, in plain words, from what the model said about it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.store import PredictionStore

UNDECIDED = 0.75 * 255
"""A pixel whose class is less probable is undecided."""
SURE = 0.03
"""Mean uncertainty of a window below which the model is sure of it."""
BORDER = 3
"""Model pixels on either side of an outline that belong to it."""
MOSTLY_BORDERS = 0.75
"""Share of the undecided pixels that lie on outlines, from which outlines are what is uncertain."""
FEW = 0.002
"""Share of the pixels that must be undecided for a sentence about them."""


def reason_for(
    store: PredictionStore, region: Region, classes: tuple[str, ...], score: float, *, unlike: bool
) -> str:
    """Say why a window should be corrected.

    Parameters
    ----------
    store : PredictionStore
    region : Region
        In level-0 pixels.
    classes : tuple of str
        Names of the classes, the background first.
    score : float
        Mean uncertainty of the window.
    unlike : bool
        Whether it looks unlike the places that were corrected.
    """
    box = _on_grid(store, region)
    labels, confidence = store.labels(box), store.confidence(box)
    undecided = (labels > 0) & (confidence < UNDECIDED)
    if score < SURE or undecided.mean() < FEW:
        return (
            "the model is sure here, but it looks unlike the places that you corrected"
            if unlike
            else "the model is sure nearly everywhere; this is where it is least so"
        )
    if _on_outlines(labels)[undecided].mean() >= MOSTLY_BORDERS:
        why = "many borders are uncertain here"
    else:
        first, second = _two_classes(labels, undecided, classes)
        why = f"the model is undecided between {first} and {second} here"
    return f"{why}, and it looks unlike the places that you corrected" if unlike else why


def _on_grid(store: PredictionStore, region: Region) -> Region:
    y, x = int(region.y / store.scale), int(region.x / store.scale)
    height, width = (max(1, round(side / store.scale)) for side in (region.height, region.width))
    box = Region(y, x, height, width).clipped(*store.grid)
    assert box is not None
    return box


def _two_classes(
    labels: NDArray[np.uint8], undecided: NDArray[np.bool_], classes: tuple[str, ...]
) -> tuple[str, str]:
    """The two classes that most undecided pixels were given to; neighbours in the window where it is one."""
    counts = np.bincount(labels[undecided], minlength=len(classes) + 1)[1:]
    # With one class alone among them, the other is what is most frequent in the window, or the background.
    counts = counts * labels.size + np.bincount(labels.ravel(), minlength=len(classes) + 1)[1:]
    first, second = np.argsort(-counts, kind="stable")[:2]
    return classes[first], classes[second]


def _on_outlines(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels near a place where the predicted class changes."""
    from scipy import ndimage

    lowest = ndimage.minimum_filter(labels, 2 * BORDER + 1)
    highest = ndimage.maximum_filter(labels, 2 * BORDER + 1)
    return np.asarray(lowest != highest)
