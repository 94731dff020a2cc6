"""What learns from the strokes: the plugin's two gears, and a random forest on hand-made features.

The one place that knows how the plugin is called.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from forest import Forest, features
from interactive_project import Page
from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.events import Finished
from napari_genselfdiff.finetuning.corrections import Source
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.finetuning.instant import Answer, InstantTask
from napari_genselfdiff.finetuning.rounds import RoundResult, train_round
from napari_genselfdiff.finetuning.scoring import predict_image
from napari_genselfdiff.finetuning.training import grown_share
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.network import Segmenter
from napari_genselfdiff.slides import Slide, slide_from_arrays

Pixels = NDArray[np.uint8]
CLASSES = ("background", "foreground")
MEMORY = 2**31
"""Bytes for the features of all images, so that each is looked at once."""
NO_LIMIT = 1e6
"""Seconds: rounds end after steps, because other work may share the cores."""


class Learner(Protocol):
    """A model that learns from all strokes of a project so far."""

    def learn(self, pages: Sequence[Page]) -> dict[str, Any]:
        """Take in what was painted; returns what is worth writing down."""

    def probability(self, rgb: Pixels) -> NDArray[np.float32]:
        """Probability of the foreground of an image at the model's resolution."""


class Network:
    """The second gear: the network itself is fine-tuned.

    Parameters
    ----------
    start : Segmenter
        What the first round begins with.
    known : bool
        It knows the task: rounds go on from it, or from the last one that is proven to be better. Else each
        begins with it again, as the plugin's do.
    whole : bool
        Go all of the way to the new weights in every round.
    steps : int or None
        Of a round; as many as the plugin takes by default.
    seed : int
    compute : Compute
    """

    def __init__(
        self,
        start: Segmenter,
        *,
        known: bool = False,
        whole: bool = False,
        steps: int | None,
        seed: int,
        compute: Compute,
    ) -> None:
        self.segmenter = self.start = start
        self.known = known
        self.share = (lambda _pixels: 1.0) if whole else grown_share
        self.steps, self.seed, self.compute = steps, seed, compute
        self.round = 0
        self._models: dict[str, Segmenter] = {}  # what came of what was drawn while one was in use

    def learn(self, pages: Sequence[Page]) -> dict[str, Any]:
        """One round of fine-tuning; the new model is taken if the gate takes it, as in the plugin."""
        sources = [
            Source(p.slide, p.annotations, p.picture.name, self._models.get) for p in pages if p.drawn.any()
        ]
        work = train_round(
            sources,
            self.start if self.known else self.segmenter,
            compute=self.compute,
            fresh=self.round == 0 and not self.known,
            begin=self.start if self.round and not self.known else None,
            grown=self.round > 0 and not self.known,
            seconds=NO_LIMIT,
            steps=self.steps,
            seed=1000 * self.seed + self.round,
        )
        with patch("napari_genselfdiff.finetuning.rounds.grown_share", self.share):
            result: RoundResult = result_of(work)
        if result.verdict.accepted:
            self.segmenter = result.segmenter
            if self.known and result.verdict.decided:
                self.start = self.segmenter
            self.round += 1
            for tag in (f"round {self.round - 1}", f"round {self.round}"):
                self._models[tag] = self.segmenter
            for page in pages:
                page.annotations.model = f"round {self.round}"
        return {"accepted": result.verdict.accepted, "steps": result.steps, "said": result.verdict.message}

    def probability(self, rgb: Pixels) -> NDArray[np.float32]:
        """See `Learner`."""
        planes = predict_image(self.segmenter, rgb, self.compute).probabilities
        return np.asarray(planes[1] / np.float32(255))


class Instant:
    """The first gear: a light classifier on frozen features.

    Parameters
    ----------
    network : Segmenter or UNet
    compute : Compute
    fresh : bool
        Whether the network knows nothing of the task.
    """

    def __init__(self, network: Segmenter | UNet, *, compute: Compute, fresh: bool = True) -> None:
        self.task = InstantTask(network, compute=compute, classes=CLASSES, fresh=fresh, max_bytes=MEMORY)
        self._slides: dict[bytes, Slide] = {}

    def learn(self, pages: Sequence[Page]) -> dict[str, Any]:
        """Look at what was painted, and fit the classifier anew."""
        for page in pages:
            if page.drawn.any():
                self.task.touch(page.slide, Region(0, 0, *page.slide.shape), scale=page.scale)
                result_of(self.task.catch_up(page.slide, page.annotations, scale=page.scale))
        self.learned = self.task.learn()
        return {"pixels": self.learned.pixels}

    def probability(self, rgb: Pixels) -> NDArray[np.float32]:
        """See `Learner`."""
        key = rgb.tobytes()
        if key not in self._slides:
            self._slides[key] = slide_from_arrays(rgb, name=f"image {len(self._slides)}")
        view = self.task.view(self._slides[key], Region(0, 0, *rgb.shape[:2]), scale=1.0)
        answer: Answer = result_of(self.task.answers(view, self.learned))
        sure = answer.confidence / np.float32(255)
        return np.where(answer.labels == 1, sure, 1 - sure)


class Woods:
    """What Labkit, ilastik and QuPath do; features of an image are computed once, as they do too."""

    def __init__(self, *, seed: int) -> None:
        self.seed = seed
        self._features: dict[bytes, NDArray[np.float32]] = {}

    def learn(self, pages: Sequence[Page]) -> dict[str, Any]:
        """Grow the trees anew on all painted pixels."""
        data = [
            Example(p.picture.name, p.picture.rgb, p.picture.truth, p.drawn.astype(np.float32))
            for p in pages
            if p.drawn.any()
        ]
        self.forest = Forest(data, seed=self.seed, measure=self._remembered, jobs=1)
        return {}

    def probability(self, rgb: Pixels) -> NDArray[np.float32]:
        """See `Learner`."""
        return np.asarray(self.forest.predict(rgb).probabilities[1] / np.float32(255))

    def _remembered(self, rgb: Pixels) -> NDArray[np.float32]:
        key = rgb.tobytes()
        if key not in self._features:
            self._features[key] = features(rgb)
        return self._features[key]


def result_of(work: Iterator[Any]) -> Any:
    """Run long work to its end."""
    *_, last = work
    return last.result if isinstance(last, Finished) else last
