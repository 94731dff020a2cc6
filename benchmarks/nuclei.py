"""Train the nuclei segmenter that is shipped, from the pretext that is shipped, on NuInsSeg's training part.

    python benchmarks/split_nuinsseg.py DATA/nuinsseg runs/nuinsseg
    python benchmarks/nuclei.py runs/nuinsseg/train --output runs/nuclei.safetensors

Measured in pixels, the nuclei of NuInsSeg are 1.7 times as wide as those of slides at the same magnification,
its images are darker, and too blurred to show chromatin. A segmenter that is trained on them as they are does
not find the nuclei of slides. So it is trained on images whose white balance is right, at several sizes, and
once as they are, with chromatin painted in.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from napari_genselfdiff.compute import choose_compute
from napari_genselfdiff.diffusion.pretraining import load_pretext
from napari_genselfdiff.events import Finished, LossPoint
from napari_genselfdiff.exchange.pairs import find_pairs, load_pair
from napari_genselfdiff.finetuning.augmentation import Appearance
from napari_genselfdiff.finetuning.datasets import object_areas, to_example
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.finetuning.loop import FineTuneResult, FineTuneSettings, fine_tune
from napari_genselfdiff.models.library import resolve
from napari_genselfdiff.segmentation.network import SegmenterSpec, build_segmenter, save_segmenter

MPP = 0.5
AS_THEY_ARE = 2.0
"""Pixels of an image a pixel of the model, if the images' 0.25 um/px is right."""
BALANCED = (1.4, 2.0, 2.8, 4.0)
"""The same, for nuclei as wide as small and large ones on slides."""
AS_ON_SLIDES = 3.4
"""The same, for the size that nuclei usually have on slides: it decides how they are told apart."""
APPEARANCE = Appearance(texture=0.6)


def examples(folder: Path) -> tuple[list[Example], float]:
    """All images at all sizes, and the median area of nuclei on slides."""
    result, areas = [], []
    for kind, scales in (("images", (AS_THEY_ARE,)), ("balanced", BALANCED)):
        for pair in find_pairs(folder / kind, folder / "masks"):
            image = load_pair(pair, instances=True)
            result += [to_example(image, scale=scale, instances=True) for scale in scales]
            areas.append(object_areas(image, scale=AS_ON_SLIDES))
    return result, float(np.median(np.concatenate(areas)))


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pretext", default="pretext")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    network, card = load_pretext(resolve(arguments.pretext))
    data, area = examples(arguments.folder)
    spec = SegmenterSpec(network.config, ("background", "nucleus"), MPP, instances=True, object_area=area)
    for event in fine_tune(
        build_segmenter(spec, start=network.state_dict()),
        data,
        [],
        compute=choose_compute("cpu"),
        settings=FineTuneSettings(appearance=APPEARANCE),
        score_before=False,
        steps=arguments.steps,
    ):
        if isinstance(event, LossPoint) and event.step % 250 == 0:
            print(event.step, round(event.loss, 3), round(event.seconds), "s", flush=True)
        elif isinstance(event, Finished):
            assert isinstance(event.result, FineTuneResult)
            save_segmenter(
                event.result.segmenter,
                arguments.output,
                steps=event.result.steps,
                seconds=round(event.result.seconds, 1),
                parent_name=card.get("name"),
                command=f"python benchmarks/nuclei.py {arguments.folder} --steps {arguments.steps}",
            )


if __name__ == "__main__":
    main()
