"""What the pixel classifiers of Labkit, ilastik and QuPath do: a random forest on multiscale features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier

from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.segmentation.prediction import Prediction

Measure = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

SIGMA_MAX = 16
PIXELS = 40_000
"""At most so many pixels to train on, of all images together."""


def features(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Intensity, edges and texture at sigma 0.5 to 16; shape (height, width, features)."""
    measure: Any = multiscale_basic_features
    found = measure(rgb, sigma_max=SIGMA_MAX, channel_axis=-1)
    return np.asarray(found, np.float32)


def labelled_pixels(
    data: Sequence[Example], measure: Measure, *, seed: int
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


def prediction(probability: NDArray[Any], shape: tuple[int, int]) -> Prediction:
    """Probabilities of the foreground, as the plugin's own models give them; without a map of cores."""
    planes = np.stack([1 - probability, probability]).reshape(2, *shape)
    return Prediction((0, 0), 1.0, np.rint(planes * 255).astype(np.uint8), None)


class Forest:
    """A random forest, trained on the labelled pixels of some images.

    Parameters
    ----------
    data : sequence of Example
    seed : int
    measure : callable, optional
        Gives the features of an image, `features` or one that remembers them.
    jobs : int
        Threads.
    """

    def __init__(
        self, data: Sequence[Example], *, seed: int, measure: Measure = features, jobs: int = 2
    ) -> None:
        self.measure = measure
        self.forest = RandomForestClassifier(100, min_samples_leaf=2, n_jobs=jobs, random_state=seed)
        self.forest.fit(*labelled_pixels(data, measure, seed=seed))

    def predict(self, rgb: NDArray[np.uint8]) -> Prediction:
        """Probabilities of an image at the task's resolution."""
        measured = self.measure(rgb)
        votes = self.forest.predict_proba(measured.reshape(-1, measured.shape[-1]))
        return prediction(votes[:, list(self.forest.classes_).index(1)], rgb.shape[:2])
