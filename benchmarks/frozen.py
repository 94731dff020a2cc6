"""Frozen features of a pretext with an ensemble of pixel classifiers, as ddpm-segmentation does.

Baranchuk et al. 2022 (arXiv 2112.03126): decoder features at several time steps, and the vote of several
small multi-layer perceptrons, each a pixel by itself. Unlike there, the image is clean at every time step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from forest import labelled_pixels, prediction
from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.segmentation.prediction import Prediction
from probe import recalibrated

TIMES = (50, 150)
ENSEMBLE = 5
WIDTH = 64
EPOCHS = 15


class Frozen:
    """Pixel classifiers on a network that is not trained.

    Parameters
    ----------
    network : UNet
        A pretext.
    data : sequence of Example
    seed : int
    """

    def __init__(self, network: UNet, data: Sequence[Example], *, seed: int) -> None:
        self.network = recalibrated(network, [example.rgb for example in data], TIMES[0])
        inputs, targets = labelled_pixels(data, self.features, seed=seed)
        self.classifiers: list[Any] = []
        for index in range(ENSEMBLE):
            one = MLPClassifier((WIDTH,), max_iter=EPOCHS, random_state=seed * ENSEMBLE + index)
            # It warns when it has not converged, which so few epochs are not meant to do.
            one.n_iter_no_change = EPOCHS + 1
            self.classifiers.append(make_pipeline(StandardScaler(), one).fit(inputs, targets))

    @torch.inference_mode()
    def features(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """All levels of the decoder at all times, at full resolution; shape (height, width, features)."""
        height, width = rgb.shape[:2]
        stride = self.network.config.stride
        grown = np.pad(rgb, ((0, -height % stride), (0, -width % stride), (0, 0)), mode="symmetric")
        x = to_unit_range(grown[None])
        found = []
        for time in TIMES:
            for level in self.network.pyramid(x, torch.tensor([time])):
                fine = F.interpolate(level, size=grown.shape[:2], mode="bilinear")
                found.append(fine[0, :, :height, :width].half())
        return np.asarray(torch.cat(found).permute(1, 2, 0).float().numpy())

    def predict(self, rgb: NDArray[np.uint8]) -> Prediction:
        """Share of the classifiers that call a pixel foreground, of an image at the task's resolution."""
        measured = self.features(rgb)
        flat = measured.reshape(-1, measured.shape[-1])
        return prediction(np.mean([one.predict(flat) for one in self.classifiers], axis=0), rgb.shape[:2])
