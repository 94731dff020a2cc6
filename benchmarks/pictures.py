r"""Pictures by which a person judges a pretext: what it draws, and what segmentations it leads to.

    python benchmarks/pictures.py WEIGHTS --images runs/nuinsseg/held-out/images --output docs/benchmarks
    python benchmarks/pictures.py WEIGHTS --images runs/nuinsseg/held-out/images --output docs/benchmarks \
        --labelled runs/nuinsseg/train --test runs/nuinsseg/held-out --seconds 60 --name nuinsseg

The first writes ``NAME-pretext.jpg``, the sheet of `diffusion.pictures`. With ``--labelled`` (a folder that
holds ``images`` and ``labels`` or ``masks``) it also fine-tunes the pretext's network on 1, 3 and 8 of the
images, from random weights and from the pretext's, each for ``--seconds`` (or ``--steps``, where other work
shares the cores), and writes ``NAME-segmentations.jpg``: held-out images, labels and both answers side by
side, with Dice. Without ``--test`` the held-out images are those of the same folder that
no model was trained on. Mind the licence of the tissue before a picture is published.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from napari_genselfdiff.compute import choose_compute
from napari_genselfdiff.diffusion.objectives import OUTPUTS
from napari_genselfdiff.diffusion.patches import PatchSource
from napari_genselfdiff.diffusion.pictures import COLUMNS, sample_sheet
from napari_genselfdiff.diffusion.pretraining import load_pretext
from napari_genselfdiff.events import Finished
from napari_genselfdiff.exchange.pairs import Pair, find_pairs, load_pair
from napari_genselfdiff.files import atomic_path
from napari_genselfdiff.finetuning.datasets import choose_resolution, to_example
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.finetuning.loop import FineTuneResult, FineTuneSettings, fine_tune
from napari_genselfdiff.finetuning.scoring import predict_image
from napari_genselfdiff.images import find_images
from napari_genselfdiff.models.library import resolve
from napari_genselfdiff.segmentation.metrics import class_scores
from napari_genselfdiff.segmentation.network import Segmenter, SegmenterSpec, build_segmenter

COUNTS = (1, 3, 8)
MOST_BYTES = 300_000
FOUND, MISSED, WRONG = (30, 220, 60), (255, 220, 0), (0, 160, 255)
"""Colours of pixels: found, labelled but not found, found but not labelled."""
CELL, CAPTION, GAP = 200, 18, 4


@dataclass(frozen=True)
class Answer:
    """A model and what it was trained on."""

    start: str
    count: int
    segmenter: Segmenter

    def mask(self, example: Example) -> NDArray[np.bool_]:
        """Foreground that it finds in an image."""
        labels = predict_image(self.segmenter, example.rgb, choose_compute("cpu")).labels
        foreground: NDArray[np.bool_] = labels > 0
        return foreground


def pretext_sheet(weights: Path, images: Path, seed: int) -> NDArray[np.uint8]:
    """The sheet of a weights file, at the patches that it was trained on, of other images."""
    network, card = load_pretext(weights)
    settings = card.get("settings", {})
    source = PatchSource(
        find_images([images]), settings.get("patch", 128), tuple(settings.get("zoom", (1.0, 1.0))), seed
    )
    return sample_sheet(
        network,
        source.batch(0, COLUMNS),
        schedule=settings.get("schedule", "quadratic"),
        prediction=OUTPUTS[settings.get("objective", "ddpm")],
        seed=seed,
    )


def labelled_pairs(folder: Path) -> list[Pair]:
    """Images and their labels, of a folder as ``finetune`` is given two."""
    labels = next((folder / name for name in ("labels", "masks") if (folder / name).is_dir()), folder)
    return find_pairs(folder / "images", labels)


def chosen(pairs: Sequence[Pair], count: int, seed: int) -> list[Pair]:
    """Some pairs in random order; a larger number holds the smaller one."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    return [pairs[index] for index in order[:count]]


def trained(
    weights: Path,
    start: str,
    data: list[Example],
    *,
    scale: float,
    seconds: float | None,
    steps: int | None,
    seed: int,
) -> Segmenter:
    """The pretext's network after a fine-tune on a few images, from its weights or from random ones."""
    network, _ = load_pretext(weights)
    spec = SegmenterSpec(network.config, ("background", "object"), None, instances=True, downsample=scale)
    *_, last = fine_tune(
        build_segmenter(spec, start=network.state_dict() if start == "pretext" else None, seed=seed),
        data,
        [],
        compute=choose_compute("cpu"),
        settings=FineTuneSettings(seed=seed),
        seconds=seconds,
        steps=steps,
        score_before=False,
    )
    assert isinstance(last, Finished)
    assert isinstance(last.result, FineTuneResult)
    return last.result.segmenter


