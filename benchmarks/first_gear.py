"""Which features and which classifier answer strokes best?

    python benchmarks/first_gear.py DATA --json docs/benchmarks/first-gear.json

``DATA`` holds ``monuseg`` and ``glas``. On each image a person is simulated: in every round two brush strokes
of 5 pixels width are painted for each class, at places where the current answer is wrong (at first anywhere);
a stroke stays on what it should label. The classifier is fitted anew, and Dice is counted on what was not
painted. Every method has its own strokes, because places where another one is wrong teach it less: with the
strokes of the reference the others fell behind by up to 0.1. With ``--strokes random`` all have the same ones.

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
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import forest
from label_efficiency import examples, tasks
from napari_genselfdiff.diffusion.frozen import frozen_levels, margin_for
from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.diffusion.pretraining import load_pretext
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.finetuning.pixels import fit_linear
from napari_genselfdiff.models.library import resolve
from napari_genselfdiff.segmentation.network import load_segmenter

Features = NDArray[np.float32]
Classes = NDArray[np.uint8]
Model = Callable[[Features], NDArray[np.floating[Any]]]
"""Features of pixels to the probability of the foreground."""
Fit = Callable[[Features, Classes], Model]

ROUNDS = 5
REPORTED = (1, 3, 5)
STROKES = 2
"""New strokes a class and round."""
LENGTH, RADIUS = 24, 2
"""Of a stroke, in pixels of the task."""
SIDE = 320
"""Images are cut to squares of at most this side, from their middle."""
LATTICE = 2
"""Every pixel of so many, along both sides, is answered and scored."""
REFERENCE = "scikit-image", "random forest"


def network_features(network: UNet, rgb: NDArray[np.uint8], timestep: int) -> dict[str, Features]:
    """Features of all pixels: the network's, the hand-made ones, each of shape (pixels, features)."""
    margin, stride = margin_for(network), network.config.stride
    height, width = rgb.shape[:2]
    grown = np.pad(
        rgb,
        ((margin, margin + -height % stride), (margin, margin + -width % stride), (0, 0)),
        mode="symmetric",
    )
    rows, columns = (torch.from_numpy(part.ravel()) for part in np.mgrid[:height, :width])
    found = {}
    for name, which in (("network", {"measures": False}), ("hand-made", {"known": False})):
        with torch.inference_mode():
            levels = frozen_levels(network, to_unit_range(grown[None]), timestep, margin=margin, **which)
        found[name] = levels.at(rows, columns).numpy()
    return found


def all_features(rgb: NDArray[np.uint8]) -> dict[str, Features]:
    """Every set of features of an image."""
    pretext, _ = load_pretext(resolve("pretext"))
    segmenter = load_segmenter(resolve("nuclei"))
    ours = network_features(pretext, rgb, 50)
    theirs = network_features(segmenter.unet, rgb, segmenter.spec.timestep)
    scikit = forest.features(rgb).reshape(len(ours["network"]), -1)
    return {
        "scikit-image": scikit,
        "hand-made": ours["hand-made"],
        "network": ours["network"],
        "both": np.concatenate([ours["network"], ours["hand-made"]], axis=1),
        "segmenter": theirs["network"],
        "segmenter, both": np.concatenate([theirs["network"], ours["hand-made"]], axis=1),
    }


def scikit(make: Callable[[], Any]) -> Fit:
    """A classifier of scikit-learn."""

    def fit(x: Features, y: Classes) -> Model:
        model = make().fit(x, y)
        return lambda z: model.predict_proba(z)[:, 1]

    return fit


def linear(x: Features, y: Classes) -> Model:
    """The package's logistic regression, both classes counting the same."""
    share = (1 / np.bincount(y))[y].astype(np.float32)
    model = fit_linear(
        torch.from_numpy(x), torch.from_numpy(y.astype(np.int64)), torch.from_numpy(share), count=2
    )
    return lambda z: model.of(torch.from_numpy(z)).softmax(dim=1)[:, 1].numpy()


