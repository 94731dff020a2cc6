"""Say which features and which classifier answer strokes best.

    python benchmarks/first_gear.py DATA --json docs/benchmarks/first-gear.json

``DATA`` holds ``monuseg`` and ``glas``. On each image a person is simulated: in every round two brush
strokes, 5 pixels wide, are painted for each class, at places where the current answer is wrong (at first
anywhere); a stroke stays on what it should label. The classifier is fitted anew, and Dice is counted on what
was not painted. Every method has its own strokes: places where another one is wrong teach it less, and with
the strokes of the reference the others fall behind by up to 0.1. With ``--strokes random`` all have the same
ones. How long an answer takes is measured by ``first_gear_speed.py``.

The reference is a random forest on scikit-image's multiscale features (``forest.py``), which is what Labkit,
ilastik and QuPath's pixel classifier do.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import forest
from label_efficiency import examples, tasks
from napari_genselfdiff.diffusion.frozen import image_levels
from napari_genselfdiff.diffusion.objectives.base import TASK_TIMESTEP
from napari_genselfdiff.diffusion.pretraining import load_pretext
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.finetuning.feature_tiles import KNOWN
from napari_genselfdiff.finetuning.pixels import fit_pixels
from napari_genselfdiff.models.library import resolve
from napari_genselfdiff.segmentation.network import load_segmenter

Features = NDArray[np.float32]
Classes = NDArray[np.uint8]
Model = Callable[[Features], NDArray[np.floating[Any]]]
"""Features of pixels to the probability of the foreground."""
Fit = Callable[[Features, Classes], Model]

ROUNDS = 4
REPORTED = (1, 2, 4)
STROKES = 2
"""New strokes a class and round."""
LENGTH, RADIUS = 24, 2
"""Of a stroke, in pixels of the task."""
SIDE = 320
"""Images are cut to squares of at most this side, from their middle."""
LATTICE = 2
"""Every pixel of so many, along both sides, is answered and scored."""
REFERENCE = "scikit-image", "random forest"


def levels(network: UNet, rgb: NDArray[np.uint8], timestep: int, **which: Any) -> Features:
    """Features of all pixels of an image, which is mirrored beyond its border; shape (pixels, features)."""
    rows, columns = (torch.from_numpy(part.ravel()) for part in np.mgrid[: rgb.shape[0], : rgb.shape[1]])
    with torch.inference_mode():
        found = image_levels(network, rgb, timestep, **which)
    return found.at(rows, columns).numpy()


def all_features(rgb: NDArray[np.uint8]) -> dict[str, Features]:
    """Every set of features of an image."""
    pretext, _ = load_pretext(resolve("pretext"))
    segmenter = load_segmenter(resolve("nuclei"))
    network = levels(pretext, rgb, TASK_TIMESTEP, says=False, measures=False)
    measures = levels(pretext, rgb, TASK_TIMESTEP, says=False, known=0)
    return {
        "scikit-image": forest.features(rgb).reshape(len(network), -1),
        "hand-made": measures,
        "network": network,
        "both": np.concatenate([network, measures], axis=1),
        "first gear, pretext": levels(pretext, rgb, TASK_TIMESTEP, known=KNOWN),
        "first gear, nuclei model": levels(segmenter.unet, rgb, segmenter.spec.timestep, known=KNOWN),
    }


def scikit(make: Callable[[], Any]) -> Fit:
    """A classifier of scikit-learn."""

    def fit(x: Features, y: Classes) -> Model:
        model = make().fit(x, y)
        return lambda z: model.predict_proba(z)[:, 1]

    return fit


def ours(x: Features, y: Classes) -> Model:
    """The package's classifier, both classes counting the same."""
    share = (1 / np.bincount(y))[y].astype(np.float32)
    model = fit_pixels(
        torch.from_numpy(x), torch.from_numpy(y.astype(np.int64)), torch.from_numpy(share), count=2
    )
    return lambda z: model.of(torch.from_numpy(z)).softmax(dim=1)[:, 1].numpy()


