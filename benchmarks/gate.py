r"""Whether the gate keeps a model good when a third of the corrections are wrong.

A session of many rounds. In each, one window of a training image is corrected as a whole: honestly, or, in
one round of three, wrongly: foreground and background exchanged, all foreground, all background, or the
truth moved by three quarters of a nucleus. Wrong windows fall into the held-out fifth as well, and stay in
the journal until they are painted over. As many of them as the plugin reads train a copy of the model in
use, with the plugin's number of steps, through the code that the window uses; the gate decides. What it
accepted, at once or by what was corrected in the next rounds, is in use from then on, and the next round
begins with it if more is known of it than that it changed little. Dice is measured on a mosaic of images that
are never corrected.

``--stain`` changes the colours of all images, as another laboratory would: there is something to gain.

    python benchmarks/gate.py DATA/monuseg --json docs/benchmarks/gate.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Generator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from napari_genselfdiff.annotations import Annotations, encode
from napari_genselfdiff.compute import Compute, choose_compute
from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.diffusion.pretraining import load_pretext
from napari_genselfdiff.events import CancelToken, Clock, Finished
from napari_genselfdiff.finetuning.again import Refused
from napari_genselfdiff.finetuning.corrections import CONTEXT, Outline, Place, Source, read_place
from napari_genselfdiff.finetuning.doubt import believed
from napari_genselfdiff.finetuning.earlier import Looks, Models, no_models
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.finetuning.holdout import CELL
from napari_genselfdiff.finetuning.loop import FineTuneResult, FineTuneSettings, fine_tune
from napari_genselfdiff.finetuning.preparation import Cut
from napari_genselfdiff.finetuning.recipe import Recipe, recipe_for
from napari_genselfdiff.finetuning.rounds import RoundResult, train_cut
from napari_genselfdiff.finetuning.scoring import predict_image
from napari_genselfdiff.finetuning.training import Training
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models import library
from napari_genselfdiff.models.versions import Doubt
from napari_genselfdiff.segmentation.network import Segmenter, SegmenterSpec, build_segmenter, load_segmenter
from napari_genselfdiff.slides import slide_from_arrays

Image_ = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""RGB, and where the nuclei are."""
Believed = tuple[Cut, list[Doubt]]
SIDE = 500
"""MoNuSeg at half its resolution, 0.5 micrometres a pixel."""
WINDOW = 3
"""Cells along a side of what is corrected in a round."""
KINDS = ("exchanged", "all foreground", "all background", "moved")
PIECE, PIECES = 200, 9
PATCH = 128


