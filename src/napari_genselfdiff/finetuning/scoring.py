"""Scores of a model on what was held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.events import Finished
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.segmentation.inference import predict_region
from napari_genselfdiff.segmentation.network import Segmenter
from napari_genselfdiff.segmentation.prediction import Prediction


def predict_image(segmenter: Segmenter, rgb: NDArray[np.uint8], compute: Compute) -> Prediction:
    """Segment an image that is already at the model's resolution.

    Parameters
    ----------
    segmenter : Segmenter
    rgb : ndarray of uint8, shape (height, width, 3)
    compute : Compute

    Returns
    -------
    Prediction
        Of the image's size.
    """

    def read(y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        return rgb[y : y + height, x : x + width]

    region = (0, 0, rgb.shape[0], rgb.shape[1])
    *_, last = predict_region(segmenter, read, region, bounds=rgb.shape[:2], scale=1.0, compute=compute)
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
