"""Speed of the two networks: megapixels a second on this machine's CPU cores, in one run.

Two numbers a network: ``forward``, the pixels of one window that go through the network, and ``region``, the
pixels of a region that come out of tiled inference, where windows overlap. Both are medians of repeats in
which the networks take turns, so that whatever else the machine does slows both. float32, all cores.

    python benchmarks/throughput.py --size 768 --repeats 5

Bars: `compact` segments at least 1.0 megapixels a second on 2 cores, and at least 20 times as fast as
`paper`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from napari_genselfdiff import __version__
from napari_genselfdiff.compute import Compute, choose_compute
from napari_genselfdiff.diffusion.config import COMPACT, PAPER, UNetConfig
from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.models.library import BUNDLED, DEFAULT_SEGMENTER, SUFFIX
from napari_genselfdiff.segmentation.inference import PAPER_WINDOW, predict_region
from napari_genselfdiff.segmentation.network import (
    Segmenter,
    SegmenterSpec,
    build_segmenter,
    load_segmenter,
)
from napari_genselfdiff.segmentation.store import CELL

COMPACT_BAR = 1.0
RATIO_BAR = 20.0


def measure(work: Callable[[], int]) -> float:
    """Megapixels a second of a function that returns how many pixels it made."""
    start = time.perf_counter()
    pixels = work()
    return pixels / 1e6 / (time.perf_counter() - start)


def forward(segmenter: Segmenter, side: int) -> Callable[[], int]:
    """One pass of one window through the network."""
    x = to_unit_range(image(side)[None])
    segmenter = segmenter.for_inference()

    def work() -> int:
        with torch.inference_mode():
            segmenter(x)
        return side * side

    return work


def region(segmenter: Segmenter, side: int, compute: Compute) -> Callable[[], int]:
    """A square region in tiles."""
    rgb = image(side)

    def read(y: int, x: int, height: int, width: int) -> NDArray[np.uint8]:
        return rgb[y : y + height, x : x + width]

    def work() -> int:
        for _ in predict_region(
            segmenter, read, (0, 0, side, side), bounds=(side, side), scale=1.0, compute=compute
        ):
            pass
        return side * side

    return work


def image(side: int) -> NDArray[np.uint8]:
    """Something to look at; the time does not depend on it."""
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def untrained(config: UNetConfig) -> Segmenter:
    """A nuclei segmenter with random weights."""
    spec = SegmenterSpec(config=config, classes=("background", "nucleus"), mpp=0.5, instances=True)
    return build_segmenter(spec, start=None).eval()


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=768, help="side of the region that compact segments")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()

    compute = choose_compute("cpu")
    compute.apply()
    bundled = BUNDLED / f"{DEFAULT_SEGMENTER}{SUFFIX}"
    compact = load_segmenter(bundled) if bundled.is_file() else untrained(COMPACT)
    paper = untrained(PAPER)
    work = {
        ("compact", "forward"): forward(compact, CELL + 2 * compact.spec.config.reach),
        ("paper", "forward"): forward(paper, PAPER_WINDOW),
        ("compact", "region"): region(compact, arguments.size, compute),
        ("paper", "region"): region(paper, PAPER_WINDOW, compute),
    }
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    for key in list(work)[:2]:  # buffers and kernels are chosen in the first pass
        work[key]()
    speeds: dict[tuple[str, str], list[float]] = {key: [] for key in work}
    for _ in range(arguments.repeats):
        for key, function in work.items():
            speeds[key].append(measure(function))

    median = {key: statistics.median(values) for key, values in speeds.items()}
    ratio = {kind: median["compact", kind] / median["paper", kind] for kind in ("forward", "region")}
    report = {
        "version": __version__,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "threads": compute.threads,
            "torch": torch.__version__,
            "load_before": load,
        },
        "compact": {
            "weights": DEFAULT_SEGMENTER if bundled.is_file() else "random",
            "size": arguments.size,
            **megapixels("compact", speeds),
        },
        "paper": {"weights": "random", "size": PAPER_WINDOW, **megapixels("paper", speeds)},
        "ratio": {kind: round(value, 1) for kind, value in ratio.items()},
        "bars": {
            f"compact segments >= {COMPACT_BAR} megapixels a second": {
                kind: median["compact", kind] >= COMPACT_BAR for kind in ratio
            },
            f"compact / paper >= {RATIO_BAR:g}": {kind: ratio[kind] >= RATIO_BAR for kind in ratio},
        },
    }
    print(json.dumps(report, indent=2))


def megapixels(name: str, speeds: dict[tuple[str, str], list[float]]) -> dict[str, object]:
    """Medians and ranges of one network, in megapixels a second."""
    result: dict[str, object] = {}
    for kind in ("forward", "region"):
        values = speeds[name, kind]
        result[f"{kind}_megapixels_per_second"] = round(statistics.median(values), 4)
        result[f"{kind}_range"] = [round(min(values), 4), round(max(values), 4)]
    return result


if __name__ == "__main__":
    main()
