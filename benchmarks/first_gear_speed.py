"""Time the first gear: features of a view, and from a stroke to the answer of the view.

    python benchmarks/first_gear_speed.py SLIDE --json docs/benchmarks/first-gear-speed.json

``SLIDE`` is ``slides/CMU-1-Small-Region.svs`` of the data. A view of 1,200 x 800 screen pixels of 0.5
micrometres, as a 20x scan has them; the pretext works at that resolution, a model at its own. Strokes of
three classes are drawn at random; each is written into a session's journal first, as in the window, and
the clock runs from there to the labels of the whole view. Processor time of all threads
stands beside the clock, for machines that do other work.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_genselfdiff.annotations import Annotations, encode
from napari_genselfdiff.compute import choose_compute
from napari_genselfdiff.diffusion.pretraining import load_pretext
from napari_genselfdiff.finetuning.instant import InstantTask
from napari_genselfdiff.finetuning.loop import warm_up
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models.library import resolve
from napari_genselfdiff.segmentation.network import Segmenter, load_segmenter
from napari_genselfdiff.slides import open_slide

CLASSES = ("background", "nucleus", "stroma")
MPP = 0.5
"""Micrometres per pixel of the screen, and of a new task."""
SCREEN = (800, 1200)
PAN = 200


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds by the clock, and of processor time."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def summary(times: list[tuple[float, float]]) -> dict[str, list[float]]:
    """Median and 95th percentile of both."""
    clock, processor = (np.percentile(part, [50, 95]).round(3).tolist() for part in zip(*times, strict=True))
    return {"clock": clock, "processor": processor}


def main() -> None:
    """Measure both starts, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--strokes", type=int, default=30)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    slide, compute, rng = open_slide(arguments.slide), choose_compute("cpu"), np.random.default_rng(0)
    warm_up()
    found: dict[str, Any] = {"threads": compute.threads}
    for name, network in (
        ("pretext", load_pretext(resolve("pretext"))[0]),
        ("nuclei model", load_segmenter(resolve("nuclei"))),
    ):
        task = InstantTask(network, compute=compute, classes=CLASSES)
        assert slide.mpp is not None
        scale = ((network.spec.mpp if isinstance(network, Segmenter) else None) or MPP) / slide.mpp
        region = Region(1_000, 500, *(round(side * MPP / slide.mpp) for side in SCREEN))
        view = task.view(slide, region, scale=scale)
        slide.read_scaled(view.grid.y, view.grid.x, view.grid.height, view.grid.width, scale=scale)
        first = timed(lambda: list(task.add_view(view)))  # noqa: B023 - called at once
        moved = Region(region.y, region.x + PAN, region.height, region.width)
        second = timed(lambda: list(task.add_view(task.view(slide, moved, scale=scale))))  # noqa: B023
        megabytes = task.tiles.nbytes / 2**20
        answers = []
        with (
            tempfile.TemporaryDirectory() as folder,
            Annotations.open(Path(folder) / "session", shape=slide.shape, slide_id="s") as drawing,
        ):
            for number in range(arguments.strokes + 3):
                y, x = region.y + int(rng.integers(780)), region.x + int(rng.integers(1_150))
                codes = encode(np.full((5, 30), number % 3))
                change = drawing.stroke(0, y, x, codes, codes > 0)

                def answer() -> None:
                    if change is not None:  # noqa: B023
                        task.touch(slide, change, scale=scale)  # noqa: B023
                    task.look(slide, drawing, scale=scale)  # noqa: B023
                    assert task.answer(view, task.learn()).complete  # noqa: B023

                if number >= 3:
                    answers.append(timed(answer))
        found[name] = {
            "megapixels": round(view.grid.height * view.grid.width / 1e6, 2),
            "features of the view": summary([first]),
            f"after a pan of {PAN} pixels": summary([second]),
            "megabytes": round(megabytes),
            "answer to a stroke": summary(answers),
        }
    print(json.dumps(found, indent=1))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
