"""Do suggested places teach more than random ones? A quick comparison of ways to choose them.

A pool of images is segmented by a model that has learned from one window. In each round one window is chosen,
corrected with its true labels, and the model learns from all corrected windows; Dice is scored on images of
other patients (GlaS) or other images (MoNuSeg). The strategies differ in the choice alone:

- ``random``: any window that was not seen
- ``uncertain``: the highest mean uncertainty, nothing else
- ``suggested``: what the plugin suggests
- others: parts of it, see ``STRATEGIES``

The model is a logistic regression on the pretext's features and hand-made ones (``--learner linear``, a
second a round, so that many seeds can be run), or the network itself, fine-tuned for some steps a round
(``network``).

    python benchmarks/suggestions.py DATA --json docs/benchmarks/suggestions.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from label_efficiency import Task, examples, tasks
from napari_genselfdiff.compute import choose_compute
from napari_genselfdiff.diffusion.pretraining import load_pretext
from napari_genselfdiff.events import Finished, TileDone
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.finetuning.loop import FineTuneSettings, fine_tune
from napari_genselfdiff.finetuning.scoring import mean_dice, predict_image
from napari_genselfdiff.finetuning.suggestions import (
    Acquisition,
    Looks,
    Place,
    SegmentedSlide,
    Suggestion,
    next_place,
)
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models.library import resolve
from napari_genselfdiff.segmentation.network import SegmenterSpec, build_segmenter, load_segmenter
from napari_genselfdiff.segmentation.store import PredictionStore
from napari_genselfdiff.slides import slide_from_arrays
from probe import BLOCK, Linear, block_labels, handmade_features, network_features

STRATEGIES = {
    "random": None,
    "uncertain": Acquisition(nearness=0, likeness=0),
    "uncertain, apart": Acquisition(likeness=0),
    "uncertain, unlike": Acquisition(nearness=0),
    "suggested": Acquisition(),
}
WINDOWS = {"glands": 96, "nuclei": 128}


class Network:
    """The segmenter, fine-tuned a little more in each round."""

    def __init__(self, task: Task, seed: int, steps: int) -> None:
        self.compute, self.seed, self.steps, self.rounds = choose_compute("cpu"), seed, steps, 0
        if task.name == "nuclei":
            self.model = load_segmenter(resolve("nuclei"))
        else:
            network, _ = load_pretext(resolve("pretext"))
            spec = SegmenterSpec(network.config, ("background", "gland"), task.mpp, instances=True)
            self.model = build_segmenter(spec, start=network.state_dict(), seed=seed)

    def learn(self, data: list[Example]) -> None:
        """Go on with the windows that are corrected by now."""
        first = self.rounds == 0
        settings = FineTuneSettings(
            seed=self.seed + self.rounds, batch=4, learning_rate=1e-3 if first else 5e-4
        )
        *_, last = fine_tune(
            self.model,
            data,
            [],
            compute=self.compute,
            settings=settings,
            steps=self.steps * (2 if first else 1),
            score_before=False,
        )
        assert isinstance(last, Finished)
        self.model = last.result.segmenter.eval()
        self.rounds += 1

    def predict(self, example: Example) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Classes, and their probability in 1/255."""
        said = predict_image(self.model, example.rgb, self.compute)
        return said.labels, said.confidence

    def dice(self, test: list[Example]) -> float:
        """Mean over images."""
        return mean_dice(self.model, test, self.compute)


