"""Lay out NuInsSeg's training and held-out parts as folders of links.

Its files are numbered without organ or slide, so neighbours in number may be neighbours on a slide: the set
is cut into 35 contiguous blocks of 19 images, and every fifth block is held out (133 of 665 images). The
pretext and the segmenter are trained on the other 532. Its images are darker than those of
most scanners: their brightest hundredth lets half of the light through, and less of the green. So the
training part is written with its white balance put right as well (``train/balanced``).

    python benchmarks/split_nuinsseg.py DATA/nuinsseg runs/nuinsseg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BLOCK = 19
EVERY = 5
MOST_GLASS = 0.5
"""Optical density that the brightest spot of an image may have and still be taken for glass."""
SHARE = 0.85
"""How much of it is taken away: the brightest hundredth of dense tissue is not quite glass."""


def held_out(index: int) -> bool:
    """Whether the image at this position of the sorted list is held out."""
    return (index // BLOCK) % EVERY == EVERY - 1


def white_balanced(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image as if its brightest hundredth were nearly white, in each channel."""
    density = -np.log((rgb.astype(np.float32) + 1) / 256)
    glass = SHARE * np.minimum(np.percentile(density, 1, axis=(0, 1)), MOST_GLASS)
    light = np.exp(-np.maximum(density - glass, 0)) * 256 - 1
    balanced: NDArray[np.uint8] = light.round().clip(0, 255).astype(np.uint8)
    return balanced


def main() -> None:
    """Make ``train`` and ``held-out``, each with ``images`` and ``masks``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    for kind, pattern in (("images", "*.jpg"), ("masks", "*.png")):
        for index, path in enumerate(sorted((arguments.source / kind).glob(pattern))):
            folder = arguments.target / ("held-out" if held_out(index) else "train") / kind
            folder.mkdir(parents=True, exist_ok=True)
            link = folder / path.name
            if not link.exists():
                link.symlink_to(path.resolve())
    balanced = arguments.target / "train" / "balanced"
    balanced.mkdir(exist_ok=True)
    for path in sorted((arguments.target / "train" / "images").iterdir()):
        result = balanced / f"{path.stem}.png"
        if not result.exists():
            Image.fromarray(white_balanced(np.asarray(Image.open(path).convert("RGB")))).save(result)
    for part in ("train", "held-out"):
        print(part, len(list((arguments.target / part / "images").iterdir())), "images")


if __name__ == "__main__":
    main()