def load(folder: Path, stem: str, *, stain: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Read an image and its foreground."""
    path = folder / "MoNuSeg 2018 Training Data" / "Tissue Images" / f"{stem}.tif"
    image = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    density = -np.log((np.asarray(image, np.float32) + 1) / 256)
    # Thinner stain, and a shift of the colours that haematoxylin and eosin share.
    changed = density * (1 - np.array([0.55, 0.35, 0.1]) * stain) + 0.12 * stain
    rgb = (np.exp(-changed) * 256 - 1).clip(0, 255).astype(np.uint8)
    ids = Image.open(folder / "instances" / f"{stem}.png").resize((SIDE, SIDE), Image.Resampling.NEAREST)
    return rgb, np.asarray(ids) > 0


def spoiled(truth: NDArray[np.bool_], kind: str) -> NDArray[np.bool_]:
    """Wrong labels."""
    if kind == "exchanged":
        return ~truth
    if kind == "moved":
        return np.asarray(ndimage.shift(truth.astype(np.uint8), (9, 9), order=0, mode="reflect")) > 0
    return np.full_like(truth, kind == "all foreground")


def outline(
    stem: str,
    image: Image_,
    rng: np.random.Generator,
    kind: str | None,
    tag: str = "",
    models: Models = no_models,
    number: int = 1,
) -> Outline:
    """The window of a round, on whole cells, corrected while a model was in use."""
    rgb, truth = image
    row, column = rng.integers(0, SIDE // CELL - WINDOW + 1, 2) * CELL
    window = np.s_[row : row + WINDOW * CELL, column : column + WINDOW * CELL]
    said = truth[window] if kind is None else spoiled(truth[window], kind)
    codes = np.zeros(truth.shape, np.uint8)
    codes[window] = encode(said.astype(np.uint8))
    y, x = max(0, row - CONTEXT), max(0, column - CONTEXT)
    part = codes[y : row + WINDOW * CELL + CONTEXT, x : column + WINDOW * CELL + CONTEXT]
    source = Source(slide_from_arrays(rgb, name=stem, mpp=0.5), cast("Annotations", None), stem, models)
    looks = Looks([(Region(int(row), int(column), WINDOW * CELL, WINDOW * CELL), tag, number)])
    return Outline(source, (int(y), int(x)), 1.0, part, looks=looks)


def painted_over(older: Outline, newer: Outline) -> Outline:
    """What is left of a correction when another one lies over it."""
    if older.source.name != newer.source.name:
        return older
    at = np.argwhere(newer.codes > 0) + newer.origin - np.array(older.origin)
    at = at[((at >= 0) & (at < older.codes.shape)).all(axis=1)]
    codes = older.codes.copy()
    codes[tuple(at.T)] = 0
    return replace(older, codes=codes)


def mosaic_of(folder: Path, rng: np.random.Generator, *, stain: float) -> tuple[Image_, list[str]]:
    """A mosaic of images by chance that are never corrected, and the names of the others."""
    stems = rng.permutation(sorted(path.stem for path in (folder / "instances").glob("*.png"))).tolist()
    cut = [[part[:PIECE, :PIECE] for part in load(folder, stem, stain=stain)] for stem in stems[:PIECES]]
    rows = [[np.concatenate([one[k] for one in cut[i : i + 3]], axis=1) for i in (0, 3, 6)] for k in (0, 1)]
    return (np.concatenate(rows[0]), np.concatenate(rows[1])), stems[PIECES:]


def corrected_images(folder: Path, stems: list[str], count: int, *, stain: float) -> dict[str, Image_]:
    """Images in which windows are corrected."""
    return {stem: load(folder, stem, stain=stain) for stem in stems[:count]}


def mosaic_dice(segmenter: Segmenter, mosaic: Image_, compute: Compute) -> float:
    """Dice on what is never corrected."""
    rgb, truth = mosaic
    said = predict_image(segmenter, rgb, compute, margin=32).labels > 0
    return float(2 * (said & truth).sum() / (said.sum() + truth.sum()))


def young(images: list[Any], arguments: argparse.Namespace, compute: Compute) -> Segmenter:
    """Train a model on a few images alone: there is much to gain."""
    start = None
    config = replace(COMPACT, name="small", widths=(8, 16, 32, 64), full_width=8)
    if not arguments.small:
        network, _ = load_pretext(library.resolve("pretext"))
        config, start = network.config, network.state_dict()
    model = build_segmenter(SegmenterSpec(config, ("background", "nucleus"), 0.5), start=start)
    examples = [
        Example(str(index), rgb, truth.astype(np.uint8), np.ones(truth.shape, np.float32))
        for index, (rgb, truth) in enumerate(images)
    ]
    settings = FineTuneSettings(patch=PATCH, batch=arguments.batch)
    *_, last = fine_tune(model, examples, [], compute=compute, settings=settings, steps=arguments.young)
    return cast("FineTuneResult", cast("Finished", last).result).segmenter.eval()


def session(arguments: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """All rounds of one session."""
    compute = choose_compute("cpu", threads=arguments.threads)
    rng = np.random.default_rng(seed)
    mosaic, stems = mosaic_of(arguments.monuseg, rng, stain=arguments.stain)
    images = corrected_images(arguments.monuseg, stems, arguments.images, stain=arguments.stain)
    stems = list(images)

    model = load_segmenter(library.resolve(arguments.model))
    if arguments.young:
        # It would do too well on what is held out of the images that it has seen whole.
        model = young([images.pop(stem) for stem in stems[:2]], arguments, compute)
        stems = list(images)
    proven = model
    dice = start = mosaic_dice(model, mosaic, compute)
    print(f"seed {seed}: starts at {start:.3f}", flush=True)
    models, tag = {"0": model}, "0"
    outlines: list[Outline] = []
    places: dict[int, Place] = {}
    wrong: list[str | None] = []
    log: list[dict[str, Any]] = []
    spoil = rng.permutation(arguments.rounds) < round(arguments.wrong * arguments.rounds)
    refused: dict[int, Segmenter] = {}  # by round, since one was accepted
    positions: list[dict[str, int]] = []
    for number in range(arguments.rounds):
        kind = str(rng.choice(KINDS)) if spoil[number] else None
        wrong.append(kind)
        stem = stems[rng.integers(len(stems))]
        newest = outline(stem, images[stem], rng, kind, tag, models.get, number + 1)
        for index, older in enumerate(outlines):
            outlines[index] = painted_over(older, newest)
            if not np.array_equal(outlines[index].codes, older.codes):
                places.pop(index, None)
        outlines.append(newest)
        # As many places as a round reads; by chance, but for the newest.
        left = [index for index in rng.permutation(number).tolist() if outlines[index].codes.any()]
        some = {number, *left[: arguments.places - 1]}
        for index in some - places.keys():
            places[index] = read_place(outlines[index], proven, compute=compute)
        read = [places[index] for index in sorted(some)]
        positions.append({place.slide: number + 1 for place in read})
        cut = Cut(read, positions[number]).settled()
        began = time.perf_counter()
        if not arguments.believe:
            scales = dict.fromkeys(stems, 1.0)
            cut, _ = finished(believed(cut, proven, scales, compute=compute, cancel=CancelToken()))
        kept = {(place.slide, place.origin) for place in cut.places}
        left_out = [i for i in some if (places[i].slide, places[i].origin) not in kept]
        recipe = recipe_for(cut.amount)
        settings = replace(recipe.settings, patch=PATCH, batch=arguments.batch, seed=number)
        if arguments.learning_rate:
            settings = replace(settings, learning_rate=arguments.learning_rate)
        training = Training(
            proven, Recipe(settings, arguments.steps), compute, CancelToken(), Clock(), None, None
        )
        known = [
            Refused(str(then), "", partial(refused.__getitem__, then), positions[then])
            for then in reversed(refused)
        ]
        *_, last = train_cut(cut, training, refused=() if arguments.once else known)
        assert isinstance(last, Finished)
        result = last.result
        assert isinstance(result, RoundResult)
        again = None if result.again is None else int(result.again.model.name)
        new = mosaic_dice(result.segmenter, mosaic, compute)
        row = asdict(result.verdict) | {
            "round": number,
            "wrong": kind,
            "dice": dice,
            "candidate": new,
            "share": result.settings["share"],
            "left out": len(left_out),
            "rightly": sum(wrong[index] is not None for index in left_out),
            "wrong ones": sum(wrong[index] is not None for index in some),
            "seconds": time.perf_counter() - began,
            "again": again,
        }
        log.append(row)
        refused[number] = result.segmenter
        if again is not None or result.verdict.accepted:
            taken = number if again is None else again
            model, dice = refused[taken], log[taken]["candidate"]
            refused = {}
            models[tag] = model  # of what was drawn so far
            tag = str(number + 1)
            models[tag] = model
            if again is not None or result.verdict.decided:
                proven = model  # until then, rounds begin again at the one before
            places.clear()
        row["left with"] = dice
        print(described(row), flush=True)
    return log


def finished(events: Generator[Any, None, Believed]) -> Believed:
    """What a generator of events returns."""
    while True:
        try:
            next(events)
        except StopIteration as stop:
            return cast("Believed", stop.value)


def described(row: dict[str, Any]) -> str:
    """One round in one line."""
    scores = "no regions" if row["before"] is None else f"{row['before']:.3f} -> {row['after']:.3f}"
    return (
        f"{row['round']:2d} {row['wrong'] or 'honest':15s} {row['dice']:.3f} -> {row['candidate']:.3f} "
        f"{'accepted' if row['accepted'] else 'refused':8s} {'' if row['decided'] else '(early)':7s} "
        f"kept {row['kept'] or 0:.3f} share {row['share']} {scores} "
        f"[{row['low'] or 0:+.3f}, {row['high'] or 0:+.3f}] {row['regions']} {row['seconds']:.0f} s "
        f"left out {row['left out']}, {row['rightly']} rightly, of {row['wrong ones']}"
        + ("" if row["again"] is None else f"; round {row['again']} after all")
    )


def summary(logs: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """What the bars ask."""
    rows = [row for log in logs for row in log]
    gaining = [r for r in rows if r["wrong"] is None and r["candidate"] - r["dice"] >= 0.02]
    later = [log[r["again"]] for log in logs for r in log if r["again"] is not None]
    ends = [[*(r["dice"] for r in log), log[-1]["left with"]] for log in logs]
    return {
        "rounds": len(rows),
        "wrong rounds": sum(row["wrong"] is not None for row in rows),
        "start": [path[0] for path in ends],
        "end": [path[-1] for path in ends],
        "largest fall at once": max(float(-np.diff(path).min()) for path in ends),
        "honest rounds that gain 0.02": len(gaining),
        "of them accepted": sum(row["accepted"] for row in gaining),
        "of them accepted later": sum(row in gaining for row in later),
        "accepted": sum(row["accepted"] for row in rows),
        "wrong rounds accepted": sum(row["accepted"] for row in rows if row["wrong"] is not None),
    }


def main() -> None:
    """Run the sessions and print what the bars ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("monuseg", type=Path)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--young", type=int, default=0, help="start from so many steps on two images")
    parser.add_argument("--small", action="store_true", help="a small network, with --young")
    parser.add_argument("--stain", type=float, default=0.0, help="0: as it is, 1: much changed")
    parser.add_argument("--wrong", type=float, default=1 / 3, help="share of the rounds; 0: does it forget?")
    parser.add_argument("--once", action="store_true", help="do not ask a refused model again")
    parser.add_argument("--believe", action="store_true", help="leave nothing out that is contradicted")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--sessions", type=int, default=1)
    parser.add_argument("--images", type=int, default=21, help="in which corrections are made")
    parser.add_argument("--places", type=int, default=39, help="windows that a round reads")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    logs = [session(arguments, arguments.seed + index) for index in range(arguments.sessions)]
    found = summary(logs)
    print(json.dumps(found, indent=1))
    if arguments.json:
        options = {k: str(v) for k, v in vars(arguments).items() if k not in ("monuseg", "json")}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(
            json.dumps({"options": options, "summary": found, "rounds": logs}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
