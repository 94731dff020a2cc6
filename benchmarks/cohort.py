"""Speed of one and of two worker processes: ``segment --scheduler local:2`` against ``local:1``.

Every worker has one torch thread. A slide is generated (a pyramidal JPEG TIFF, tissue everywhere, laid out
from a real image if one is given) and segmented with the bundled model by each number of workers in turn,
reading and writing included. Two numbers each: ``steady``, megapixels a second from the first finished cells
to the last, and ``whole``, from the call to its end, with the start of the processes in it.

    python benchmarks/cohort.py --side 12288 --repeats 3
    python benchmarks/cohort.py --side 2048 --repeats 1          # does the script work?

Bar: two workers have at least 1.7 times the steady throughput of one.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded, for the workers too

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image

from napari_genselfdiff import __version__
from napari_genselfdiff.events import Finished, Progress
from napari_genselfdiff.segmentation.store import CELL
from napari_genselfdiff.verbs.cohort import segment_cohort

BAR = 1.7
MPP = 0.5


def generate(path: Path, side: int, picture: Path | None) -> None:
    """Write a slide; ``picture`` is repeated over it, or random blocks are."""
    if picture is None:
        small = np.random.default_rng(0).integers(60, 220, (128, 128, 3), dtype=np.uint8)
        tile = np.kron(small, np.ones((8, 8, 1), np.uint8))
    else:
        tile = np.asarray(Image.open(picture).convert("RGB"))
    repeats = -(-side // tile.shape[0]), -(-side // tile.shape[1]), 1
    image = np.tile(tile, repeats)[:side, :side]
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        levels = max(1, int(np.log2(side / 512)))
        for level in range(levels + 1):
            file.write(
                np.ascontiguousarray(image[:: 2**level, :: 2**level]),
                subifds=0 if level else levels,
                subfiletype=1 if level else 0,
                tile=(256, 256),
                compression="jpeg",
                photometric="ycbcr",
            )


def measure(slide: Path, output: Path, workers: int) -> dict[str, float]:
    """Segment the slide; seconds and megapixels a second."""
    started = time.perf_counter()
    first: tuple[float, float] | None = None
    last = 0.0, started
    for event in segment_cohort(
        [str(slide)], str(output), mpp=MPP, device="cpu", scheduler=f"local:{workers}"
    ):
        now = time.perf_counter()
        if isinstance(event, Progress) and event.done > last[0]:
            last = event.done, now
            first = first or last
        elif isinstance(event, Finished):
            assert event.result.failed == {}, event.result.failed
    ended, cell = time.perf_counter(), CELL**2 / 1e6
    assert first is not None
    steady = (last[0] - first[0]) * cell / max(last[1] - first[1], 1e-9)
    return {
        "cells": last[0],
        "seconds": ended - started,
        "steady": steady,
        "whole": last[0] * cell / (ended - started),
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--side", type=int, default=12288, help="of the slide, in pixels of 0.5 um")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--picture", type=Path, help="an image of tissue from which the slide is laid out")
    arguments = parser.parse_args()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    results: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as scratch:
        slide = Path(scratch) / "slide.tif"
        generate(slide, arguments.side, arguments.picture)
        for repeat in range(arguments.repeats):
            for workers, measured in results.items():
                measured.append(measure(slide, Path(scratch) / f"{workers}-{repeat}", workers))
    median = {
        (workers, kind): statistics.median(row[kind] for row in rows)
        for workers, rows in results.items()
        for kind in ("steady", "whole")
    }
    ratio = {kind: median[2, kind] / median[1, kind] for kind in ("steady", "whole")}
    report = {
        "version": __version__,
        "machine": {"cores": os.cpu_count(), "torch": torch.__version__, "load_before": load},
        "slide": {"side": arguments.side, "cells": results[1][0]["cells"]},
        "megapixels_per_second": {
            f"local:{workers}": {
                kind: {
                    "median": round(median[workers, kind], 3),
                    "all": [round(row[kind], 3) for row in rows],
                }
                for kind in ("steady", "whole")
            }
            for workers, rows in results.items()
        },
        "ratio": {kind: round(value, 2) for kind, value in ratio.items()},
        "bars": {f"local:2 / local:1 >= {BAR}": ratio["steady"] >= BAR},
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
