"""Find the measure of a model's uncertainty that tells best where it is wrong.

Held-out images are segmented and cut into windows of 64 model pixels. A measure is good when it ranks the
windows as their share of wrong pixels does (Spearman's correlation, over all windows and within each image).
Models: the bundled nuclei segmenter on MoNuSeg, and fine-tunes of the pretext on 1 (MoNuSeg) or 3 images
(GlaS), one a seed. Measures:

- ``1 - p``: one minus the probability of the predicted class; ``(store)``: in the steps in which it is kept
- ``entropy``: of the probabilities; with time steps or flips behind it: of their mean over those passes
- ``spread``: mutual information between the class and the pass (BALD): what the passes disagree about

    python benchmarks/uncertainty.py DATA --json docs/benchmarks/uncertainty.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from label_efficiency import Task, chosen, examples, tasks
from napari_genselfdiff.compute import choose_compute
from napari_genselfdiff.diffusion import stain
from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.diffusion.pretraining import load_pretext
from napari_genselfdiff.events import Finished
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.finetuning.loop import FineTuneSettings, fine_tune
from napari_genselfdiff.models.library import resolve
from napari_genselfdiff.segmentation.network import Segmenter, SegmenterSpec, build_segmenter, load_segmenter
from napari_genselfdiff.segmentation.store import STEP

WINDOW = 64
TIMES = (0, 50, 100, 150, 250)
PASSES: dict[str, tuple[Any, ...]] = {
    "t 50, 100": (50, 100),
    "t 0, 50, 100": (0, 50, 100),
    "t 50, 150": (50, 150),
    "t 50, 250": (50, 250),
    "t 0 to 250": TIMES,
    "1 flip": (50, "x"),
    "2 flips": (50, "x", "y"),
    "2 flips and a turn": (50, "x", "y", "turn"),
    "stain": (50, "stain"),
    "2 flips and stain": (50, "x", "y", "stain"),
}
LABELLED = {"nuclei": 1, "glands": 3}
STEPS = {"nuclei": 60, "glands": 100}


def models(task: Task, seeds: int) -> dict[str, Segmenter]:
    """The models whose errors are to be found."""
    found = {"bundled": load_segmenter(resolve("nuclei"))} if task.name == "nuclei" else {}
    for seed in range(seeds):
        network, _ = load_pretext(resolve("pretext"))
        spec = SegmenterSpec(network.config, ("background", "object"), task.mpp, instances=True)
        *_, last = fine_tune(
            build_segmenter(spec, start=network.state_dict(), seed=seed),
            examples(task, chosen(task, LABELLED[task.name], seed)),
            [],
            compute=choose_compute("cpu"),
            settings=FineTuneSettings(seed=seed),
            steps=STEPS[task.name],
            score_before=False,
        )
        assert isinstance(last, Finished)
        found[f"fine-tuned, seed {seed}"] = last.result.segmenter.eval()
    return found


@torch.inference_mode()
def passes(model: Segmenter, x: Tensor) -> dict[Any, Tensor]:
    """Probability of the foreground at several time steps, and of changed inputs at the task's own."""

    def foreground(images: Tensor, time: int = 50) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        logits: Tensor = model.unet(images, torch.tensor([time]))[:, :2].float()
        return logits.softmax(dim=1)[:, 1:]

    generator = torch.Generator().manual_seed(0)
    found: dict[Any, Tensor] = {time: foreground(x, time) for time in TIMES}
    for name, axis in (("x", 3), ("y", 2)):
        found[name] = foreground(x.flip(axis)).flip(axis)
    found["turn"] = torch.rot90(foreground(torch.rot90(x, 1, (2, 3))), -1, (2, 3))
    found["stain"] = foreground(stain.jitter(x, generator, strength=0.15, shift=0.03))
    return {name: probability[0, 0] for name, probability in found.items()}


def entropy(p: Tensor) -> Tensor:
    """Of two classes, in nats."""
    return -(p * p.clamp(1e-6).log() + (1 - p) * (1 - p).clamp(1e-6).log())


def measures(seen: dict[Any, Tensor]) -> dict[str, Tensor]:
    """Every measure, pixel by pixel."""
    p = torch.maximum(seen[50], 1 - seen[50])
    kept = ((p * 255).round() / STEP).floor() * STEP / 255
    found = {"1 - p": 1 - p, "1 - p (store)": 1 - kept, "entropy": entropy(seen[50])}
    for name, keys in PASSES.items():
        stack = torch.stack([seen[key] for key in keys])
        found[f"entropy, {name}"] = entropy(stack.mean(dim=0))
        found[f"spread, {name}"] = entropy(stack.mean(dim=0)) - entropy(stack).mean(dim=0)
    return found


def one_image(model: Segmenter, example: Example) -> dict[str, NDArray[np.float32]]:
    """Mean of each measure, and share of wrong pixels, of the windows of one image."""
    height, width = (side // 16 * 16 for side in example.labels.shape)
    seen = passes(model, to_unit_range(example.rgb[None, :height, :width]))
    wrong = (seen[50] > 0.5).numpy() != (example.labels[:height, :width] > 0)
    planes = measures(seen) | {"error": torch.from_numpy(wrong).float()}
    return {name: F.avg_pool2d(plane[None, None], WINDOW).numpy().ravel() for name, plane in planes.items()}


def rank_correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Spearman's."""
    result: Any = spearmanr(a, b)
    return float(result[0])


def correlations(images: list[dict[str, NDArray[np.float32]]]) -> dict[str, list[float]]:
    """Over all windows, and the mean over images of that within each."""
    found = {}
    for name in images[0]:
        if name != "error":
            pairs = [(image[name], image["error"]) for image in images]
            pooled = rank_correlation(*(np.concatenate(part) for part in zip(*pairs, strict=True)))
            within = np.nanmean([rank_correlation(*pair) for pair in pairs])
            found[name] = [round(pooled, 3), round(float(within), 3)]
    return found


def main() -> None:
    """Measure and print, the best first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result: dict[str, dict[str, dict[str, list[float]]]] = {}
    for task in tasks(arguments.data).values():
        test = examples(task, task.test)[:: 2 if task.name == "glands" else 1]
        result[task.name] = {
            name: correlations([one_image(model, example) for example in test])
            for name, model in models(task, arguments.seeds).items()
        }
        means = {
            name: np.mean([of_model[name] for of_model in result[task.name].values()], axis=0)
            for name in next(iter(result[task.name].values()))
        }
        for name, (pooled, within) in sorted(means.items(), key=lambda item: -item[1].sum()):
            print(f"{task.name:8} {name:28} {pooled:.3f} {within:.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
