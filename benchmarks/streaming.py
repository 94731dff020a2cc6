"""Segmenting a slide of any size: from the click to the overlay, throughput, memory. Prints JSON.

    xvfb-run -a python benchmarks/streaming.py SLIDE --clicks 5
    python benchmarks/streaming.py SLIDE --cells 16
    python benchmarks/streaming.py SLIDE SMALLER_SLIDE --memory 64

``--clicks``: at so many places of the slide a view of about 1,500 x 1,000 screen pixels at the model's
resolution is segmented by the dock's button; seconds until the first tile is in the overlay, and until the
view is complete.

``--cells``: so many cells of tissue are segmented into a store, reading and writing included, in turns with
the bare network on as many windows in memory.

``--memory``: each slide is segmented in a process of its own, so many cells (a cell is 16 tiles of 256 x 256
pixels); its largest resident memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_genselfdiff.compute import choose_compute
from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.events import CancelToken, TileDone
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models.library import resolve
from napari_genselfdiff.segmentation.network import load_segmenter
from napari_genselfdiff.segmentation.store import CELL, PredictionStore
from napari_genselfdiff.slides import Slide, open_slide
from napari_genselfdiff.slides.tissue import SlideTissue
from napari_genselfdiff.verbs.streaming import stream_region

VIEW = (1500, 1000)
TURNS = 3


def tissue_places(slide: Slide, count: int, seed: int = 0) -> list[tuple[float, float]]:
    """Level-0 places on tissue."""
    mask = SlideTissue(slide).find()
    rows, columns = np.nonzero(mask.mask)
    picked = np.random.default_rng(seed).integers(len(rows), size=count)
    return [((rows[i] + 0.5) * mask.downsample, (columns[i] + 0.5) * mask.downsample) for i in picked]


def clicks(path: Path, count: int) -> dict[str, Any]:
    """From the click to the overlay, at places of the slide."""
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_genselfdiff.widgets.dock import GenSelfDiffDock

    def until(true: Callable[[], bool]) -> None:
        while not true():
            QApplication.processEvents()
            time.sleep(0.002)  # an event loop that waits: one that spins takes a core from the network

    def wait(seconds: float) -> None:
        end = time.perf_counter() + seconds
        until(lambda: time.perf_counter() > end)

    first, whole = [], []
    with tempfile.TemporaryDirectory() as folder:
        viewer = napari.Viewer(show=True)
        dock = GenSelfDiffDock(viewer, Path(folder))
        viewer.window.add_dock_widget(dock)
        viewer.window.resize(VIEW[0] + 700, VIEW[1] + 200)
        dock.open_slide(path)
        session, layers = dock.session, dock.layers
        assert session is not None
        assert layers is not None
        scale = session.scale()
        shown: list[float] = []
        # After the overlay was told to draw what has come.
        dock.segmenting._soon.timeout.connect(lambda: shown.append(time.perf_counter()))
        sides: list[list[int]] = []
        for y, x in tissue_places(session.slide, count):
            viewer.scene.camera.zoom = 1 / (scale * layers.image.scale[-1])
            viewer.scene.camera.center = layers.image.data_to_world((y, x))
            wait(1)
            region = layers.visible_region()
            assert region is not None
            sides.append([round(region.height / scale), round(region.width / scale)])
            shown.clear()
            start = time.perf_counter()
            dock.segment_section.segment_button.click()
            until(lambda: bool(shown))
            first.append(shown[0] - start)
            until(lambda: dock.job is None)
            whole.append(time.perf_counter() - start)
        dock.shut()
        viewer.close()
    return {
        "view_pixels": sides[0],
        "first_tile_seconds": summary(first),
        "view_seconds": summary(whole),
    }


def summary(values: list[float]) -> dict[str, float]:
    """Median and maximum."""
    return {"median": round(float(np.median(values)), 2), "max": round(max(values), 2)}


def throughput(path: Path, cells: int) -> dict[str, Any]:
    """Megapixels a second, into a store and of the network alone, in turns."""
    import torch

    slide, compute = open_slide(path), choose_compute("cpu")
    segmenter = load_segmenter(resolve("nuclei"))
    scale = segmenter.spec.scale_for(slide.mpp, path)
    place = tissue_places(slide, 1)[0]
    top, left = (int(side / scale) // CELL * CELL for side in place)
    side = int(np.sqrt(cells))
    length = int(side * CELL * scale)
    region = Region(int(top * scale), int(left * scale), length, length)
    reach = segmenter.spec.config.reach
    window = slide.read_scaled(top, left, CELL + 2 * reach, CELL + 2 * reach, scale=scale)
    fast = segmenter.to(compute.apply()).for_inference()
    streamed, bare = [], []
    for _ in range(TURNS):
        with tempfile.TemporaryDirectory() as folder:
            store = PredictionStore(Path(folder) / "p", slide.shape, scale)
            start = time.perf_counter()
            done = sum(
                event.labels.size
                for event in stream_region(segmenter, slide, region, store, compute=compute)
                if isinstance(event, TileDone)
            )
            streamed.append(done / (time.perf_counter() - start) / 1e6)
        start = time.perf_counter()
        with torch.inference_mode():
            for _ in range(side * side):
                fast(to_unit_range(window[None]), margin=reach)
        bare.append(side * side * CELL * CELL / (time.perf_counter() - start) / 1e6)
    a, b = float(np.median(streamed)), float(np.median(bare))
    return {"streamed_mpx_per_s": round(a, 2), "network_mpx_per_s": round(b, 2), "share": round(a / b, 3)}


def largest_memory(path: Path, cells: int) -> float:
    """Megabytes that a process has needed after so many cells of tissue."""
    slide, compute, cancel = open_slide(path), choose_compute("cpu"), CancelToken()
    segmenter = load_segmenter(resolve("nuclei"))
    scale = segmenter.spec.scale_for(slide.mpp, path)
    done = 0
    with tempfile.TemporaryDirectory() as folder:
        store = PredictionStore(Path(folder) / "p", slide.shape, scale)
        whole = Region(0, 0, *slide.shape)
        tissue = SlideTissue(slide).find()
        for event in stream_region(
            segmenter, slide, whole, store, compute=compute, tissue=tissue, cancel=cancel
        ):
            done += isinstance(event, TileDone)
            if done >= cells:
                cancel.cancel()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("slides", type=Path, nargs="+")
    parser.add_argument("--clicks", type=int, default=0)
    parser.add_argument("--cells", type=int, default=0)
    parser.add_argument("--memory", type=int, default=0)
    parser.add_argument("--memory-here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_here:
        print(largest_memory(arguments.slides[0], arguments.memory))
        return
    result: dict[str, Any] = {"slide": arguments.slides[0].name}
    if arguments.clicks:
        result |= clicks(arguments.slides[0], arguments.clicks)
    if arguments.cells:
        result |= throughput(arguments.slides[0], arguments.cells)
    if arguments.memory:
        result["memory_mb"] = {
            slide.name: round(
                float(
                    subprocess.run(
                        [sys.executable, __file__, slide, "--memory", str(arguments.memory), "--memory-here"],
                        check=True,
                        capture_output=True,
                        text=True,
                    ).stdout
                )
            )
            for slide in arguments.slides
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
