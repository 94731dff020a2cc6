"""The first round of a new task, in which one window is painted, from scratch and from the pretext.

    python benchmarks/first_round.py DATA --json docs/benchmarks/first-round.json

A project of `interactive.py`, its first window and strokes, and a fine-tune from scratch or from the bundled
pretext; many windows, because one says little. Dice is scored on images of other patients; beside it stands
what calling everything foreground would have. Rows that the JSON file holds already are not computed again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interactive import correction, dice, next_place
from interactive_learners import CLASSES
from interactive_project import FOLDS, Picture, folds, held_out_pictures, project
from label_efficiency import Task, tasks
from napari_genselfdiff.compute import Compute, choose_compute
from napari_genselfdiff.diffusion.pretraining import load_pretext
from napari_genselfdiff.events import CancelToken, Clock, Event
from napari_genselfdiff.files import write_text
from napari_genselfdiff.finetuning.corrections import Source
from napari_genselfdiff.finetuning.preparation import Cut, cut_places
from napari_genselfdiff.finetuning.recipe import Recipe, recipe_for
from napari_genselfdiff.finetuning.scoring import predict_image
from napari_genselfdiff.finetuning.training import Training
from napari_genselfdiff.models.library import resolve
from napari_genselfdiff.segmentation.network import Segmenter, SegmenterSpec, build_segmenter

EVERYTHING = "everything foreground"
VARIANTS = (EVERYTHING, "scratch", "pretext")


def cut_of(sources: list[Source], segmenter: Segmenter, seed: int, compute: Compute) -> Cut:
    """What the plugin would train on."""
    found: list[Cut | None] = []

    def work() -> Iterator[Event]:
        cancel = CancelToken()
        found.append(
            (yield from cut_places(sources, segmenter, compute=compute, fresh=True, seed=seed, cancel=cancel))
        )

    for _ in work():
        pass
    assert found[0] is not None
    return found[0]


def mean_dice(maps: list[NDArray[np.float32]], test: list[Picture]) -> float:
    """Each image counts once."""
    return round(float(np.mean([dice(one, picture) for one, picture in zip(maps, test, strict=True)])), 4)


def scores(
    variant: str,
    task: Task,
    sources: list[Source],
    test: list[Picture],
    steps: list[int],
    seed: int,
    compute: Compute,
) -> dict[str, float]:
    """Mean Dice after so many steps each."""
    unet, _ = load_pretext(resolve("pretext"))
    start = unet.state_dict() if variant == "pretext" else None
    segmenter = build_segmenter(SegmenterSpec(unet.config, CLASSES, task.mpp), start=start, seed=seed)
    cut = cut_of(sources, segmenter, seed, compute)
    settings = replace(recipe_for(cut.amount, fresh=True).settings, seed=1000 * seed)
    training = Training(segmenter, Recipe(settings, max(steps)), compute, CancelToken(), Clock(), None, None)
    trainer, sampler = training.start([place.example() for place in cut.places])
    found = {}
    for step in sorted(steps):
        for _ in training.train(trainer, sampler, step, None):
            pass
        model = trainer.snapshot()
        maps = [predict_image(model, one.rgb, compute).probabilities[1] / np.float32(255) for one in test]
        found[str(step)] = mean_dice(maps, test)
    return found


def print_table(rows: list[dict[str, Any]]) -> None:
    """Means and standard deviations over windows."""
    for name in dict.fromkeys(row["set"] for row in rows):
        here = [row for row in rows if row["set"] == name]
        steps = list(here[0]["dice"])
        print(f"| {name} | windows | " + " | ".join(f"{step} steps" for step in steps) + " |")
        print("| --- " * (len(steps) + 2) + "|")
        for variant in dict.fromkeys(row["variant"] for row in here):
            same = [row["dice"] for row in here if row["variant"] == variant]
            cells = [
                f"{np.mean(v):.3f} ± {np.std(v):.3f}" for v in ([s[step] for s in same] for step in steps)
            ]
            print(f"| {variant} | {len(same)} | {' | '.join(cells)} |")


def main() -> None:
    """Compute the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=["nuclei", "glands"])
    parser.add_argument("--folds", nargs="+", type=int, default=list(range(FOLDS)))
    parser.add_argument("--seeds", nargs="+", type=int, default=[2, 3])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--steps", nargs="+", type=int, default=[60, 100])
    parser.add_argument("--budget", type=int, default=1000, help="touched pixels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if arguments.json and arguments.json.exists():
        rows = json.loads(arguments.json.read_text())
    known, compute = tasks(arguments.data), choose_compute("cpu", threads=arguments.threads)
    for seed in arguments.seeds:
        for number in arguments.folds:
            for task in (known[name] for name in arguments.sets):
                fold = folds(task, images=5, held_out=10, fixed=False)[number]
                test = held_out_pictures(fold, task.mpp)
                with project(fold, task.mpp) as pages:
                    place = next_place("pretext", pages, None, np.random.default_rng(1000 * seed + number))
                    for stroke in correction(place, pages, None, arguments.budget).strokes:
                        pages[place.page].paint(stroke)
                    sources = [Source(p.slide, p.annotations, p.picture.name) for p in pages if p.drawn.any()]
                    for name in arguments.variants:
                        key = {"set": task.name, "fold": number, "seed": seed, "variant": name}
                        if any(key.items() <= row.items() for row in rows):
                            continue
                        if name == EVERYTHING:
                            value = mean_dice([np.ones(one.truth.shape, np.float32) for one in test], test)
                            found = {str(step): value for step in arguments.steps}
                        else:
                            found = scores(name, task, sources, test, arguments.steps, seed, compute)
                        rows.append(key | {"dice": found})
                        print(rows[-1], flush=True)
                        if arguments.json:
                            write_text(arguments.json, json.dumps(rows) + "\n")
    print_table(rows)


if __name__ == "__main__":
    main()
