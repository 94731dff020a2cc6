"""What a round on corrected windows does to a good model: patches, class balance, and half of the way.

    python benchmarks/windows.py DATA/monuseg --json docs/benchmarks/windows.json

Eight windows of 192 x 192 model pixels of MoNuSeg images are corrected as a whole, of which some may be wrong
(as in ``gate.py``), and the bundled nuclei model is trained on them, without a gate. Dice is that on a mosaic
of nine images in which nothing was corrected, after several numbers of steps, for the new model and for half
of the way to it. A seed says which images are corrected, which are not, and where the windows lie.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gate import KINDS, corrected_images, mosaic_dice, mosaic_of, outline
from napari_genselfdiff.compute import Compute, choose_compute
from napari_genselfdiff.events import CancelToken, Clock
from napari_genselfdiff.finetuning import sampling
from napari_genselfdiff.finetuning.corrections import Place, read_place
from napari_genselfdiff.finetuning.preparation import Cut
from napari_genselfdiff.finetuning.recipe import Recipe, recipe_for
from napari_genselfdiff.finetuning.training import Training, blended
from napari_genselfdiff.models import library
from napari_genselfdiff.segmentation.network import Segmenter, load_segmenter

WINDOWS = 8
CHOICES: dict[str, dict[str, Any]] = {
    "as it is: patches of 128 pixels, rare classes up to 4 times": {},
    "patches of 96 pixels": {"patch": 96},
    "no class balance": {"balance": 1.0},
    "learning rate 1e-4": {"learning_rate": 1e-4},
}


def trained(
    model: Segmenter, places: list[Place], choice: dict[str, Any], steps: list[int], compute: Compute
) -> dict[int, Segmenter]:
    """The model after so many steps each."""
    known = {name: value for name, value in choice.items() if name != "balance"}
    sampling.RAREST = choice.get("balance", 4.0)
    settings = replace(recipe_for(Cut(places, {}).settled().amount).settings, batch=4, **known)
    recipe = Recipe(settings, max(steps))
    training = Training(model, recipe, compute, CancelToken(), Clock(), None, None)
    trainer, sampler = training.start([place.example() for place in places])
    found = {}
    for step in sorted(steps):
        for _ in training.train(trainer, sampler, step, None):
            pass
        found[step] = trainer.snapshot()
    return found


def main() -> None:
    """Run every choice on every set of windows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("monuseg", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 1])
    parser.add_argument("--wrong", type=int, nargs="+", default=[0, 3], help="of the eight windows")
    parser.add_argument("--steps", type=int, nargs="+", default=[8, 16, 40, 80])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    compute = choose_compute("cpu", threads=arguments.threads)
    model = load_segmenter(library.resolve("nuclei"))
    rows = []
    for seed in arguments.seeds:
        for wrong in arguments.wrong:
            rng = np.random.default_rng(seed)
            mosaic, rest = mosaic_of(arguments.monuseg, rng, stain=0)
            images = corrected_images(arguments.monuseg, rest, WINDOWS, stain=0)
            kinds = [KINDS[index % len(KINDS)] if index < wrong else None for index in range(WINDOWS)]
            places = [
                read_place(outline(stem, image, rng, kind), model, compute=compute)
                for (stem, image), kind in zip(images.items(), kinds, strict=True)
            ]
            start = mosaic_dice(model, mosaic, compute)
            print(f"seed {seed}, {wrong} wrong: starts at {start:.3f}", flush=True)
            for name, choice in CHOICES.items():
                after = trained(model, places, choice, arguments.steps, compute)
                scores = {
                    step: [mosaic_dice(m, mosaic, compute) for m in (new, blended(model, new, 0.5))]
                    for step, new in after.items()
                }
                rows.append({"seed": seed, "wrong": wrong, "choice": name, "start": start, "dice": scores})
                text = "  ".join(f"{step}: {a:.3f} / {b:.3f}" for step, (a, b) in scores.items())
                print(f"{name:60s} {text}", flush=True)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
