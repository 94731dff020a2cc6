"""Scores of a model on what was held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.compute import Compute, release_memory
from napari_genselfdiff.errors import OutOfMemoryError
from napari_genselfdiff.events import Finished
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.segmentation.inference import Tiling, predict_region
from napari_genselfdiff.segmentation.network import Segmenter
from napari_genselfdiff.segmentation.prediction import Prediction
from napari_genselfdiff.segmentation.store import CELL

SMALLEST_CELL = 32
SMALLER_TILES = "the device has little memory: predicting in smaller tiles, which takes longer"


def predict_image(
    segmenter: Segmenter,
    rgb: NDArray[np.uint8],
    compute: Compute,
    *,
    margin: int | None = None,
    notes: list[str] | None = None,
) -> Prediction:
    """Segment an image that is already at the model's resolution.

    Parameters
    ----------
    segmenter : Segmenter
    rgb : ndarray of uint8, shape (height, width, 3)
    compute : Compute
    margin : int, optional
        Mirrored pixels around the image that are seen, a multiple of the network's stride; all that its
        border depends on by default. Fewer take less time, where the border does not matter.
    notes : list of str, optional
        Takes what is to be told: that memory was short, and smaller tiles were used.

    Returns
    -------
    Prediction
        Of the image's size; how it was cut does not matter to networks whose tiles are independent.

    Raises
    ------
    OutOfMemoryError
        If the device has no memory for the smallest tiles either.
    """

    def read(y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        return rgb[y : y + height, x : x + width]

    region, bounds = (0, 0, rgb.shape[0], rgb.shape[1]), (rgb.shape[0], rgb.shape[1])
    stride, cell = segmenter.spec.config.stride, None
    while True:
        tiling = Tiling.of(segmenter.spec.config, cell=cell)
        if margin is not None and segmenter.spec.config.tile_independent:
            tiling = replace(tiling, margin=margin)
        try:
            *_, last = predict_region(
                segmenter, read, region, bounds=bounds, scale=1.0, compute=compute, tiling=tiling
            )
            break
        except OutOfMemoryError:
            # Whole strides: what is between them the network cannot put together again.
            cell = (cell or min(CELL, *bounds)) // 2 // stride * stride
            if cell < max(SMALLEST_CELL, stride) or not segmenter.spec.config.tile_independent:
                raise
            release_memory(compute)
            if notes is not None:
                notes.append(SMALLER_TILES)
    assert isinstance(last, Finished)
    assert isinstance(last.result, Prediction)
    return last.result


def mean_dice(segmenter: Segmenter, examples: Sequence[Example], compute: Compute) -> float:
    """Mean Dice over images and foreground classes, counting labelled pixels only.

    A class that is in neither the labels nor the prediction of an image does not count there; an image of
    which no class counts scores 1.

    Returns
    -------
    float
        0 to 1.
    """
    scores = []
    for example in examples:
        predicted = predict_image(segmenter, example.rgb, compute).labels
        scores.append(_dice(predicted, example, len(segmenter.spec.classes)))
    return float(np.mean(scores))


def _dice(predicted: NDArray[np.uint8], example: Example, classes: int) -> float:
    valid = example.weight > 0
    scores = []
    for label in range(1, classes):
        a, b = (predicted == label) & valid, (example.labels == label) & valid
        if a.any() or b.any():
            scores.append(2 * float((a & b).sum()) / float(a.sum() + b.sum()))
    return float(np.mean(scores)) if scores else 1.0
