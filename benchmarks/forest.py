"""What the pixel classifiers of Labkit, ilastik and QuPath do: a random forest on multiscale features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def labelled_pixels(
    data: Sequence[Example], measure: Callable[[NDArray[np.uint8]], NDArray[np.float32]], *, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Features and classes of random labelled pixels, as many of each image."""
    rng = np.random.default_rng(seed)
    inputs, targets = [], []
    for example in data:
        places = np.flatnonzero(example.weight > 0)
        places = rng.choice(places, min(len(places), PIXELS // len(data)), replace=False)
        measured = measure(example.rgb)
        inputs.append(measured.reshape(-1, measured.shape[-1])[places])
        targets.append(example.labels.ravel()[places])
    return np.concatenate(inputs), np.concatenate(targets)


def connected(foreground: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Number the connected parts of a foreground, without specks."""
    ids, count = ndimage.label(foreground)
    areas = np.bincount(ids.ravel(), minlength=count + 1)
    large = areas >= LEAST_AREA
    large[0] = False
    return np.asarray((np.cumsum(large) * large)[ids], np.int32)


class Forest:
    """A random forest, trained on the labelled pixels of some images."""

    def __init__(self, data: Sequence[Example], *, seed: int) -> None:
        self.forest = RandomForestClassifier(100, min_samples_leaf=2, n_jobs=2, random_state=seed)
        self.forest.fit(*labelled_pixels(data, features, seed=seed))

    def objects(self, rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Connected parts of the foreground, without specks."""
        measured = features(rgb)
        labels = self.forest.predict(measured.reshape(-1, measured.shape[-1]))
        return connected(labels.reshape(rgb.shape[:2]) > 0)
