"""Compare classifiers for the first gear on the strokes of a simulated pathologist.

    python benchmarks/first_gear_strokes.py DATA docs/benchmarks/interactive.json

``interactive.py`` recorded strokes in its JSON file; here every classifier learns from the same ones, after
1, 3, 5, 7 and 10 rounds, on the features that the first gear has of the bundled pretext. Dice is counted on
images of other patients, every third pixel along both sides; "area" is what is called foreground there,
as a share of what is. Seconds are of one fit after ten rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from interactive import Correction
from interactive_project import Fold, Picture, folds, held_out_pictures, opened, picture
from label_efficiency import Task, tasks
from napari_genselfdiff.diffusion.frozen import Levels, image_levels
from napari_genselfdiff.diffusion.objectives.base import TASK_TIMESTEP
from napari_genselfdiff.diffusion.pretraining import load_pretext
from napari_genselfdiff.finetuning import pixels
from napari_genselfdiff.finetuning.feature_tiles import KNOWN
from napari_genselfdiff.models.library import resolve

Model = Callable[[torch.Tensor], NDArray[np.bool_]]
ROUNDS = (1, 3, 5, 7, 10)
STRIDE = 3


def perceptron(**settings: Any) -> Callable[[torch.Tensor, NDArray[np.int16]], Model]:
    """The plugin's classifier, with other settings of `pixels`."""

    def fit(features: torch.Tensor, classes: NDArray[np.int16]) -> Model:
        with patch.multiple(pixels, **settings):
            model, _ = pixels.fit_classes(features, classes, np.ones(len(classes), np.float32))
        return lambda asked: model.of(asked).argmax(dim=1).numpy() > 0

    return fit


def trees(kind: Any) -> Callable[[torch.Tensor, NDArray[np.int16]], Model]:
    """Trees of scikit-learn on the same features."""

    def fit(features: torch.Tensor, classes: NDArray[np.int16]) -> Model:
        model = kind(100, min_samples_leaf=2, random_state=0, n_jobs=1).fit(features.numpy(), classes)
        return lambda asked: np.asarray(model.predict(asked.numpy()) > 0)

    return fit


CLASSIFIERS = {
    "decay 20, 16 wide": perceptron(DECAY=20.0),
    "decay 1, 32 wide": perceptron(HIDDEN=32, DECAY=1.0),
    "decay 10, 16 wide": perceptron(DECAY=10.0),
    "decay 40, 16 wide": perceptron(DECAY=40.0),
    "decay 20, 8 wide": perceptron(HIDDEN=8),
    "random forest": trees(RandomForestClassifier),
    "extra trees": trees(ExtraTreesClassifier),
}


class Project:
    """Features of a project's slides, and of the images that are scored."""

    def __init__(self, task: Task, fold: Fold) -> None:
        network = load_pretext(resolve("pretext"))[0].eval()

        def levels(one: Picture) -> Levels:
            with torch.inference_mode():
                return image_levels(network, one.rgb, TASK_TIMESTEP, known=KNOWN)

        self.pages = [picture(item, *opened(item, task.mpp)) for item in fold.corrected]
        self.levels = [levels(page) for page in self.pages]
        self.asked: list[torch.Tensor] = []
        self.truth: list[NDArray[np.bool_]] = []
        for one in held_out_pictures(fold, task.mpp):
            height, width = one.truth.shape
            rows, columns = (part.ravel() for part in np.mgrid[:height:STRIDE, :width:STRIDE])
            self.asked.append(levels(one).at(torch.from_numpy(rows), torch.from_numpy(columns)).half())
            self.truth.append(one.truth[rows, columns] > 0)

    def painted(self, rounds: list[dict[str, Any]]) -> tuple[torch.Tensor, NDArray[np.int16]]:
        """Features and classes of what was painted, as many as the plugin learns from."""
        drawn = [np.full(page.truth.shape, -1, np.int16) for page in self.pages]
        for correction in map(Correction.from_row, rounds):
            for stroke in correction.strokes:
                mask = stroke.mask(self.pages[correction.place.page].truth)
                drawn[correction.place.page][mask] = stroke.label
        features, classes = [], []
        for codes, levels in zip(drawn, self.levels, strict=True):
            rows, columns = np.nonzero(codes >= 0)
            features.append(levels.at(torch.from_numpy(rows), torch.from_numpy(columns)))
            classes.append(codes[rows, columns])
        numbers = np.concatenate(classes)
        chosen = pixels.balanced_choice(numbers)
        return torch.cat(features)[torch.from_numpy(chosen)], numbers[chosen]

    def scored(self, model: Model) -> tuple[float, float]:
        """Mean Dice, and what is called foreground as a share of what is."""
        dice, area = [], []
        for asked, truth in zip(self.asked, self.truth, strict=True):
            said = np.concatenate([model(part.float()) for part in torch.split(asked, 50_000)])
            dice.append(2 * (said & truth).sum() / max(1, said.sum() + truth.sum()))
            area.append(said.sum() / truth.sum())
        return float(np.mean(dice)), float(np.mean(area))


def main() -> None:
    """Every classifier on every recorded project."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("strokes", type=Path)
    parser.add_argument("--sets", nargs="+", default=["nuclei", "glands"])
    parser.add_argument("--methods", nargs="+", default=["forest-own", "instant-own"], help="whose strokes")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    known, rows = tasks(arguments.data), []
    recorded = json.loads(arguments.strokes.read_text())
    for name in arguments.sets:
        mine = [row for row in recorded if row["set"] == name and row["method"] in arguments.methods]
        for number in sorted({row["fold"] for row in mine}):
            fold = folds(known[name], images=5, held_out=10, fixed=False)[number]
            project = Project(known[name], fold)
            for source in (row for row in mine if row["fold"] == number):
                for classifier, fit in CLASSIFIERS.items():
                    scores = []
                    for count in ROUNDS:
                        features, classes = project.painted(source["rounds"][:count])
                        began = time.process_time()
                        model = fit(features, classes)
                        seconds = time.process_time() - began
                        scores.append(project.scored(model))
                    dice, area = (np.round(part, 3).tolist() for part in zip(*scores, strict=True))
                    row = {"set": name, "fold": number, "strokes": source["method"], "classifier": classifier}
                    rows.append(row | {"dice": dice, "area": area, "seconds": round(seconds, 2)})
                    text = " ".join(f"{value:.3f}" for value in dice)
                    print(*row.values(), f"| {text} | mean from round 3 {np.mean(dice[1:]):.3f}", flush=True)
    for name in arguments.sets:
        for classifier in CLASSIFIERS:
            mine = [row for row in rows if (row["set"], row["classifier"]) == (name, classifier)]
            later = [np.mean(row["dice"][1:]) for row in mine]
            seconds = np.mean([row["seconds"] for row in mine])
            print(f"{name} {classifier:20s} {np.mean(later):.3f} over {len(mine)} projects, {seconds:.2f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
