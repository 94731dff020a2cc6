"""What is far from the bundled pretext: its calibration, and what it says of other data.

    python benchmarks/domain.py calibrate DATA
    python benchmarks/domain.py measure DATA --json docs/benchmarks/domain.json

``calibrate`` writes ``pretext.denoising.json`` beside the bundled weights: the denoising error on NuInsSeg's
training part, one tile of each image as it is and one with its white balance put right, which is what the
pretext learned from. ``measure`` compares with it the held-out part, other sets, the slides, and synthetic
changes of stain. Every image counts as a slide of its own where a set has many.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from napari_genselfdiff.compute import choose_compute
from napari_genselfdiff.diffusion import stain
from napari_genselfdiff.diffusion.denoising import Calibration, denoising_errors
from napari_genselfdiff.diffusion.domain import FAR, SIDECAR, USUAL_MPP, calibration_of, settings_of
from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.diffusion.pretraining import load_pretext
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.images import read_rgb
from napari_genselfdiff.models.library import resolve
from napari_genselfdiff.slides import Slide, open_slide, slide_from_arrays
from napari_genselfdiff.slides.tiles import sample_tiles
from split_nuinsseg import held_out, white_balanced

PIXELS = NDArray[np.uint8]
IMAGE_MPP = 0.25
GLAS_MPP = 0.62
TILES_OF_A_SLIDE, TILES_OF_AN_IMAGE = 32, 4
SIDE = 128


def tiles_of(slide: Slide, count: int) -> list[PIXELS]:
    """Random tiles of tissue at the usual resolution."""
    sample = sample_tiles([slide], mpp=USUAL_MPP, side=SIDE, count=count)
    return [sample.read([slide], tile) for tile in sample.training]


def random_tile(rgb: PIXELS, seed: int) -> PIXELS:
    """One tile of a NuInsSeg image, anywhere."""
    small = np.asarray(Image.fromarray(rgb).reduce(round(USUAL_MPP / IMAGE_MPP)))
    y, x = (int(v) for v in np.random.default_rng(seed).integers(np.array(small.shape[:2]) - SIDE + 1))
    return small[y : y + SIDE, x : x + SIDE]


def restained(
    tiles: list[PIXELS], factors: tuple[float, float, float], *, brown: bool = False
) -> list[PIXELS]:
    """Tiles with other amounts of haematoxylin, eosin and the rest; with DAB's colour in place of eosin's."""
    density = stain.densities(to_unit_range(np.stack(tiles))) * torch.tensor(factors).view(1, 3, 1, 1)
    colours = stain.STAINS.copy()
    if brown:
        colours[1] = colours[2]
    mixed = torch.einsum("nchw,cd->ndhw", density, torch.from_numpy(colours))
    rgb = (torch.exp(-mixed) * 256 - 1).clamp(0, 255)
    return list(rgb.permute(0, 2, 3, 1).numpy().astype(np.uint8))


def nuinsseg(data: Path) -> Iterator[tuple[int, PIXELS, bool]]:
    """Images of NuInsSeg, and whether they are held out."""
    for index, path in enumerate(sorted((data / "nuinsseg" / "images").glob("*.jpg"))):
        yield index, read_rgb(path), held_out(index)


def calibrate(data: Path, weights: Path) -> Calibration:
    """Errors on what the bundled pretext was trained on."""
    tiles = []
    for index, rgb, apart in nuinsseg(data):
        if not apart:
            tiles += [random_tile(rgb, index), random_tile(white_balanced(rgb), index)]
    network, card = load_pretext(weights)
    found = denoising_errors(
        network, settings_of(card, weights), to_unit_range(np.stack(tiles)), choose_compute("cpu")
    )
    return Calibration.of(found, mpp=USUAL_MPP)


def material(data: Path) -> Iterator[tuple[str, list[list[PIXELS]]]]:
    """Name of a set, and the tiles of each of its images or slides."""
    apart = [(index, rgb) for index, rgb, out in nuinsseg(data) if out][::3]
    four = range(TILES_OF_AN_IMAGE)
    yield "NuInsSeg held out, as it is", [[random_tile(rgb, i * 10 + k) for k in four] for i, rgb in apart]
    yield (
        "NuInsSeg held out, white-balanced",
        [[random_tile(white_balanced(rgb), i * 10 + k) for k in four] for i, rgb in apart],
    )
    monuseg = sorted((data / "monuseg").rglob("*.tif"))
    images = [slide_from_arrays([read_rgb(p)], name=p.stem, mpp=IMAGE_MPP) for p in monuseg]
    nuclei = [tiles_of(slide, TILES_OF_AN_IMAGE) for slide in images]
    yield "MoNuSeg", nuclei
    glas = sorted(path for path in (data / "glas").glob("*.bmp") if "anno" not in path.name)[::3]
    images = [slide_from_arrays([read_rgb(p)], name=p.stem, mpp=GLAS_MPP) for p in glas]
    yield "GlaS", [tiles_of(slide, TILES_OF_AN_IMAGE) for slide in images]
    for path in sorted((data / "slides").iterdir()):
        try:
            slide = open_slide(path)
            slide = slide if slide.mpp else slide.with_mpp(IMAGE_MPP)
            yield path.name, [tiles_of(slide, TILES_OF_A_SLIDE)]
        except UserError as error:
            print(path.name, "is left out:", error)
    from skimage.data import immunohistochemistry

    brown = slide_from_arrays([immunohistochemistry()], name="IHC", mpp=USUAL_MPP)
    yield "immunohistochemistry (scikit-image)", [tiles_of(brown, TILES_OF_A_SLIDE)]
    plain = [tile for tiles in nuclei[::2] for tile in tiles]
    grey = [np.repeat(t.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8) for t in plain]
    yield "MoNuSeg, all tiles", [plain]
    yield "- haematoxylin x 1.6", [restained(plain, (1.6, 1, 1))]
    yield "- haematoxylin x 0.5", [restained(plain, (0.5, 1, 1))]
    yield "- eosin x 2", [restained(plain, (1, 2, 1))]
    yield "- no eosin", [restained(plain, (1, 0, 1))]
    yield "- brown (DAB) for eosin", [restained(plain, (1, 1, 1), brown=True)]
    yield "- grey", [grey]
    yield "- colours swapped", [[tile[..., [1, 2, 0]] for tile in plain]]
    yield "- inverted", [[255 - tile for tile in plain]]


def measure(data: Path, weights: Path) -> list[dict[str, Any]]:
    """Error and percentile of every set."""
    network, card = load_pretext(weights)
    settings, calibration = settings_of(card, weights), calibration_of(card, weights)
    rows = []
    for name, slides in material(data):
        errors, percentiles = [], []
        for tiles in slides:
            patches = [t for t in tiles if t.shape[:2] == (SIDE, SIDE)]
            if patches:
                found = denoising_errors(
                    network, settings, to_unit_range(np.stack(patches)), choose_compute("cpu")
                )
                errors.append(float(np.median(found)))
                percentiles.append(calibration.percentile(errors[-1]))
        if not errors:
            continue
        low, middle, high = np.percentile(percentiles, [10, 50, 90])
        row = {
            "data": name,
            "slides": len(errors),
            "error": round(float(np.median(errors)), 4),
            "percentile": round(float(middle)),
            "percentile 10-90 %": [round(float(low)), round(float(high))],
            "far": round(float(np.mean(np.array(percentiles) >= FAR)), 2),
        }
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    """Calibrate or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("calibrate", "measure"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, default=resolve("pretext"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "calibrate":
        path = arguments.weights.with_suffix(SIDECAR)
        values = calibrate(arguments.data, arguments.weights).to_dict()
        path.write_text(json.dumps(values) + "\n")
        print(path, values["tiles"], "tiles")
        return
    rows = measure(arguments.data, arguments.weights)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
