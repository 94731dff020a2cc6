"""What both gears make of strokes where a model that knows the task is in use already.

    python benchmarks/known_model.py DATA --json docs/benchmarks/known-model.json

MoNuSeg in three folds by image, as in ``interactive.py``, and the nuclei model that comes with the plugin. A
pathologist (`simulated_pathologist`) corrects the worst window of five images with strokes, at first where
the model is wrong, then where the answer or the new model is, at most ``--budget`` touched pixels each time.

- ``beside``: the plugin's instant answer, which learns what the model says beside the strokes, too
- ``alone``: the same, which learns from the strokes alone
- ``rounds``: the second gear, a round after each window; what its gate accepts is the next one's model

Dice of ten other images, of the five outside what was painted, and of the windows that were corrected, also
outside of what was painted; round 0 is the model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interactive import Maps, correction, dice, next_place
from interactive_learners import Instant, Learner, Network
from interactive_project import FOLDS, Page, Picture, folds, held_out_pictures, project
from label_efficiency import tasks
from napari_genselfdiff.compute import choose_compute
from napari_genselfdiff.files import write_text
from napari_genselfdiff.finetuning.scoring import predict_image
from napari_genselfdiff.models.library import resolve
from napari_genselfdiff.segmentation.network import load_segmenter

Row = dict[str, Any]
SCORES = "others", "images", "windows"
REPORTED = (0, 1, 2, 3, 5, 7, 10)
STEPS = 100
"""Of a round."""


def scores(maps: Maps, pages: Sequence[Page], others: Maps, test: Sequence[Picture]) -> dict[str, float]:
    """Mean Dice of each kind; of windows, when there are any."""
    free = [~page.drawn for page in pages]
    found = {
        "others": [dice(one, picture) for one, picture in zip(others, test, strict=True)],
        "images": [
            dice(one, page.picture, valid) for one, page, valid in zip(maps, pages, free, strict=True)
        ],
        "windows": [
            dice(one, page.picture, valid & ~page.unseen())
            for one, page, valid in zip(maps, pages, free, strict=True)
            if page.windows
        ],
    }
    return {name: round(float(np.mean(values)), 4) for name, values in found.items() if values}


def one_project(data: Path, number: int, method: str, rounds: int, budget: int) -> Iterator[Row]:
    """All rounds of one method on one project; the first row is the model's."""
    compute = choose_compute("cpu", threads=1)
    model = load_segmenter(resolve("nuclei"))
    mpp = model.spec.mpp
    assert mpp is not None
    fold = folds(tasks(data)["nuclei"], images=5, held_out=10, fixed=False)[number]
    test = held_out_pictures(fold, mpp)

    def says(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.asarray(predict_image(model, rgb, compute).probabilities[1] / np.float32(255))

    with project(fold, mpp) as pages:
        learner: Learner = Instant(model, compute=compute, fresh=method == "alone")
        if method == "rounds":
            learner = Network(model, known=True, steps=STEPS, seed=0, compute=compute)
            for page in pages:
                page.annotations.model = "round 0"
        notes: Row = {}
        maps = [says(page.picture.rgb) for page in pages]
        others = [says(picture.rgb) for picture in test]
        for done in range(rounds + 1):
            yield {"fold": number, "method": method, "round": done, **notes} | scores(
                maps, pages, others, test
            )
            place = next_place("pretext", pages, maps, np.random.default_rng(0))
            for stroke in correction(place, pages, maps, budget).strokes:
                pages[place.page].paint(stroke)
            pages[place.page].windows.append(place.window)
            if done < rounds:
                notes = learner.learn(pages)
                maps = [learner.probability(page.picture.rgb) for page in pages]
                others = [learner.probability(picture.rgb) for picture in test]


def print_table(rows: Sequence[Row]) -> None:
    """Means of the folds."""
    for score in SCORES:
        print(f"\n| {score}; after so many windows | {' | '.join(map(str, REPORTED))} |")
        print("| --- " * (len(REPORTED) + 1) + "|")
        for method in dict.fromkeys(row["method"] for row in rows):
            cells = []
            for done in REPORTED:
                values = [r[score] for r in rows if (r["method"], r["round"]) == (method, done) if score in r]
                cells.append(f"{np.mean(values):.3f} ± {np.std(values):.3f}" if values else "-")
            print(f"| {method} | {' | '.join(cells)} |")


def main() -> None:
    """Compute the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folds", nargs="+", type=int, default=list(range(FOLDS)))
    parser.add_argument("--methods", nargs="+", default=["alone", "beside", "rounds"])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--budget", type=int, default=1000, help="touched pixels a round")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[Row] = []
    if arguments.json and arguments.json.exists():
        rows = json.loads(arguments.json.read_text())
    for number in arguments.folds:
        for method in arguments.methods:
            if any((row["fold"], row["method"]) == (number, method) for row in rows):
                continue
            for row in one_project(arguments.data, number, method, arguments.rounds, arguments.budget):
                print(row, flush=True)
                rows.append(row)
            if arguments.json:
                write_text(arguments.json, json.dumps(rows, indent=0) + "\n")
    print_table(rows)


if __name__ == "__main__":
    main()
