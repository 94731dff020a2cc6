"""Lay out NuInsSeg's training and held-out parts as folders of links.

Its files are numbered without organ or slide, so neighbours in number may be neighbours on a slide: the set
is cut into 35 contiguous blocks of 19 images, and every fifth block is held out (133 of 665 images). The
pretext and the segmenter are trained on the other 532.

    python benchmarks/split_nuinsseg.py DATA/nuinsseg runs/nuinsseg
"""

from __future__ import annotations

import argparse
from pathlib import Path

BLOCK = 19
EVERY = 5


def held_out(index: int) -> bool:
    """Whether the image at this position of the sorted list is held out."""
    return (index // BLOCK) % EVERY == EVERY - 1


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
    for part in ("train", "held-out"):
        print(part, len(list((arguments.target / part / "images").iterdir())), "images")


if __name__ == "__main__":
    main()
