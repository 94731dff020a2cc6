"""How visible seams are: tiled against untiled probabilities of the bundled nuclei model, by margin.

python benchmarks/seams.py DATA/monuseg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_genselfdiff.compute import choose_compute
from napari_genselfdiff.events import Finished
from napari_genselfdiff.models.library import DEFAULT_SEGMENTER, resolve
from napari_genselfdiff.segmentation import inference
from napari_genselfdiff.segmentation.network import Segmenter, load_segmenter

SIDE = 500
"""A MoNuSeg image at 0.5 um/px."""
UNTILED = 2048


def probabilities(segmenter: Segmenter, rgb: NDArray[np.uint8], window: int) -> NDArray[np.int16]:
    """Probabilities of the classes, 0 to 255, with windows of this size."""
    *_, last = inference.predict_region(
        segmenter,
        lambda y, x, height, width: rgb[y : y + height, x : x + width],
        (0, 0, SIDE, SIDE),
        bounds=(SIDE, SIDE),
        scale=1.0,
        compute=choose_compute("cpu"),
        window=window,
    )
    assert isinstance(last, Finished)
    result: NDArray[np.int16] = last.result.probabilities.astype(np.int16)
    return result


def main() -> None:
    """Print, for each margin, the largest difference and the share of pixels that differ at all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("monuseg", type=Path)
    arguments = parser.parse_args()
    segmenter = load_segmenter(resolve(DEFAULT_SEGMENTER))
    images = sorted(arguments.monuseg.glob("*/Tissue Images/*.tif"))[::7]
    shipped = inference.MARGIN
    for margin in (32, 48, 64, shipped, 96):
        inference.MARGIN = margin
        differences = []
        for path in images:
            picture = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            rgb = np.asarray(picture)
            tiled, untiled = probabilities(segmenter, rgb, 512), probabilities(segmenter, rgb, UNTILED)
            differences.append(np.abs(tiled - untiled))
        stacked = np.stack(differences)
        print(
            json.dumps(
                {
                    "margin": margin,
                    "shipped": margin == shipped,
                    "images": len(images),
                    "largest difference in 1/255": int(stacked.max()),
                    "share of values that differ": float((stacked > 0).mean()),
                }
            )
        )


if __name__ == "__main__":
    main()
