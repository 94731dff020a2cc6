r"""How far to go towards the new weights, and what the held-out corrections say about it.

Moments of sessions like those of ``gate.py``: some windows are corrected, in some sessions a third of them
wrongly; a copy of the model trains on them, and all of the way to its weights and half of it are scored, by
the gate's exam and by the truth on images that are never corrected. The model goes on to the better of the
two in every second moment in which it is better, so that models of several ages are seen.

    python benchmarks/halfway.py DATA/monuseg --wrong 17 --json runs/halfway.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import gate
from napari_genselfdiff.compute import choose_compute
from napari_genselfdiff.events import CancelToken, Clock
from napari_genselfdiff.finetuning.corrections import Outline, read_place
from napari_genselfdiff.finetuning.exam import Answers, Exam
from napari_genselfdiff.finetuning.gate import judge_round
from napari_genselfdiff.finetuning.preparation import Cut
from napari_genselfdiff.finetuning.recipe import Recipe, recipe_for
from napari_genselfdiff.finetuning.training import Training
from napari_genselfdiff.models import library
from napari_genselfdiff.segmentation.network import Segmenter, load_segmenter

ROUNDS = 50
SHARES = (1.0, 0.5)
MODELS = ("bundled", "other colours", "young")


@dataclass
class Session:
    """One sequence of corrected windows."""

    seed: int
    arguments: argparse.Namespace

    def outlines(self, rng: np.random.Generator, images: dict[str, gate.Image_]) -> Iterator[list[Outline]]:
        """What is corrected after each round."""
        spoil = rng.permutation(ROUNDS) < self.arguments.wrong
        done: list[Outline] = []
        stems = list(images)
        for number in range(ROUNDS):
            kind = str(rng.choice(gate.KINDS)) if spoil[number] else None
            stem = stems[rng.integers(len(stems))]
            newest = gate.outline(stem, images[stem], rng, kind)
            done = [*(gate.painted_over(older, newest) for older in done), newest]
            yield [one for one in done if one.codes.any()]

    def moments(self) -> Iterator[dict[str, Any]]:
        """Rows of some rounds."""
        rng = np.random.default_rng(self.seed)
        compute = choose_compute("cpu", threads=self.arguments.threads)
        kind = MODELS[self.seed % len(MODELS)]
        stain = 0.8 if kind == "other colours" else 0.0
        mosaic, stems = gate.mosaic_of(self.arguments.monuseg, rng, stain=stain)
        images = gate.corrected_images(self.arguments.monuseg, stems, len(stems), stain=stain)
        model = load_segmenter(library.resolve("nuclei"))
        if kind == "young":
            model = gate.young([images.pop(stem) for stem in stems[:2]], self.arguments, compute)
        truth = gate.mosaic_dice(model, mosaic, compute)
        moments = set(rng.choice(ROUNDS, self.arguments.moments, replace=False).tolist())
        for number, outlines in enumerate(self.outlines(rng, images)):
            if number not in moments:
                continue
            chosen = [outlines[i] for i in rng.permutation(len(outlines))[: self.arguments.places]]
            cut = Cut([read_place(one, model, compute=compute) for one in chosen], {}).settled()
            training = self.training(model, cut)
            trainer, sampler = training.start([place.example() for place in cut.places])
            for _ in training.train(trainer, sampler, self.arguments.steps, None):
                pass
            exam = Exam(cut.places, [place.held for place in cut.places], classes=2)
            before = answered(exam, model, training, parent=True)
            row: dict[str, Any] = {"seed": self.seed, "round": number, "model": kind, "dice": truth}
            best = model, truth
            for share in SHARES:
                new = training.result(trainer, share)
                score = gate.mosaic_dice(new, mosaic, compute)
                verdict = judge_round(before, answered(exam, new, training))
                known = {"before": verdict.before, "after": verdict.after, "low": verdict.low}
                row[f"share {share}"] = {"dice": score, "kept": verdict.kept, **known}
                best = max(best, (new, score), key=lambda pair: pair[1])
            yield row | {"regions": exam.regions}
            if best[1] > truth and rng.random() < 0.5:
                model, truth = best

    def training(self, model: Segmenter, cut: Cut) -> Training:
        """As a round's."""
        recipe = Recipe(recipe_for(cut.amount).settings, self.arguments.steps)
        compute = choose_compute("cpu", threads=self.arguments.threads)
        return Training(model, recipe, compute, CancelToken(), Clock(), None, None)


def answered(exam: Exam, model: Segmenter, training: Training, *, parent: bool = False) -> Answers:
    """What a model answers."""

    def work() -> Iterator[Any]:
        yield (yield from exam.answers(model, training.compute, training.cancel, parent=parent))

    *_, answers = work()
    assert isinstance(answers, Answers)
    return answers


def print_table(rows: list[dict[str, Any]]) -> None:
    """What each share of the way gains, for all moments and for those that the exam likes."""
    print("| share | moments | mean | worst | the exam is sure of a gain | mean of these | worst of these |")
    print("| --- " * 7 + "|")
    for share in SHARES:
        of = [(row[f"share {share}"], row["dice"]) for row in rows]
        gains = np.array([one["dice"] - before for one, before in of])
        sure = np.array([one["low"] is not None and one["low"] > 0 for one, _ in of])
        liked = gains[sure] if sure.any() else np.zeros(1)
        cells = [f"{len(rows)}", f"{gains.mean():+.3f}", f"{gains.min():+.3f}"]
        cells += [f"{sure.sum()}", f"{liked.mean():+.3f}", f"{liked.min():+.3f}"]
        print("| " + " | ".join([f"{share:g}", *cells]) + " |")


def main() -> None:
    """Compute sessions that the file does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("monuseg", type=Path)
    parser.add_argument("--sessions", type=int, default=6)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--wrong", type=int, default=0, help="of 50 rounds")
    parser.add_argument("--moments", type=int, default=5, help="of each session")
    parser.add_argument("--places", type=int, default=39, help="windows that a round reads")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--young", type=int, default=120, help="steps of the young model")
    parser.add_argument("--batch", type=int, default=4, help="of its training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.small = False
    rows: list[dict[str, Any]] = json.loads(arguments.json.read_text()) if arguments.json.exists() else []
    for seed in range(arguments.seed, arguments.seed + arguments.sessions):
        if any(row["seed"] == seed for row in rows):
            continue
        rows += list(Session(seed, arguments).moments())
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
        print_table(rows)


if __name__ == "__main__":
    main()
