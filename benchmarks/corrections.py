"""Measure whether one round of fine-tuning on corrections helps on the rest of the image.

For each MoNuSeg image one quarter (a quadrant, another one from image to image) is corrected: its true labels
are accepted in an editable window, as a user would. One round of fine-tuning follows, through the same
session that the window uses, with its gate. Dice on the other three quarters is compared with that of the
model before. No image is left out; a model that the gate refused counts as no change.

    python benchmarks/corrections.py DATA/monuseg --json docs/benchmarks/corrections.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_genselfdiff.annotations import encode
from napari_genselfdiff.compute import choose_compute
from napari_genselfdiff.events import Finished
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models.versions import Round
from napari_genselfdiff.segmentation.metrics import class_scores
from napari_genselfdiff.session import FINE_TUNE_SECONDS, Session
from napari_genselfdiff.slides import open_slide
from napari_genselfdiff.verbs.prediction import segment_region

MPP = 0.25


def last_result(events: Any) -> Any:
    """Run long work to its end."""
    *_, last = events
    assert isinstance(last, Finished)
    return last.result


def predicted(session: Session) -> NDArray[np.bool_]:
    """What the model in use says about the whole image, at its own resolution."""
    whole = Region(0, 0, *session.slide.shape)
    work = segment_region(session.segmenter(), session.slide, whole, compute=session.compute)
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return np.asarray(stop.value.labels > 0)


def one_image(
    image: Path, truth: NDArray[np.bool_], quadrant: int, model: str, seconds: float
) -> dict[str, Any]:
    """Correct one quarter of an image, fine-tune, and score the rest."""
    height, width = truth.shape
    half_y, half_x = height // 2, width // 2
    corrected = Region((quadrant // 2) * half_y, (quadrant % 2) * half_x, half_y, half_x)
    rest = np.ones(truth.shape, bool)
    rest[corrected.y : corrected.bottom, corrected.x : corrected.right] = False
    with tempfile.TemporaryDirectory() as folder:
        slide = open_slide(image, mpp=MPP)
        session = Session(Path(folder), slide, compute=choose_compute("cpu"))
        session.use_model(model)
        before = class_scores(predicted(session), truth, valid=rest)["dice"]
        part = truth[corrected.y : corrected.bottom, corrected.x : corrected.right]
        session.annotations.accept(0, corrected, encode(part.astype(np.uint8)))
        started = time.perf_counter()
        outcome = last_result(session.fine_tune(seconds=seconds))
        took = time.perf_counter() - started
        assert isinstance(outcome, Round)
        session.adopt(outcome)
        after = class_scores(predicted(session), truth, valid=rest)["dice"]
        session.close()
    return {
        "image": image.stem,
        "quadrant": quadrant,
        "before": before,
        "after": after,
        "accepted": outcome.accepted,
        "held out before": outcome.version.before,
        "held out after": outcome.version.after,
        "seconds": took,
        "steps": outcome.version.steps,
    }


def main() -> None:
    """Run all images and print the mean gain with its bootstrap interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("monuseg", type=Path)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--seconds", type=float, default=FINE_TUNE_SECONDS)
    parser.add_argument("--images", type=int, default=None, help="only the first N")
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    rows = []
    images = sorted((arguments.monuseg / "MoNuSeg 2018 Training Data" / "Tissue Images").glob("*.tif"))
    for index, path in enumerate(images[: arguments.images]):
        truth = np.asarray(Image.open(arguments.monuseg / "instances" / f"{path.stem}.png")) > 0
        row = one_image(path, truth, index % 4, arguments.model, arguments.seconds)
        rows.append(row)
        print(
            f"{row['image']}  {row['before']:.3f} -> {row['after']:.3f}  "
            f"{'accepted' if row['accepted'] else 'refused'}  {row['seconds']:.0f} s",
            flush=True,
        )
    gains = np.array([row["after"] - row["before"] for row in rows])
    draws = np.random.default_rng(0).choice(gains, (10_000, len(gains))).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    summary = {
        "images": len(rows),
        "mean before": float(np.mean([row["before"] for row in rows])),
        "mean after": float(np.mean([row["after"] for row in rows])),
        "mean gain": float(gains.mean()),
        "95 % interval": [float(low), float(high)],
        "accepted": sum(row["accepted"] for row in rows),
        "longest round in seconds": max(row["seconds"] for row in rows),
    }
    print(json.dumps(summary, indent=1))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"summary": summary, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
