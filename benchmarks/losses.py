"""Compare the losses of the fine-tune at equal steps, from the bundled pretext, on held-out NuInsSeg images.

    python benchmarks/losses.py runs/nuinsseg --json docs/benchmarks/losses.json

``runs/nuinsseg`` is laid out by ``split_nuinsseg.py``. A quick comparison: every fourth training image, every
eighth held-out one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from napari_genselfdiff.compute import choose_compute
from napari_genselfdiff.diffusion.pretraining import load_pretext
from napari_genselfdiff.events import Finished
from napari_genselfdiff.exchange.pairs import find_pairs, load_pair
from napari_genselfdiff.finetuning.datasets import to_example
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.finetuning.loop import FineTuneResult, FineTuneSettings, fine_tune
from napari_genselfdiff.models.library import DEFAULT_PRETEXT, resolve
from napari_genselfdiff.segmentation.losses import LOSSES
from napari_genselfdiff.segmentation.network import SegmenterSpec, build_segmenter

SCALE = 2.0
"""Image pixels a model pixel: NuInsSeg at 0.5 um/px."""


def examples(folder: Path, every: int) -> list[Example]:
    """Every n-th image of a part of the split, at the model's resolution."""
    pairs = find_pairs(folder / "images", folder / "masks")[::every]
    return [to_example(load_pair(pair, instances=True), scale=SCALE, instances=True) for pair in pairs]


def main() -> None:
    """Train with each loss and seed, and print Dice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("split", type=Path)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    LOSSES["paper + dice"] = LOSSES["paper"] + LOSSES["dice"]
    training, held_out = examples(arguments.split / "train", 4), examples(arguments.split / "held-out", 8)
    pretext, _ = load_pretext(resolve(DEFAULT_PRETEXT))
    spec = SegmenterSpec(pretext.config, ("background", "nucleus"), mpp=0.5, instances=True)
    rows = []
    for seed in range(arguments.seeds):
        for loss in LOSSES:
            *_, last = fine_tune(
                build_segmenter(spec, start=pretext.state_dict(), seed=seed),
                training,
                held_out,
                compute=choose_compute("cpu"),
                settings=FineTuneSettings(loss=loss, seed=seed),
                steps=arguments.steps,
                score_before=False,
            )
            assert isinstance(last, Finished)
            assert isinstance(last.result, FineTuneResult)
            rows.append({"loss": loss, "seed": seed, "steps": arguments.steps, "dice": last.result.after})
            print(json.dumps(rows[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