class LinearModel:
    """A logistic regression on blocks of 4 x 4 pixels, trained anew in each round."""

    features: ClassVar[dict[str, NDArray[np.float32]]] = {}

    def __init__(self, task: Task, seed: int) -> None:
        self.seed = seed
        self.linear: Linear | None = None
        self.network, _ = load_pretext(resolve("pretext"))

    def measured(self, example: Example) -> NDArray[np.float32]:
        """Features of an image's blocks, computed once."""
        if example.name not in self.features:
            parts = network_features(self.network, example.rgb, 50), handmade_features(example.rgb)
            self.features[example.name] = np.concatenate(parts, axis=1)
        return self.features[example.name]

    def learn(self, data: list[Example]) -> None:
        """Learn from all corrected windows."""
        inputs, labels = [], []
        for example in data:
            height, width = (side // BLOCK for side in example.labels.shape)
            known = (example.weight[::BLOCK, ::BLOCK][:height, :width] > 0).ravel()
            inputs.append(self.measured(example)[known])
            labels.append(block_labels(example)[known])
        self.linear = Linear(inputs, labels, seed=self.seed)

    def predict(self, example: Example) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Classes, and their probability in 1/255."""
        assert self.linear is not None
        values = (self.measured(example) - self.linear.mean) / self.linear.spread
        logits = values @ self.linear.weights[:-1] + self.linear.weights[-1]
        probability = 1 / (1 + np.exp(-logits.clip(-30, 30)))
        sides = [side // BLOCK for side in example.labels.shape]
        grown = probability.reshape(sides).repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)
        missing = [(0, full - have) for full, have in zip(example.labels.shape, grown.shape, strict=True)]
        grown = np.pad(grown, missing, mode="edge")
        confidence = np.maximum(grown, 1 - grown) * 255
        return (grown > 0.5).astype(np.uint8), confidence.round().astype(np.uint8)

    def dice(self, test: list[Example]) -> float:
        """Mean over images."""
        assert self.linear is not None
        return float(np.mean([self.linear.dice(self.measured(e), block_labels(e)) for e in test]))


@dataclass
class Pool:
    """Images that can be corrected, as slides with predictions."""

    examples: list[Example]
    folder: Path
    window: int
    places: list[Place] = field(default_factory=list)
    looks: Looks = field(default_factory=dict)

    def segmented(self, model: Network | LinearModel) -> list[SegmentedSlide]:
        """What a model says about all of them."""
        known = []
        for index, example in enumerate(self.examples):
            labels, confidence = model.predict(example)
            folder = self.folder / f"{index}-{len(self.places)}.zarr"
            store = PredictionStore(folder, (labels.shape[0], labels.shape[1]), 1.0)
            store.write_tile(TileDone((0, 0), labels, confidence), (0, 0))
            slide = slide_from_arrays([example.rgb], name=example.name)
            known.append(SegmentedSlide(slide, store, ("background", "object")))
        return known

    def random(self, rng: np.random.Generator) -> Place:
        """A window anywhere that overlaps none that was seen by a quarter."""
        while True:
            index = int(rng.integers(len(self.examples)))
            height, width = self.examples[index].labels.shape
            y, x = (int(rng.integers(max(1, side - self.window))) for side in (height, width))
            region = Region(y, x, min(self.window, height), min(self.window, width))
            parts = [place.region.intersection(region) for place in self.places if place.slide == index]
            if sum(part.height * part.width for part in parts if part) < 0.25 * region.height * region.width:
                return Place(index, region)

    def corrected(self) -> list[Example]:
        """The images of which a window is known, counting there alone."""
        known = []
        for index, example in enumerate(self.examples):
            mask = np.zeros(example.labels.shape, bool)
            for place in self.places:
                if place.slide == index:
                    region = place.region
                    mask[region.y : region.bottom, region.x : region.right] = True
            if mask.any():
                known.append(example.weighted(mask))
        return known


def first_place(pool: Pool, rng: np.random.Generator) -> Place:
    """A random window with enough of both classes to begin with; the same for all strategies."""
    while True:
        place = pool.random(rng)
        region = place.region
        part = pool.examples[place.slide].labels[region.y : region.bottom, region.x : region.right] > 0
        if 0.1 < part.mean() < 0.9:
            return place


def one_run(
    task: Task,
    pool: list[Example],
    test: list[Example],
    strategy: str,
    seed: int,
    rounds: int,
    learner: str,
    steps: int,
) -> list[float]:
    """Dice on the test images after the first window and after each round."""
    rng = np.random.default_rng(seed)
    model = LinearModel(task, seed) if learner == "linear" else Network(task, seed, steps)
    with tempfile.TemporaryDirectory() as folder:
        state = Pool(pool, Path(folder), WINDOWS[task.name])
        state.places.append(first_place(state, rng))
        model.learn(state.corrected())
        scores = [model.dice(test)]
        for _ in range(rounds):
            acquisition = STRATEGIES[strategy]
            if acquisition is None:
                state.places.append(state.random(rng))
            else:
                slides = state.segmented(model)
                *_, last = next_place(
                    slides, state.places, window=state.window, acquisition=acquisition, looks=state.looks
                )
                assert isinstance(last, Finished)
                assert isinstance(last.result, Suggestion)
                state.places.append(last.result.place)
            model.learn(state.corrected())
            scores.append(model.dice(test))
    return scores


def main() -> None:
    """Run what is missing and print the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=["glands", "nuclei"])
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--learner", choices=("linear", "network"), default="linear")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--pool", type=int, default=16, help="images")
    parser.add_argument("--test", type=int, default=10, help="images")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if arguments.json and arguments.json.exists():
        rows = json.loads(arguments.json.read_text())
    known = tasks(arguments.data)
    for seed in range(arguments.seeds):
        for task in (known[name] for name in arguments.sets):
            order = np.random.default_rng(seed).permutation(len(task.training))[: arguments.pool]
            pool = examples(task, [task.training[index] for index in order])
            places = np.linspace(0, len(task.test) - 1, arguments.test).round().astype(int)
            test = examples(task, [task.test[index] for index in np.unique(places)])
            for strategy in arguments.strategies:
                key = {"set": task.name, "strategy": strategy, "seed": seed, "learner": arguments.learner}
                if any(key.items() <= row.items() for row in rows):
                    continue
                how = (seed, arguments.rounds, arguments.learner, arguments.steps)
                scores = one_run(task, pool, test, strategy, *how)
                rows.append(key | {"dice": [round(score, 4) for score in scores]})
                print(rows[-1], flush=True)
                if arguments.json:
                    arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    for name in arguments.sets:
        own = [r for r in rows if (r["set"], r["learner"]) == (name, arguments.learner)]
        last = np.mean([r["dice"][-1] for r in own if r["strategy"] == "random"] or [np.nan])
        for strategy in arguments.strategies:
            curves = [r["dice"] for r in own if r["strategy"] == strategy]
            if curves:
                mean = np.mean(curves, axis=0)
                shown = " ".join(f"{value:.3f}" for value in mean)
                level = next((i for i, value in enumerate(mean) if value >= last), None)
                print(
                    f"{name} {strategy:12} {shown}  mean {mean[1:].mean():.3f}  level with random at {level}"
                )


if __name__ == "__main__":
    main()