def painted(rgb: NDArray[np.uint8], mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """An image with what was found, missed and found wrongly in it."""
    grey = np.repeat(rgb.mean(axis=2, keepdims=True), 3, axis=2)
    result = 0.8 * grey + 40
    for where, colour in ((mask & truth, FOUND), (~mask & truth, MISSED), (mask & ~truth, WRONG)):
        result[where] = 0.45 * result[where] + 0.55 * np.array(colour)
    return result.clip(0, 255).astype(np.uint8)


def segmentations(
    answers: Sequence[Answer], test: Sequence[Example], everything: Sequence[Example]
) -> Image.Image:
    """Columns: image, labels, then scratch and pretext for each number of labels. Rows: some test images."""
    columns = 2 + len(answers)
    height = 2 * CAPTION + len(test) * (CELL + CAPTION + GAP)
    sheet = Image.new("RGB", (columns * (CELL + GAP), height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)

    def write(column: int, y: int, text: str, colour: str | tuple[int, int, int] = "black") -> None:
        draw.text((column * (CELL + GAP) + 2, y), text, colour, font)

    masks = {
        (answer.start, answer.count): [answer.mask(example) for example in everything] for answer in answers
    }
    for column, answer in enumerate(answers, start=2):
        found = masks[answer.start, answer.count]
        mean = np.mean([dice(mask, example) for mask, example in zip(found, everything, strict=True)])
        write(column, 2, f"{answer.start}, {answer.count} labelled")
        write(column, CAPTION, f"mean Dice of {len(everything)}: {mean:.2f}")
        print(f"{answer.start}, {answer.count} labelled: mean Dice {mean:.3f}", flush=True)
    write(0, 2, "held-out image")
    write(1, 2, "green found, yellow missed,")
    write(1, CAPTION, "blue found but not labelled")
    for row, example in enumerate(test):
        top = 2 * CAPTION + row * (CELL + CAPTION + GAP)
        truth = example.labels > 0
        cells = [(example.rgb, example.name), (painted(example.rgb, truth, truth), "labels")]
        for answer in answers:
            mask = masks[answer.start, answer.count][row]
            cells.append((painted(example.rgb, mask, truth), f"Dice {dice(mask, example):.2f}"))
        for column, (picture, caption) in enumerate(cells):
            write(column, top, caption)
            image = Image.fromarray(picture).resize((CELL, CELL), Image.Resampling.LANCZOS)
            sheet.paste(image, (column * (CELL + GAP), top + CAPTION))
    return sheet


def dice(mask: NDArray[np.bool_], example: Example) -> float:
    """Dice of a mask with an example's labels."""
    return float(class_scores(mask, example.labels > 0)["dice"])


def save_jpeg(image: Image.Image, path: Path) -> None:
    """Write a JPEG of at most 300 kB: of quality 85, or less where it would be larger."""
    with atomic_path(path) as temporary:
        for quality in range(85, 30, -5):
            image.save(temporary, "JPEG", quality=quality)
            if temporary.stat().st_size <= MOST_BYTES:
                break
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def parsed() -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("weights", help="name or file of a pretext")
    parser.add_argument("--images", type=Path, required=True, help="unlabelled images for the sheet")
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"))
    parser.add_argument("--name", help="how the files' names begin; default: that of the weights")
    parser.add_argument("--labelled", type=Path, help="folder with images/ and labels/ (or masks/)")
    parser.add_argument("--test", type=Path, help="such a folder of held-out images")
    parser.add_argument("--seconds", type=float, default=60, help="of each fine-tune")
    parser.add_argument("--steps", type=int, help="of each fine-tune, in place of --seconds")
    parser.add_argument("--labels", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--scored", type=int, default=24, help="held-out images that are scored")
    parser.add_argument("--shown", type=int, default=4, help="held-out images that are drawn")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Write the sheet, and the segmentations where there are labels."""
    arguments = parsed()
    weights = resolve(arguments.weights)
    name = arguments.name or weights.stem
    sheet = pretext_sheet(weights, arguments.images, arguments.seed)
    save_jpeg(Image.fromarray(sheet), arguments.output / f"{name}-pretext.jpg")
    if arguments.labelled is None:
        return
    pairs = labelled_pairs(arguments.labelled)
    training = chosen(pairs, max(arguments.labels), arguments.seed)
    others = labelled_pairs(arguments.test) if arguments.test else [p for p in pairs if p not in training]
    images = [load_pair(pair, instances=True) for pair in training]
    # Of all models the same: that of one labelled image would depend on which one it is.
    _, scale = choose_resolution(images, mpp=None, instances=True)
    data = [to_example(image, scale=scale, instances=True) for image in images]
    held_out = [
        to_example(load_pair(pair, instances=True), scale=scale, instances=True)
        for pair in chosen(others, arguments.scored, arguments.seed)
    ]
    answers = []
    for count in arguments.labels:
        for start in ("scratch", "pretext"):
            segmenter = trained(
                weights,
                start,
                data[:count],
                scale=scale,
                seconds=None if arguments.steps else arguments.seconds,
                steps=arguments.steps,
                seed=arguments.seed,
            )
            answers.append(Answer(start, count, segmenter))
    picture = segmentations(answers, held_out[: arguments.shown], held_out)
    save_jpeg(picture, arguments.output / f"{name}-segmentations.jpg")


if __name__ == "__main__":
    main()
