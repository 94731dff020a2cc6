"""What learns from the strokes: the plugin's two gears, and a random forest on hand-made features.

The one place that knows how the plugin is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from forest import Forest, features
from interactive_project import Page
from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.pretraining import load_pretext
from napari_genselfdiff.events import Finished
from napari_genselfdiff.finetuning.corrections import correction_examples
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.finetuning.loop import FineTuneResult, FineTuneSettings, fine_tune
from napari_genselfdiff.finetuning.scoring import predict_image
from napari_genselfdiff.segmentation.network import SegmenterSpec, build_segmenter

Pixels = NDArray[np.uint8]
CLASSES = ("background", "foreground")


class Learner(Protocol):
    """A model that learns from all strokes of a project so far."""

    def learn(self, pages: Sequence[Page]) -> None:
        """Take in what was painted."""

    def probability(self, rgb: Pixels) -> NDArray[np.float32]:
        """Probability of the foreground of an image at the model's resolution."""


class Network:
    """The second gear: the network itself is fine-tuned, from the pretext or from standard weights."""

    def __init__(self, pretext: str, *, scratch: bool, mpp: float, steps: int, seed: int, compute: Compute):
        unet, _ = load_pretext(pretext)
        spec = SegmenterSpec(unet.config, CLASSES, mpp)
        self.segmenter = build_segmenter(spec, start=None if scratch else unet.state_dict(), seed=seed)
        self.steps, self.seed, self.compute = steps, seed, compute
        self.round = 0

    def learn(self, pages: Sequence[Page]) -> None:
        """One round of fine-tuning."""
        training: list[Example] = []
        for page in pages:
            if page.drawn.any():
                training += correction_examples(
                    page.slide, page.annotations, self.segmenter, scale=page.scale, compute=self.compute
                )[0]
        settings = FineTuneSettings(seed=self.seed * 1000 + self.round, fixed_statistics=self.round > 0)
        *_, last = fine_tune(
            self.segmenter,
            training,
            [],
            compute=self.compute,
            settings=settings,
            steps=self.steps,
            score_before=False,
        )
        assert isinstance(last, Finished)
        assert isinstance(last.result, FineTuneResult)
        self.segmenter = last.result.segmenter
        self.round += 1

    def probability(self, rgb: Pixels) -> NDArray[np.float32]:
        """See `Learner`."""
        planes = predict_image(self.segmenter, rgb, self.compute).probabilities
        return np.asarray(planes[1] / np.float32(255))


class Woods:
    """What Labkit, ilastik and QuPath do; features of an image are computed once, as they do too."""

    def __init__(self, *, seed: int) -> None:
        self.seed = seed
        self._features: dict[bytes, NDArray[np.float32]] = {}

    def learn(self, pages: Sequence[Page]) -> None:
        """Grow the trees anew on all painted pixels."""
        data = [
            Example(p.picture.name, p.picture.rgb, p.picture.truth, p.drawn.astype(np.float32))
            for p in pages
            if p.drawn.any()
        ]
        self.forest = Forest(data, seed=self.seed, measure=self._remembered, jobs=1)

    def probability(self, rgb: Pixels) -> NDArray[np.float32]:
        """See `Learner`."""
        return np.asarray(self.forest.predict(rgb).probabilities[1] / np.float32(255))

    def _remembered(self, rgb: Pixels) -> NDArray[np.float32]:
        key = rgb.tobytes()
        if key not in self._features:
            self._features[key] = features(rgb)
        return self._features[key]
