"""How much do pretrained weights save? Dice, IoU, AJI and PQ against the number of labelled images.

    python benchmarks/label_efficiency.py DATA --json docs/benchmarks/label_efficiency.json
    python benchmarks/label_efficiency.py DATA --quick

``DATA`` holds ``monuseg`` and ``glas`` in their official layouts. Each set is split once, GlaS by patient and
MoNuSeg by image; ``--draws`` random choices of N labelled images are taken from the training part, and every
method is trained on the same ones for the same time. Scores are those of the held-out part at its own
resolution, one an image. Rows that the JSON file holds already are not computed again, so a long table can be
made in parts. ``--folds N`` is a cross-validation of the whole set instead: each draw holds out another part.

The methods differ in where they start and in nothing else, unless their name says so:

- ``pretext``: the pretext weights of ``--nuclei-pretext`` and ``--glands-pretext``
- ``scratch``: standard initialisation; ``scratch-long``: the same for four times as long
- ``paper``: ``--paper-pretext`` (noise prediction, P2) with the paper's loss and time step 0
- ``transfer``: the bundled nuclei segmenter, which has seen labels
- ``forest``: a random forest on scikit-image's multiscale features (``forest.py``)
- ``frozen``: the pretext's features, not trained, with pixel classifiers (``frozen.py``)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forest import Forest
from frozen import Frozen
from napari_genselfdiff.compute import Compute, choose_compute
from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.diffusion.pretraining import load_pretext
from napari_genselfdiff.events import Finished
from napari_genselfdiff.exchange.datasets import open_dataset
from napari_genselfdiff.exchange.layouts.item import DatasetItem
from napari_genselfdiff.exchange.pairs import LabelledImage
from napari_genselfdiff.finetuning.datasets import object_areas, to_example
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.finetuning.loop import FineTuneResult, FineTuneSettings, fine_tune
from napari_genselfdiff.finetuning.scoring import predict_image
from napari_genselfdiff.models.library import resolve
from napari_genselfdiff.segmentation.metrics import class_scores, instance_scores
from napari_genselfdiff.segmentation.network import SegmenterSpec, build_segmenter, load_segmenter
from napari_genselfdiff.segmentation.prediction import Prediction
from napari_genselfdiff.verbs.prediction import number_objects

SCORES = ("dice", "iou", "aji", "pq", "object_dice", "object_f1")
GLAS_TEST_PATIENTS = {"3", "5", "6", "8", "10", "14", "16"}
"""7 of 15 patients, 35 of 85 images, benign and malignant; the pretext for glands never sees them."""
MONUSEG_TEST = 10
"""Images, the first in the order of a hash of their names."""


@dataclass(frozen=True)
class Limits:
    """When a fine-tune ends: after some time, or, where other work shares the cores, after some steps."""

    seconds: float
    steps: int | None

    def of(self, method: str) -> dict[str, Any]:
        """Arguments of the fine-tune."""
        times = 4 if method == "scratch-long" else 1
        if self.steps is not None:
            return {"steps": self.steps * times}
        return {"seconds": self.seconds * times}

    def to_row(self) -> dict[str, Any]:
        """How a row says it."""
        return {"limit": f"{self.steps} steps" if self.steps is not None else f"{self.seconds:g} s"}


@dataclass(frozen=True)
class Task:
    """A data set, split, at the resolution that models work at."""

    name: str
    mpp: float
    training: list[DatasetItem]
    test: list[DatasetItem]

    def scale(self, item: DatasetItem) -> float:
        """Pixels of an image a pixel of the task's resolution."""
        return self.mpp / (item.mpp or self.mpp)


def tasks(data: Path) -> dict[str, Task]:
    """Both sets with their fixed splits."""
    glands = open_dataset(data / "glas", "glas")
    nuclei = open_dataset(data / "monuseg", "monuseg", labels=data / "monuseg" / "instances")
    nuclei.sort(key=lambda item: hashlib.sha256(item.name.encode()).hexdigest())
    return {
        "glands": Task(
            "glands",
            1.6,
            [item for item in glands if patient(item) not in GLAS_TEST_PATIENTS],
            [item for item in glands if patient(item) in GLAS_TEST_PATIENTS],
        ),
        "nuclei": Task("nuclei", 0.5, nuclei[MONUSEG_TEST:], nuclei[:MONUSEG_TEST]),
    }


def crossed(task: Task, fold: int, folds: int) -> Task:
    """One part of a cross-validation of the whole set; a patient's images are held out together."""
    items = [*task.training, *task.test]
    numbers = {group: index % folds for index, group in enumerate(sorted({str(i.group) for i in items}))}
    held = [numbers[str(item.group)] == fold for item in items]
    training, test = (
        [i for i, out in zip(items, held, strict=True) if out is part] for part in (False, True)
    )
    return replace(task, training=training, test=test)


def patient(item: DatasetItem) -> str:
    """The patient's number, without what a layout writes around it."""
    return "".join(c for c in str(item.group) if c.isdigit())


