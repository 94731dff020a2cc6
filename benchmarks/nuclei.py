"""Train the nuclei segmenter that is shipped, from the pretext that is shipped, on NuInsSeg's training part.

    python benchmarks/split_nuinsseg.py DATA/nuinsseg runs/nuinsseg
    python benchmarks/nuclei.py runs/nuinsseg/train --output runs/nuclei.safetensors

Measured in pixels, the nuclei of NuInsSeg are 1.7 times as wide as those of slides at the same magnification,
its images are darker, and too blurred to show chromatin. A segmenter that is trained on them as they are does
not find the nuclei of slides. So it is trained on images whose white balance is right, at several sizes, and
once as they are. It is trained twice, shortly on the images as they look and for longer with chromatin
painted in, and the weights of the two are averaged (Wortsman et al., ICML 2022): one misses pale nuclei, the
other takes stroma for nuclei, and their mean does better than either on slides of other scanners.

Slides are shown to it finer than the training images: their nuclei then have the sizes in the middle of those
that it learned, and come apart (``docs/benchmarks/pretext-log.md``, "Shown finer").
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from napari_genselfdiff.compute import choose_compute
from napari_genselfdiff.diffusion.pretraining import load_pretext
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.events import Finished, LossPoint
from napari_genselfdiff.exchange.pairs import find_pairs, load_pair
from napari_genselfdiff.finetuning.augmentation import Appearance
from napari_genselfdiff.finetuning.datasets import object_areas, to_example
from napari_genselfdiff.finetuning.examples import Example, PatchSampler
from napari_genselfdiff.finetuning.loop import FineTuneResult, FineTuneSettings, fine_tune
from napari_genselfdiff.models.library import resolve
from napari_genselfdiff.segmentation.network import (
    Segmenter,
    SegmenterSpec,
    build_segmenter,
    copy_segmenter,
    load_segmenter,
    save_segmenter,
)

MPP = 0.5
"""Micrometres per pixel at which it is trained, if the images' 0.25 is right."""
SHOWN_MPP = 0.35
"""Micrometres per pixel at which slides are shown to the result."""
AS_THEY_ARE = 2.0
"""Pixels of an image a pixel of the model in training."""
AS_ON_SLIDES = 3.4
"""The same, for the size that nuclei usually have on slides: it decides how they are told apart."""
BATCHES = 80
"""Batches that the averaged network's statistics of batch normalisation are measured on."""


@dataclass(frozen=True)
class Recipe:
    """One of the trainings: pixels of a white-balanced image a model pixel, how looks vary, how long."""

    sizes: tuple[float, ...]
    appearance: Appearance
    steps: int


RECIPES = {
    "plain": Recipe((2.6, 3.2, 4.0), Appearance(), 1200),
    "chromatin": Recipe((1.4, 2.0, 2.8, 4.0), Appearance(texture=0.6), 7000),
}


def examples(folder: Path, sizes: tuple[float, ...]) -> tuple[list[Example], float]:
    """All images at all sizes, and the median area of nuclei on slides."""
    result, areas = [], []
    for kind, scales in (("images", (AS_THEY_ARE,)), ("balanced", sizes)):
        for pair in find_pairs(folder / kind, folder / "masks"):
            image = load_pair(pair, instances=True)
            result += [to_example(image, scale=scale, instances=True) for scale in scales]
            areas.append(object_areas(image, scale=AS_ON_SLIDES))
    return result, float(np.median(np.concatenate(areas)))


def trained(recipe: Recipe, pretext: UNet, data: list[Example], area: float) -> Segmenter:
    """Fine-tune the pretext."""
    spec = SegmenterSpec(pretext.config, ("background", "nucleus"), MPP, instances=True, object_area=area)
    for event in fine_tune(
        build_segmenter(spec, start=pretext.state_dict()),
        data,
        [],
        compute=choose_compute("cpu"),
        settings=FineTuneSettings(appearance=recipe.appearance, core_weight=1.0),
        score_before=False,
        steps=recipe.steps,
    ):
        if isinstance(event, LossPoint) and event.step % 250 == 0:
            print(event.step, round(event.loss, 3), round(event.seconds), "s", flush=True)
        elif isinstance(event, Finished):
            last = event.result
    assert isinstance(last, FineTuneResult)
    return last.segmenter


@torch.no_grad()
def averaged(segmenters: list[Segmenter], data: list[Example], appearance: Appearance) -> Segmenter:
    """The mean of the weights, with the statistics of its own features."""
    result = copy_segmenter(segmenters[0])
    states = [segmenter.state_dict() for segmenter in segmenters]
    result.load_state_dict(
        {
            key: torch.stack([state[key].float() for state in states]).mean(0).to(value.dtype)
            for key, value in states[0].items()
        }
    )
    for module in result.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over all that it sees
    sampler = PatchSampler(data, size=128, seed=7, appearance=appearance)
    result.train()
    for step in range(BATCHES):
        result(sampler.batch(step, 8).images)
    return result.eval()


def main() -> None:
    """Train what is not there yet, average and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pretext", default="pretext")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    pretext, card = load_pretext(resolve(arguments.pretext))
    segmenters = []
    for name, recipe in RECIPES.items():
        data, area = examples(arguments.folder, recipe.sizes)
        path = arguments.output.with_name(f"{arguments.output.stem}-{name}{arguments.output.suffix}")
        if not path.exists():
            save_segmenter(trained(recipe, pretext, data, area), path)
        segmenters.append(load_segmenter(path))
    segmenters[0].spec = replace(
        segmenters[-1].spec, mpp=SHOWN_MPP, object_area=area * (MPP / SHOWN_MPP) ** 2
    )
    save_segmenter(
        averaged(segmenters, data, recipe.appearance),
        arguments.output,
        steps=[recipe.steps for recipe in RECIPES.values()],
        parent_name=card.get("name"),
        command=f"python benchmarks/nuclei.py {arguments.folder}",
    )


if __name__ == "__main__":
    main()