def mean_of(*fits: Fit) -> Fit:
    """Mean probability of several classifiers."""

    def fit(x: Features, y: Classes) -> Model:
        models = [one(x, y) for one in fits]
        return lambda z: np.mean([model(z) for model in models], axis=0)

    return fit


def perceptron() -> Any:
    """One hidden layer of 64."""
    return make_pipeline(StandardScaler(), MLPClassifier((64,), alpha=1.0, max_iter=40, random_state=0))


extra = scikit(lambda: ExtraTreesClassifier(50, min_samples_leaf=2, random_state=0))
CLASSIFIERS: dict[str, Fit] = {
    "logistic": linear,
    "random forest": scikit(lambda: RandomForestClassifier(100, min_samples_leaf=2, random_state=0)),
    "extra trees": extra,
    "boosted trees": scikit(
        lambda: HistGradientBoostingClassifier(max_iter=60, early_stopping=False, random_state=0)
    ),
    "perceptron": scikit(perceptron),
    "logistic + extra trees": mean_of(linear, extra),
}


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
        print(
            f"\n| {name} | "
            + " | ".join(f"round {r}" for r in REPORTED)
            + " | against the reference | fit, answer |"
        )
        print("| --- " * (len(REPORTED) + 3) + "|")
        mine = [row for row in rows if row["set"] == name]
        base = {
            (row["image"], row["seed"]): row
            for row in mine
            if (row["features"], row["classifier"]) == REFERENCE
        }
        for key in dict.fromkeys((row["features"], row["classifier"]) for row in mine):
            same = [row for row in mine if (row["features"], row["classifier"]) == key]
            dice = np.array([[row["rounds"][r - 1]["dice"] for r in REPORTED] for row in same])
            gains = np.array(
                [
                    np.mean(
                        [
                            a["dice"] - b["dice"]
                            for a, b in zip(row["rounds"], base[at]["rounds"], strict=True)
                        ]
                    )
                    for row in same
                    if (at := (row["image"], row["seed"])) in base
                ]
            )
            error = gains.std() / max(1, len(gains)) ** 0.5
            fit = np.mean([row["rounds"][-1]["fit"] for row in same])
            answer = np.mean([row["rounds"][-1]["answer"] for row in same])
            cells = " | ".join(f"{m:.3f} ± {s:.3f}" for m, s in zip(dice.mean(0), dice.std(0), strict=True))
            print(
                f"| {key[0]}, {key[1]} | {cells} | {gains.mean():+.3f} ± {error:.3f} | {fit:.2f}, {answer:.2f} s |"
            )


def main() -> None:
    """Run what the JSON file does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--images", type=int, default=8, help="of each set")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--part", choices=("training", "test"), default="test")
    parser.add_argument("--strokes", choices=("own", "random"), default="own")
    parser.add_argument("--features", nargs="*", default=None)
    parser.add_argument("--classifiers", nargs="*", default=list(CLASSIFIERS))
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(arguments.json.read_text()) if arguments.json.exists() else []
    known = {
        (row["set"], row["image"], row["seed"], row["features"], row["classifier"], row["strokes"])
        for row in rows
    }
    sets = tasks(arguments.data)
    for index in range(arguments.images):
        for name, task in sets.items():
            items = getattr(task, arguments.part)
            (example,) = examples(task, [items[index * len(items) // arguments.images]])
            rgb, truth = middle(example)
            if not 0.02 < truth.mean() < 0.98:
                continue
            measured = all_features(rgb)
            for seed in range(arguments.seeds):
                for features in arguments.features or measured:
                    for classifier in arguments.classifiers:
                        if features == "scikit-image" and classifier in ("boosted trees",):
                            continue
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
                        names = ("set", "image", "seed", "features", "classifier", "strokes")
                        rows.append(dict(zip(names, key, strict=True)) | {"rounds": list(rounds)})
                arguments.json.write_text(json.dumps(rows) + "\n")
        print_table([row for row in rows if row["strokes"] == arguments.strokes])


if __name__ == "__main__":
    main()