def chosen(task: Task, count: int, draw: int) -> list[DatasetItem]:
    """The labelled images of a draw; a larger number holds the smaller one."""
    order = np.random.default_rng(100 + draw).permutation(len(task.training))
    return [task.training[index] for index in order[:count]]


def labelled(item: DatasetItem) -> LabelledImage:
    """An item as the fine-tune takes it."""
    rgb, ids = item.load()
    return LabelledImage(item.name, rgb, ids, np.ones(ids.shape, bool))


def examples(task: Task, items: Sequence[DatasetItem]) -> list[Example]:
    """Items at the task's resolution."""
    return [to_example(labelled(item), scale=task.scale(item), instances=True) for item in items]


def usual_area(task: Task, items: Sequence[DatasetItem]) -> float:
    """Median area of the objects of labelled images, in pixels of the task."""
    areas = [object_areas(labelled(item), scale=task.scale(item)) for item in items]
    return float(np.median(np.concatenate(areas)))


def strokes(example: Example, *, share: float, count: int, seed: int) -> Example:
    """Label only what round brush strokes cover: ``count`` of them, a ``share`` of the pixels together."""
    rng = np.random.default_rng(seed)
    height, width = example.labels.shape
    radius = 3
    length = share * height * width / count / (2 * radius)
    yy, xx = np.mgrid[:height, :width]
    drawn = np.zeros((height, width), bool)
    for _ in range(count):
        y, x, angle = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0, 2 * np.pi)
        for _ in range(max(1, round(length))):
            drawn |= (yy - y) ** 2 + (xx - x) ** 2 <= radius**2
            angle += rng.normal(0, 0.2)
            y, x = np.clip((y + np.sin(angle), x + np.cos(angle)), 0, (height - 1, width - 1))
    return example.weighted(drawn)


class Trained:
    """A fine-tuned network that predicts at the resolution of the task."""

    def __init__(
        self,
        method: str,
        task: Task,
        data: list[Example],
        limits: Limits,
        seed: int,
        pretexts: dict[str, str],
    ) -> None:
        self.compute: Compute = choose_compute("cpu")
        spec = SegmenterSpec(COMPACT, ("background", "object"), task.mpp, instances=True)
        start, settings = None, FineTuneSettings(seed=seed)
        if method == "paper":
            spec, settings = replace(spec, timestep=0), replace(settings, loss="paper")
        network, _ = load_pretext(pretexts["paper" if method == "paper" else task.name])
        spec = replace(spec, config=network.config)  # scratch too: the start alone shall differ
        if method in ("pretext", "paper"):
            start = network.state_dict()
        elif method == "transfer":
            unet = load_segmenter(resolve("nuclei")).unet
            spec, start = replace(spec, config=unet.config), unet.state_dict()
        *_, last = fine_tune(
            build_segmenter(spec, start=start, seed=seed),
            data,
            [],
            compute=self.compute,
            settings=settings,
            score_before=False,
            **limits.of(method),
        )
        assert isinstance(last, Finished)
        assert isinstance(last.result, FineTuneResult)
        self.segmenter, self.steps = last.result.segmenter, last.result.steps

    def predict(self, rgb: NDArray[np.uint8]) -> Prediction:
        """Probabilities and map of cores of an image at the task's resolution."""
        return predict_image(self.segmenter, rgb, self.compute)


def objects(
    prediction: Prediction, shape: tuple[int, ...], scale: float, object_area: float | None
) -> NDArray[np.int32]:
    """Ids of the objects at the resolution of the labels, made as the plugin makes them on a slide."""
    fine = replace(prediction, scale=scale).resampled(0, 0, shape[0], shape[1])
    ids = np.zeros(shape, np.int32)
    number_objects(fine.labels, fine.core, scale=scale, object_area=object_area, out=ids)
    return ids


def one_row(
    task: Task,
    test: list[Example],
    method: str,
    count: int,
    draw: int,
    limits: Limits,
    pretexts: dict[str, str],
    partly: bool,
) -> dict[str, Any]:
    """Train once and score every held-out image."""
    items = chosen(task, count, draw)
    data = examples(task, items)
    area: float | None = usual_area(task, items)
    if partly:  # strokes do not say how large objects are
        area = None
        data = [strokes(example, share=0.05 / len(data), count=10, seed=draw) for example in data]
    started = time.perf_counter()
    model: Forest | Frozen | Trained
    if method == "frozen":
        model = Frozen(load_pretext(pretexts[task.name])[0], data, seed=draw)
    elif method == "forest":
        model = Forest(data, seed=draw)
    else:
        model = Trained(method, task, data, limits, draw, pretexts)
    took = time.perf_counter() - started
    images = []
    for item, example in zip(task.test, test, strict=True):
        _, truth = item.load()
        found = objects(model.predict(example.rgb), truth.shape, task.scale(item), area)
        scores = class_scores(found > 0, truth > 0) | instance_scores(found, truth)
        images.append({"name": item.name, "group": item.group} | {key: scores[key] for key in SCORES})
    return {
        "set": task.name,
        "method": method,
        "labels": count,
        "strokes": partly,
        "draw": draw,
        **limits.to_row(),
        "seconds": round(took, 1),
        "steps": getattr(model, "steps", None),
        "images": images,
    }


