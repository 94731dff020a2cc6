"""What the pixel classifiers of Labkit, ilastik and QuPath do: a random forest on multiscale features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier

from napari_genselfdiff.finetuning.examples import Example

SIGMA_MAX = 16
PIXELS = 40_000
"""At most so many pixels to train on, of all images together."""
LEAST_AREA = 12


def features(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Intensity, edges and texture at sigma 0.5 to 16; shape (height, width, features)."""
    measure: Any = multiscale_basic_features
    found = measure(rgb, sigma_max=SIGMA_MAX, channel_axis=-1)
    return np.asarray(found, np.float32)


class Forest:
    """A random forest, trained on the labelled pixels of some images."""

    def __init__(self, data: Sequence[Example], *, seed: int) -> None:
        rng = np.random.default_rng(seed)
        inputs, targets = [], []
        for example in data:
            places = np.flatnonzero(example.weight > 0)
            count = min(len(places), PIXELS // len(data))
            places = rng.choice(places, count, replace=False)
            measured = features(example.rgb)
            inputs.append(measured.reshape(-1, measured.shape[-1])[places])
            targets.append(example.labels.ravel()[places])
        self.forest = RandomForestClassifier(100, min_samples_leaf=2, n_jobs=2, random_state=seed)
        self.forest.fit(np.concatenate(inputs), np.concatenate(targets))

    def objects(self, rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Connected parts of the foreground, without specks."""
        measured = features(rgb)
        labels = self.forest.predict(measured.reshape(-1, measured.shape[-1])).reshape(rgb.shape[:2])
        ids, count = ndimage.label(labels > 0)
        areas = np.bincount(ids.ravel(), minlength=count + 1)
        areas[0] = 0
        kept = np.cumsum(areas >= LEAST_AREA) * (areas >= LEAST_AREA)
        return np.asarray(kept[ids], np.int32)
