r"""How a round of the circle should be trained, by how much was corrected.

On some MoNuSeg images the bundled nuclei model is corrected in one nucleus, in three (those it gets most
wrong), or in a window of 128 x 128 model pixels, and a few steps of training follow. Dice is compared with
that of the model before on the rest of the same image (what the user wants) and on other images (what must
not be forgotten). One line a choice; every choice differs from the first in one thing.

    python benchmarks/circle.py DATA/monuseg --json docs/benchmarks/circle.json
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from gate import PIECE, SIDE, load
from napari_genselfdiff.compute import Compute, choose_compute
from napari_genselfdiff.finetuning import sampling
from napari_genselfdiff.finetuning.corrections import Place
from napari_genselfdiff.finetuning.sampling import CorrectionSampler
from napari_genselfdiff.finetuning.scoring import predict_image
from napari_genselfdiff.finetuning.trainer import FineTuneSettings, Trainer
from napari_genselfdiff.finetuning.training import blended, learning_rate
from napari_genselfdiff.models import library
from napari_genselfdiff.segmentation.instances import core_target
from napari_genselfdiff.segmentation.network import Segmenter, load_segmenter

AMOUNTS = ("one nucleus", "three nuclei", "a window")
BASE = FineTuneSettings(learning_rate=1e-4, fixed_statistics=True, batch=4)
ENCODER = ("stem", "down", "shrink", "time")
CHOICES: dict[str, tuple[FineTuneSettings, dict[str, float]]] = {
    "as it is, 1e-4": (BASE, {}),
    "3e-4": (replace(BASE, learning_rate=3e-4), {}),
    "1e-3": (replace(BASE, learning_rate=1e-3), {}),
    "encoder frozen": (replace(BASE, frozen=ENCODER), {}),
    "pulled back (L2-SP, 100)": (replace(BASE, pull=100.0), {}),
    "half the way (WiSE-FT)": (BASE, {"share": 0.5}),
    "drawn by the root of its size": (BASE, {"size": 0.5}),
    "no self-supervision": (BASE, {"own": 0.0}),
}


def dice(said: NDArray[np.uint8], truth: NDArray[np.bool_], where: NDArray[np.bool_]) -> float:
    """Of the foreground, where it counts."""
    a, b = (said > 0) & where, truth & where
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


def corrected(ids: NDArray[Any], wrong: NDArray[np.bool_], amount: str) -> NDArray[np.bool_]:
    """Pixels that are corrected."""
    drawn = np.zeros(ids.shape, bool)
    if amount == "a window":
        drawn[128:256, 128:256] = True
        return drawn
    inner = ids[40:-40, 40:-40]
    numbers = np.unique(inner[inner > 0])
    errors = ndimage.sum_labels(wrong, ids, numbers)
    for number in numbers[np.argsort(errors)[::-1][: 1 if amount == "one nucleus" else 3]]:
        drawn |= ndimage.binary_dilation(ids == number, iterations=2)
    return drawn


def trained(
    start: Segmenter,
    place: Place,
    settings: FineTuneSettings,
    how: dict[str, float],
    steps: int,
    compute: Compute,
) -> Segmenter:
    """Train on one place."""
    sampling.SIZE = how.get("size", 0.75)
    example = place.example()
    if "own" in how:
        example = example.weighted(place.drawn)
    trainer = Trainer(start, compute, settings)
    sampler = CorrectionSampler([example], size=settings.patch, seed=settings.seed)
    for step in range(steps):
        loss = trainer.train_step(sampler.batch(step, settings.batch), learning_rate(step))
        if loss is not None:
            sampler.tell(loss.patches)
    return blended(start, trainer.average, how.get("share", 1.0))


def main() -> None:
    """Run every choice on every image and amount."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("monuseg", type=Path)
    parser.add_argument("--images", type=int, nargs="*", default=[1, 8, 15])
    parser.add_argument("--amounts", nargs="*", default=AMOUNTS, choices=AMOUNTS)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    compute = choose_compute("cpu", threads=arguments.threads)
    start = load_segmenter(library.resolve("nuclei"))
    stems = sorted(path.stem for path in (arguments.monuseg / "instances").glob("*.png"))
    others = [load(arguments.monuseg, stems[index], stain=0) for index in (20, 22, 25, 28)]
    mosaic = [np.concatenate([other[part][:PIECE, :PIECE] for other in others], axis=1) for part in (0, 1)]
    everywhere = np.ones(mosaic[1].shape, bool)

    def other_dice(model: Segmenter) -> float:
        return dice(predict_image(model, mosaic[0], compute, margin=32).labels, mosaic[1] > 0, everywhere)

    base = other_dice(start)
    rows = []
    for amount in arguments.amounts:
        for name, (settings, how) in CHOICES.items():
            began = time.perf_counter()
            for index in arguments.images:
                stem = stems[index]
                rgb, truth = load(arguments.monuseg, stem, stain=0)
                path = arguments.monuseg / "instances" / f"{stem}.png"
                ids = np.asarray(Image.open(path).resize((SIDE, SIDE), Image.Resampling.NEAREST)).astype(int)
                said = predict_image(start, rgb, compute, margin=32)
                drawn = corrected(ids, (said.labels > 0) != truth, amount)
                core = core_target(np.where(drawn, ids, 0))
                core[~drawn] = -1
                place = Place(
                    stem,
                    (0, 0),
                    rgb,
                    drawn,
                    np.where(drawn, truth, said.labels).astype(np.uint8),
                    said.labels,
                    np.where(drawn, 0, said.confidence / 127.5 - 1).clip(min=0).astype(np.float32),
                    core,
                    np.zeros(drawn.shape, bool),
                )
                model = trained(start, place, settings, how, arguments.steps, compute)
                after = predict_image(model, rgb, compute, margin=32).labels
                rows.append(
                    {
                        "amount": amount,
                        "choice": name,
                        "image": stem,
                        "rest": dice(after, truth, ~drawn) - dice(said.labels, truth, ~drawn),
                        "drawn": dice(after, truth, drawn) - dice(said.labels, truth, drawn),
                        "others": other_dice(model) - base,
                    }
                )
            mine = rows[-len(arguments.images) :]
            means = {k: float(np.mean([row[k] for row in mine])) for k in ("drawn", "rest", "others")}
            text = "  ".join(f"{key} {value:+.3f}" for key, value in means.items())
            print(f"{amount:13s} {name:32s} {text}  {time.perf_counter() - began:.0f} s", flush=True)
            if arguments.json:
                options = {"steps": arguments.steps, "images": arguments.images, "start on others": base}
                text = json.dumps({"options": options, "rows": rows}, indent=1)
                arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