def means(row: dict[str, Any]) -> dict[str, float]:
    """Mean scores of a row, each image counting once."""
    return {key: float(np.mean([image[key] for image in row["images"]])) for key in SCORES}


def gain(rows: list[dict[str, Any]], ours: str, theirs: str) -> tuple[float, float, float]:
    """Difference of mean Dice over draws and images, with its 95 % bootstrap interval over groups.

    Groups are patients (GlaS) or images' patients (MoNuSeg); a group's images and draws stay together.
    """
    differences: dict[str, list[float]] = {}
    for row in rows:
        for other in rows:
            if (row["method"], other["method"], row["draw"]) == (ours, theirs, other["draw"]):
                for a, b in zip(row["images"], other["images"], strict=True):
                    differences.setdefault(str(a["group"]), []).append(a["dice"] - b["dice"])
    sums = np.array([(sum(values), len(values)) for values in differences.values()])
    draws = np.random.default_rng(0).integers(len(sums), size=(10_000, len(sums)))
    totals = sums[draws].sum(axis=1)
    low, high = np.percentile(totals[:, 0] / totals[:, 1], [2.5, 97.5])
    return float(sums[:, 0].sum() / sums[:, 1].sum()), float(low), float(high)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Scores by set, number of labels and method, and the gain of the pretext over the others."""
    print("| set | labels | method | draws | " + " | ".join(SCORES) + " | pretext gains (Dice) |")
    print("| --- " * (len(SCORES) + 5) + "|")
    by = ("set", "strokes", "limit", "labels")
    for key in sorted({tuple(row[name] for name in by) for row in rows}):
        part = [row for row in rows if tuple(row[name] for name in by) == key]
        name, partly, limit, count = key
        for method in dict.fromkeys(row["method"] for row in part):
            same = [row for row in part if row["method"] == method]
            scores = [means(row) for row in same]
            spread = [
                f"{np.mean([s[score] for s in scores]):.3f} ± {np.std([s[score] for s in scores]):.3f}"
                for score in SCORES
            ]
            gained = ""
            if method != "pretext" and any(row["method"] == "pretext" for row in part):
                gained = "{:+.3f} ({:+.3f} to {:+.3f})".format(*gain(part, "pretext", method))
            what = f"{count}{' (strokes)' if partly else ''}, {limit}"
            print(f"| {name} | {what} | {method} | {len(same)} | {' | '.join(spread)} | {gained} |")


def parsed() -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=["glands", "nuclei"])
    parser.add_argument("--methods", nargs="+", default=["pretext", "scratch", "forest"])
    parser.add_argument("--labels", nargs="+", default=["1", "3", "8", "all"])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--folds", type=int, help="cross-validate the whole set, once each")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--steps", type=int, help="in place of --seconds, where other work shares the cores")
    parser.add_argument("--strokes", action="store_true", help="ten strokes, 5 %% of an image together")
    parser.add_argument("--nuclei-pretext", default="pretext")
    parser.add_argument("--glands-pretext", default="pretext")
    parser.add_argument("--paper-pretext", default="pretext")
    parser.add_argument("--quick", action="store_true", help="3 labels, one draw, 60 s")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.labels, arguments.draws, arguments.seconds = ["3"], 1, 60.0
    return arguments


def main() -> None:
    """Compute the rows that are missing, and print the table."""
    arguments = parsed()
    rows: list[dict[str, Any]] = []
    if arguments.json and arguments.json.exists():
        rows = json.loads(arguments.json.read_text())
    pretexts = {
        "nuclei": str(resolve(arguments.nuclei_pretext)),
        "glands": str(resolve(arguments.glands_pretext)),
        "paper": str(resolve(arguments.paper_pretext)),
    }
    limits = Limits(arguments.seconds, arguments.steps)
    known = tasks(arguments.data)
    for whole in (known[name] for name in arguments.sets):
        for draw in range(arguments.folds or arguments.draws):
            task = crossed(whole, draw, arguments.folds) if arguments.folds else whole
            test = examples(task, task.test)
            for label in arguments.labels:
                count = len(task.training) if label == "all" else int(label)
                for method in arguments.methods:
                    key = {"set": task.name, "method": method, "labels": count, "strokes": arguments.strokes}
                    key |= {"draw": draw, **limits.to_row()}
                    if arguments.folds:
                        key["folds"] = arguments.folds
                    same = [row for row in rows if row.get("folds") == arguments.folds]
                    if any(key.items() <= row.items() for row in same):
                        continue
                    row = one_row(
                        task,
                        test,
                        method,
                        count,
                        draw,
                        limits,
                        pretexts,
                        arguments.strokes,
                    )
                    rows.append(row | key)
                    print(key | {k: round(v, 3) for k, v in means(row).items()}, flush=True)
                    if arguments.json:
                        arguments.json.write_text(json.dumps(rows) + "\n")
    print_table(rows)


if __name__ == "__main__":
    main()
