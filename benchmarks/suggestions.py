"""Do suggested places teach more than random ones? A quick comparison of ways to choose them.

A pool of images is segmented by a model that has learned from one window. In each round two windows are
chosen, corrected with their true labels, and the model is fine-tuned briefly on all corrected windows; Dice
is scored on images of other patients. The strategies differ in the choice alone:

- ``random``: any window that was not seen
- ``uncertain``: the highest mean uncertainty, nothing else
- ``suggested``: what the plugin suggests (uncertainty, look and place)
- ``look``: uncertainty and look; ``place``: uncertainty and place
- ``novel``: the look that is least like what was seen, whatever the model says

    python benchmarks/suggestions.py DATA --json docs/benchmarks/suggestions.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from label_efficiency import Task, examples, tasks
from napari_genselfdiff.compute import choose_compute
from napari_genselfdiff.diffusion.pretraining import load_pretext
from napari_genselfdiff.events import Finished, TileDone
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.finetuning.loop import FineTuneSettings, fine_tune
from napari_genselfdiff.finetuning.scoring import mean_dice, predict_image
from napari_genselfdiff.finetuning.suggestions import (
    Acquisition,
    Place,
    SegmentedSlide,
    Suggestion,
    next_place,
)
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models.library import resolve
from napari_genselfdiff.segmentation.network import Segmenter, SegmenterSpec, build_segmenter, load_segmenter
from napari_genselfdiff.segmentation.store import PredictionStore
from napari_genselfdiff.slides import slide_from_arrays

EVERYTHING = 10_000
STRATEGIES = {
    "random": None,
    "uncertain": Acquisition(candidates=1),
    "suggested": Acquisition(),
    "look": Acquisition(nearness=0),
    "place": Acquisition(novelty=0),
    "novel": Acquisition(candidates=EVERYTHING, uncertainty=0, novelty=10, nearness=0),
}
WINDOWS = {"glands": 96, "nuclei": 128}
A_ROUND = 2


@dataclass
class Pool:
    """Images that can be corrected, as slides with predictions."""

    examples: list[Example]
    folder: Path
    window: int
    places: list[Place] = field(default_factory=list)

    def segmented(self, model: Segmenter) -> list[SegmentedSlide]:
        """What a model says about all of them."""
        known = []
        for index, example in enumerate(self.examples):
            said = predict_image(model, example.rgb, choose_compute("cpu"))
            shape = example.labels.shape
            folder = self.folder / f"{index}-{len(self.places)}.zarr"
            store = PredictionStore(folder, (shape[0], shape[1]), 1.0)
            store.write_tile(TileDone((0, 0), said.labels, said.confidence, said.distance), (0, 0))
            slide = slide_from_arrays([example.rgb], name=example.name)
            known.append(SegmentedSlide(slide, store, model.spec.classes))
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


def tuned(model: Segmenter, data: list[Example], *, steps: int, rate: float, seed: int) -> Segmenter:
    """A copy that learned from the windows."""
    settings = FineTuneSettings(seed=seed, batch=4, learning_rate=rate)
    *_, last = fine_tune(
        model, data, [], compute=choose_compute("cpu"), settings=settings, steps=steps, score_before=False
    )
    assert isinstance(last, Finished)
    trained: Segmenter = last.result.segmenter.eval()
    return trained


def first_model(task: Task, seed: int) -> Segmenter:
    """What every strategy begins with: the bundled nuclei model, or the pretext for glands."""
    if task.name == "nuclei":
        return load_segmenter(resolve("nuclei"))
    network, _ = load_pretext(resolve("pretext"))
    spec = SegmenterSpec(network.config, ("background", "gland"), task.mpp, instances=True)
    return build_segmenter(spec, start=network.state_dict(), seed=seed)


def one_run(
    task: Task, pool: list[Example], test: list[Example], strategy: str, seed: int, rounds: int, steps: int
) -> list[float]:
    """Dice on the test images after the first window and after each round."""
    compute, rng = choose_compute("cpu"), np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        state = Pool(pool, Path(folder), WINDOWS[task.name])
        state.places.append(state.random(rng))  # the same for all strategies
        model = tuned(first_model(task, seed), state.corrected(), steps=2 * steps, rate=1e-3, seed=seed)
        scores = [mean_dice(model, test, compute)]
        for number in range(rounds):
            acquisition = STRATEGIES[strategy]
            slides = [] if acquisition is None else state.segmented(model)
            for _ in range(A_ROUND):
                if acquisition is None:
                    state.places.append(state.random(rng))
                    continue
                *_, last = next_place(slides, state.places, window=state.window, acquisition=acquisition)
                assert isinstance(last, Finished)
                assert isinstance(last.result, Suggestion)
                state.places.append(last.result.place)
            model = tuned(model, state.corrected(), steps=steps, rate=5e-4, seed=seed + number)
            scores.append(mean_dice(model, test, compute))
    return scores


def main() -> None:
    """Run what is missing and print the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=["glands", "nuclei"])
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--pool", type=int, default=12, help="images")
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
                key = {"set": task.name, "strategy": strategy, "seed": seed, "steps": arguments.steps}
                if any(key.items() <= row.items() for row in rows):
                    continue
                scores = one_run(task, pool, test, strategy, seed, arguments.rounds, arguments.steps)
                rows.append(key | {"dice": [round(score, 4) for score in scores]})
                print(rows[-1], flush=True)
                if arguments.json:
                    arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    for name in arguments.sets:
        for strategy in arguments.strategies:
            curves = [r["dice"] for r in rows if (r["set"], r["strategy"]) == (name, strategy)]
            if curves:
                mean = np.mean(curves, axis=0)
                print(
                    name, f"{strategy:10}", *(f"{value:.3f}" for value in mean), f"mean {mean[1:].mean():.3f}"
                )


if __name__ == "__main__":
    main()
