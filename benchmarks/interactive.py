"""Correct, fine-tune, see it better: what a simulated pathologist gets for ten rounds of it.

    python benchmarks/interactive.py DATA --json docs/benchmarks/interactive.json
    python benchmarks/interactive.py DATA --quick

``DATA`` holds ``monuseg`` and ``glas`` in their official layouts. Each set is divided into three folds,
GlaS by patient and MoNuSeg by image. A project is a few images of one fold; in each round the pathologist
corrects one window of one of them with brush strokes (`simulated_pathologist`), at most ``--budget``
touched pixels, and the model learns from all strokes so far. It begins without a model: in the first round
a window is painted in which nothing was predicted yet, the same one for every method. Dice is scored on
images of another fold, which are never corrected, and on the project's images outside the windows that were
corrected.

Methods that correct what they themselves got wrong, and differ in where:

- ``pretext``: the network fine-tuned from the pretext; the window that is worst by the truth
- ``suggested``: the same, the window that the plugin suggests; ``random``: the same, any window
- ``scratch-own``, ``instant-own``, ``forest-own``: as below, correcting their own errors in the worst window

Methods that learn from the very strokes of ``pretext``, and differ in nothing else:

- ``scratch``: the same network with standard initialisation
- ``scratch-whole``: the same, but a round goes all of the way to its new weights, which suits scratch better
- ``instant``: the first gear alone
- ``forest``: a random forest on scikit-image's multiscale features

A row of the JSON file is one run of all rounds; "everything" is the Dice of calling every pixel foreground,
which is not little on glands. Rows that it holds already are not computed again, so a long table can be made
in parts; projects follow one another, each with all methods. Seconds are processor time of the learning
alone, and the clock's beside it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interactive_learners import CLASSES, Instant, Learner, Network, Woods
from interactive_project import (
    FOLDS,
    Fold,
    Page,
    Picture,
    Place,
    first_place,
    folds,
    free_places,
    held_out_pictures,
    most,
    project,
)
from label_efficiency import Task, tasks
from napari_genselfdiff.compute import choose_compute
from napari_genselfdiff.diffusion.pretraining import load_pretext
from napari_genselfdiff.files import write_text
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models.library import resolve
from napari_genselfdiff.segmentation.metrics import class_scores
from napari_genselfdiff.segmentation.network import SegmenterSpec, build_segmenter
from simulated_pathologist import UNPREDICTED, Stroke, correct

LIVE = ("pretext", "suggested", "random", "scratch-own", "instant-own", "forest-own")
REPLAYED = ("scratch", "scratch-whole", "instant", "forest")
Maps = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Plan:
    """What is the same for all rows."""

    rounds: int
    steps: int | None
    budget: int
    images: int
    held_out: int
    threads: int


@dataclass(frozen=True)
class Correction:
    """What was done in one round."""

    place: Place
    strokes: list[Stroke]

    def to_row(self) -> dict[str, Any]:
        """Plain values."""
        w = self.place.window
        return {
            "image": self.place.page,
            "window": [w.y, w.x, w.height, w.width],
            "strokes": [[s.label, *(n for point in s.points for n in point)] for s in self.strokes],
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Correction:
        """Inverse of `to_row`."""
        strokes = [
            Stroke(label, tuple(zip(numbers[::2], numbers[1::2], strict=True)))
            for label, *numbers in row["strokes"]
        ]
        return cls(Place(row["image"], Region(*row["window"])), strokes)


def learner(method: str, task: Task, pretext: str, plan: Plan, seed: int) -> Learner:
    """The model of a method, before it has learned anything."""
    kind = method.removesuffix("-own")
    if kind == "forest":
        return Woods(seed=seed)
    compute = choose_compute("cpu", threads=plan.threads)
    unet, _ = load_pretext(pretext)
    if kind == "instant":
        return Instant(unet, compute=compute)
    weights = None if kind.startswith("scratch") else unet.state_dict()
    start = build_segmenter(SegmenterSpec(unet.config, CLASSES, task.mpp), start=weights, seed=seed)
    return Network(start, whole=kind == "scratch-whole", steps=plan.steps, seed=seed, compute=compute)


def next_place(method: str, pages: Sequence[Page], maps: Maps | None, rng: np.random.Generator) -> Place:
    """Where to correct."""
    if maps is None:
        return first_place(pages, rng)
    if method == "random":
        places = free_places(pages)
        return places[int(rng.integers(len(places)))]
    if method == "suggested":
        from interactive_suggestions import suggested_place

        return suggested_place(pages, maps)
    wrong = [
        ((one > 0.5) != (page.picture.truth > 0)) & ~page.drawn for one, page in zip(maps, pages, strict=True)
    ]
    return most(pages, wrong)


def correction(place: Place, pages: Sequence[Page], maps: Maps | None, budget: int) -> Correction:
    """What the pathologist paints there."""
    page = pages[place.page]
    truth = page.picture.truth
    predicted = np.full(truth.shape, UNPREDICTED, np.uint8)
    if maps is not None:
        predicted = (maps[place.page] > 0.5).astype(np.uint8)
    return Correction(place, correct(truth, predicted, page.drawn, place.window, budget=budget))


def dice(probability: NDArray[np.float32], picture: Picture, valid: NDArray[np.bool_] | None = None) -> float:
    """Of one image, where ``valid``."""
    return float(class_scores(probability > 0.5, picture.truth > 0, valid=valid)["dice"])


def one_run(
    task: Task,
    fold: Fold,
    test: Sequence[Picture],
    method: str,
    seed: int,
    plan: Plan,
    pretext: str,
    given: Sequence[Correction] | None,
    report: Callable[[dict[str, Any]], None],
) -> list[dict[str, Any]]:
    """All rounds of one method on one project."""
    model = learner(method, task, pretext, plan, seed)
    rng = np.random.default_rng(1000 * seed + fold.number)
    maps: Maps | None = None
    rounds: list[dict[str, Any]] = []
    with project(fold, task.mpp) as pages:
        for number in range(1, plan.rounds + 1):
            if given is None:
                done = correction(next_place(method, pages, maps, rng), pages, maps, plan.budget)
            else:
                done = given[number - 1]
            for stroke in done.strokes:
                pages[done.place.page].paint(stroke)
            pages[done.place.page].windows.append(done.place.window)
            clock, processor = time.perf_counter(), time.process_time()
            notes = model.learn(pages)
            seconds = {"cpu": time.process_time() - processor, "clock": time.perf_counter() - clock}
            maps = [model.probability(page.picture.rgb) for page in pages]
            rest = [page.unseen() for page in pages]
            row = {
                "round": number,
                "dice": [round(dice(model.probability(one.rgb), one), 4) for one in test],
                "rest": [
                    round(dice(one, page.picture, valid), 4)
                    for one, page, valid in zip(maps, pages, rest, strict=True)
                    if valid.any()
                ],
                "touched": int(sum(page.drawn.sum() for page in pages)),
                **{name: round(value, 2) for name, value in seconds.items()},
                **notes,
            }
            report(row)
            rounds.append(row | ({} if given else done.to_row()))
    return rounds


def parsed() -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=["nuclei", "glands"])
    parser.add_argument(
        "--methods", nargs="+", default=["pretext", "forest", "scratch", "suggested", "random"]
    )
    parser.add_argument("--folds", nargs="+", type=int, default=list(range(FOLDS)))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, help="of each round; by default the plugin's number")
    parser.add_argument("--budget", type=int, default=1000, help="touched pixels a round")
    parser.add_argument("--images", type=int, default=5, help="of a project")
    parser.add_argument("--held-out", type=int, default=10, help="images to score")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--nuclei-pretext", default="pretext")
    parser.add_argument("--glands-pretext", default="pretext")
    parser.add_argument(
        "--fixed", action="store_true", help="hold out what the sets' own pretexts did not see"
    )
    parser.add_argument("--quick", action="store_true", help="one fold, three rounds of 30 steps")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.folds, arguments.rounds, arguments.steps = [0], 3, 30
    return arguments


def main() -> None:
    """Compute the rows that are missing."""
    arguments = parsed()
    rows: list[dict[str, Any]] = []
    if arguments.json and arguments.json.exists():
        rows = json.loads(arguments.json.read_text())
    plan = Plan(
        arguments.rounds,
        arguments.steps,
        arguments.budget,
        arguments.images,
        arguments.held_out,
        arguments.threads,
    )
    pretexts = {
        "nuclei": str(resolve(arguments.nuclei_pretext)),
        "glands": str(resolve(arguments.glands_pretext)),
    }
    known = tasks(arguments.data)
    for seed in arguments.seeds:
        for number in arguments.folds:
            for task in (known[name] for name in arguments.sets):
                fold = folds(task, images=plan.images, held_out=plan.held_out, fixed=arguments.fixed)[number]
                test = held_out_pictures(fold, task.mpp)
                for method in arguments.methods:
                    key = {"set": task.name, "fold": number, "seed": seed, "method": method}
                    if any(key.items() <= row.items() for row in rows):
                        continue
                    given = None
                    if method in REPLAYED:
                        source = key | {"method": "pretext"}
                        given = next(
                            [Correction.from_row(one) for one in row["rounds"]]
                            for row in rows
                            if source.items() <= row.items()
                        )

                    def report(row: dict[str, Any], key: dict[str, Any] = key) -> None:
                        short = {
                            name: v if not isinstance(v, list) else f"{np.mean(v):.3f}"
                            for name, v in row.items()
                        }
                        print(
                            *key.values(), *(f"{name} {value}" for name, value in short.items()), flush=True
                        )

                    found = one_run(task, fold, test, method, seed, plan, pretexts[task.name], given, report)
                    whole = [dice(np.ones(one.truth.shape, np.float32), one) for one in test]
                    images = {
                        "images": [one.name for one in test],
                        "groups": [one.group for one in test],
                        "everything": [round(value, 4) for value in whole],
                    }
                    rows.append(key | {"steps": plan.steps} | images | {"rounds": found})
                    if arguments.json:
                        arguments.json.parent.mkdir(parents=True, exist_ok=True)
                        write_text(arguments.json, json.dumps(rows, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
