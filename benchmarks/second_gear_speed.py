"""Time the second gear: from the click on Fine-tune to the first look at the new model and to the end.

    python benchmarks/second_gear_speed.py SLIDE --json docs/benchmarks/second-gear-speed.json

``SLIDE`` is ``slides/CMU-1-Small-Region.svs`` of the data. In several windows strokes are drawn, dark pixels
as nuclei and bright ones as background. A round runs as in the window: in a session, by the clock, while
every snapshot of the network segments a view of 1,200 x 800 pixels in a second thread. The first such answer
is the first usable result.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from napari_genselfdiff.annotations import encode
from napari_genselfdiff.compute import choose_compute
from napari_genselfdiff.events import Finished, Snapshot
from napari_genselfdiff.finetuning.loop import warm_up
from napari_genselfdiff.finetuning.scoring import predict_image
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.network import Segmenter
from napari_genselfdiff.session import Session, Task
from napari_genselfdiff.slides import open_slide

VIEW = Region(400, 500, 800, 1200)
WINDOW, WINDOWS = 200, 12
STROKES = 6
"""In each window."""


def draw(session: Session, rng: np.random.Generator) -> None:
    """Draw short strokes in windows all over the slide."""
    height, width = session.slide.shape
    for _ in range(WINDOWS):
        top, left = int(rng.integers(height - WINDOW)), int(rng.integers(width - WINDOW))
        for _ in range(STROKES):
            y, x = top + int(rng.integers(WINDOW - 6)), left + int(rng.integers(WINDOW - 40))
            dark = session.slide.read(y, x, 6, 40).mean(axis=2) < 130
            session.annotations.stroke(0, y, x, encode(dark.astype(np.uint8)), np.ones(dark.shape, bool))


def one_round(session: Session) -> dict[str, float]:
    """Seconds from the click to everything that the user waits for."""
    rgb = session.slide.read(VIEW.y, VIEW.x, VIEW.height, VIEW.width)
    seen: list[float] = []
    times: dict[str, float] = {}
    began = time.perf_counter()

    def look(segmenter: Segmenter) -> None:
        predict_image(segmenter, rgb, session.compute)
        seen.append(time.perf_counter() - began)

    with ThreadPoolExecutor(1) as pool:
        looking: Future[None] | None = None
        for event in session.fine_tune():
            if isinstance(event, Snapshot) and (looking is None or looking.done()):
                looking = pool.submit(look, event.segmenter)
            if isinstance(event, Finished):
                times["end"] = time.perf_counter() - began
                result: Any = event.result
                times["steps"] = result.version.steps
                session.adopt(result)
    return {"first look": seen[0], "looks": len(seen)} | times


def main() -> None:
    """Measure both kinds of rounds, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    slide, compute = open_slide(arguments.slide), choose_compute("cpu")
    warm_up()
    found: dict[str, Any] = {"threads": compute.threads}
    for name in ("nuclei model", "new task"):
        with tempfile.TemporaryDirectory() as folder:
            session = Session(Path(folder) / "session", slide, compute=compute)
            if name == "nuclei model":
                session.use_model("nuclei")
            else:
                session.start_task(Task.named(["nucleus"], mpp=0.5))
            draw(session, np.random.default_rng(0))
            rounds = [one_round(session) for _ in range(arguments.rounds)]
            session.close()
        found[name] = [{key: round(value, 1) for key, value in row.items()} for row in rounds]
        print(name, *found[name], sep="\n  ", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