def logistic() -> Any:
    """A logistic regression on standardised features."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))


CLASSIFIERS: dict[str, Fit] = {
    "logistic": scikit(logistic),
    "random forest": scikit(lambda: RandomForestClassifier(100, min_samples_leaf=2, random_state=0)),
    "extra trees": scikit(lambda: ExtraTreesClassifier(50, min_samples_leaf=2, random_state=0)),
    "boosted trees": scikit(
        lambda: HistGradientBoostingClassifier(max_iter=60, early_stopping=False, random_state=0)
    ),
    "perceptron": ours,
}
FULL = ("logistic", "random forest", "boosted trees", "perceptron")
METHODS = [
    REFERENCE,
    ("first gear, pretext", "perceptron"),
    ("first gear, nuclei model", "perceptron"),
    ("first gear, pretext", "extra trees"),
    ("first gear, nuclei model", "extra trees"),
    ("scikit-image", "extra trees"),
    ("scikit-image", "perceptron"),
    *((features, classifier) for features in ("hand-made", "network", "both") for classifier in FULL),
]
FIRST = METHODS[:4]


def stroke(
    allowed: NDArray[np.bool_], start: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """A brush stroke that begins somewhere and stays on what it should label."""
    y, x = (float(side) for side in start)
    angle = rng.uniform(0, 2 * np.pi)
    line = np.zeros(allowed.shape, bool)
    for _ in range(LENGTH):
        for _ in range(8):
            row, column = round(y + np.sin(angle)), round(x + np.cos(angle))
            inside = 0 <= row < allowed.shape[0] and 0 <= column < allowed.shape[1]
            if inside and allowed[row, column]:
                y, x = y + np.sin(angle), x + np.cos(angle)
                break
            angle = rng.uniform(0, 2 * np.pi)
        line[round(y), round(x)] = True
        angle += rng.normal(0, 0.3)
    brush = np.hypot(*np.mgrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1]) <= RADIUS + 0.3
    return np.asarray(ndimage.binary_dilation(line, brush)) & allowed


def session(
    truth: NDArray[np.bool_], features: Features, fit: Fit, *, seed: int, own: bool
) -> Iterator[dict[str, float]]:
    """Paint, fit and score, round after round."""
    rng = np.random.default_rng(seed)
    labels = np.full(truth.shape, -1)
    wrong = np.zeros(truth.shape, bool)
    wrong[::LATTICE, ::LATTICE] = True
    lattice = np.flatnonzero(wrong)
    for _ in range(ROUNDS):
        for label in (0, 1):
            ours = truth == label
            for _ in range(STROKES):
                places = np.argwhere(wrong & ours & (labels < 0))
                if not len(places):
                    places = np.argwhere(ours)
                labels[stroke(ours, places[rng.integers(len(places))], rng)] = label
        painted = np.flatnonzero(labels >= 0)
        started = time.process_time()
        model = fit(features[painted], labels.ravel()[painted].astype(np.uint8))
        fitted = time.process_time()
        found = model(features[lattice]) > 0.5
        answered = time.process_time()
        if own:
            wrong.ravel()[lattice] = found != truth.ravel()[lattice]
        rest = labels.ravel()[lattice] < 0
        a, b = found[rest], truth.ravel()[lattice][rest]
        yield {
            "dice": 2 * int((a & b).sum()) / max(1, int(a.sum() + b.sum())),
            "painted": len(painted),
            "fit": round(fitted - started, 3),
            "answer": round((answered - fitted) / len(lattice) * 1e6, 3),
        }


def middle(example: Example) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The middle of an image, and where its foreground is."""
    parts = tuple(
        slice((side - min(side, SIDE)) // 2, (side + min(side, SIDE)) // 2) for side in example.labels.shape
    )
    return np.ascontiguousarray(example.rgb[parts]), example.labels[parts] > 0


def print_table(rows: list[dict[str, Any]]) -> None:
    """Mean Dice over images and seeds, and the difference from the reference on the same ones."""
    for name in dict.fromkeys(row["set"] for row in rows):
        mine = [row for row in rows if row["set"] == name]
        heads = [
            name,
            *(f"round {r}" for r in REPORTED),
            "above the reference",
            "images",
            "fit, answer (CPU)",
        ]
        print("\n| " + " | ".join(heads) + " |\n" + "| --- " * len(heads) + "|")
        for key in dict.fromkeys((row["features"], row["classifier"]) for row in mine):
            same = [row for row in mine if (row["features"], row["classifier"]) == key]
            dice = np.array([[row["rounds"][r - 1]["dice"] for r in REPORTED] for row in same])
            scores = [f"{m:.3f} ± {s:.3f}" for m, s in zip(dice.mean(0), dice.std(0), strict=True)]
            gain, error = gain_over_reference(same, mine)
            fit = np.mean([row["rounds"][-1]["fit"] for row in same])
            answer = np.mean([row["rounds"][-1]["answer"] for row in same])
            cells = [", ".join(key), *scores, f"{gain:+.3f} ± {error:.3f}", str(len(same))]
            print("| " + " | ".join([*cells, f"{fit:.2f} s, {answer:.2f} s/Mpx"]) + " |")


def gain_over_reference(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> tuple[float, float]:
    """Mean difference of Dice from the reference over images and rounds, with its standard error."""
    base = {
        (row["image"], row["seed"]): np.array([one["dice"] for one in row["rounds"]])
        for row in others
        if (row["features"], row["classifier"]) == REFERENCE
    }
    gains = np.array(
        [
            np.mean([one["dice"] for one in row["rounds"]]) - base[at].mean()
            for row in rows
            if (at := (row["image"], row["seed"])) in base
        ]
    )
    return float(gains.mean()), float(gains.std() / max(1, len(gains) - 1) ** 0.5)


def main() -> None:
    """Run what the JSON file does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--images", type=int, default=8, help="of each set")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--part", choices=("training", "test"), default="test")
    parser.add_argument("--sets", nargs="*", default=["glands", "nuclei"])
    parser.add_argument("--strokes", choices=("own", "random"), default="own")
    parser.add_argument("--first", action="store_true", help="the reference and the first gear only")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(arguments.json.read_text()) if arguments.json.exists() else []
    names = ("set", "image", "seed", "features", "classifier", "strokes")
    known = {tuple(row[part] for part in names) for row in rows}
    sets = tasks(arguments.data)
    for index in range(arguments.images):
        for name in arguments.sets:
            task = sets[name]
            items = getattr(task, arguments.part)
            (example,) = examples(task, [items[index * len(items) // arguments.images]])
            rgb, truth = middle(example)
            if not 0.02 < truth.mean() < 0.98:
                continue
            measured = all_features(rgb)
            for seed in range(arguments.seeds):
                for features, classifier in FIRST if arguments.first else METHODS:
                    key = (name, example.name, seed, features, classifier, arguments.strokes)
                    if key in known:
                        continue
                    rounds = session(
                        truth,
                        measured[features],
                        CLASSIFIERS[classifier],
                        seed=seed,
                        own=arguments.strokes == "own",
                    )
                    rows.append(dict(zip(names, key, strict=True)) | {"rounds": list(rounds)})
                arguments.json.write_text(json.dumps(rows) + "\n")
        print_table([row for row in rows if row["strokes"] == arguments.strokes])


if __name__ == "__main__":
    main()
