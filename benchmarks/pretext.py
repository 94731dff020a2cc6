"""Train the pretext that is shipped, on NuInsSeg's training part, without its labels.

    python benchmarks/split_nuinsseg.py DATA/nuinsseg runs/nuinsseg
    python benchmarks/pretext.py runs/nuinsseg/train --output runs/pretext.safetensors

First on the images as they are, then, from those weights, on the images with their white balance put right
and with more stain jitter. Both resume from their checkpoints; about 80 minutes on one core.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from napari_genselfdiff.compute import choose_compute
from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.diffusion.pretraining import (
    SETTINGS,
    checkpoint_path,
    load_pretext,
    pretrain,
)
from napari_genselfdiff.events import LossPoint
from napari_genselfdiff.models.weights import read_card, read_weights, save_weights

BASE = SETTINGS["compact"]
PHASES = (
    ("images", BASE, 1166),
    ("balanced", replace(BASE, stain=0.4, zoom=(1.6, 4.0)), 3165),
)


def main() -> None:
    """Train the phases that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    start, gigapixels = None, 0.0
    for kind, settings, steps in PHASES:
        path = arguments.output.with_name(f"{arguments.output.stem}-{kind}{arguments.output.suffix}")
        if not path.exists() or read_card(path)["steps"] < steps:
            for event in pretrain(
                sorted((arguments.folder / kind).iterdir()),
                path,
                config=COMPACT,
                compute=choose_compute("cpu"),
                settings=settings,
                steps=steps,
                resume=checkpoint_path(path).exists(),
                start=start,
            ):
                if isinstance(event, LossPoint) and event.step % 100 == 0:
                    print(kind, event.step, round(event.loss, 4), round(event.seconds), "s", flush=True)
        start = load_pretext(path)[0].state_dict()
        gigapixels += steps * settings.batch * settings.patch**2 / 1e9
    tensors, card = read_weights(path)
    card |= {
        "gigapixels": round(gigapixels, 2),
        "history": "first on the images as they are, then on white-balanced ones (the settings here)",
        "command": f"python benchmarks/pretext.py {arguments.folder} --output {arguments.output}",
    }
    save_weights(arguments.output, tensors, card, half=True)


if __name__ == "__main__":
    main()
