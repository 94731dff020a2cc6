"""How a slide of any size feels: opening, panning and zooming, sharpness, memory. Prints JSON.

    xvfb-run -a python benchmarks/viewing.py SLIDE

A window of 1,500 x 1,000 pixels shows the slide; a tour of ``--moves`` pans and zooms runs over it, with a
cold cache. The time of a move ends when the frame that shows it is drawn. ``--jumps`` jumps to other places,
with an empty cache each, are timed until nothing coarser is left in the view. The same tour then runs over a
NumPy pyramid in memory of 16,384 pixels a side, in the same window: what drawing takes by itself.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.layers import Image
from numpy.typing import NDArray
from qtpy.QtWidgets import QApplication

from napari_genselfdiff.contributions import as_layer
from napari_genselfdiff.slides import open_slide
from napari_genselfdiff.slides.cache import TILES

SIZE = (1500, 1000)
DWELL = 0.03
"""Seconds between two moves in which events are handled, as between two steps of a mouse."""
BASELINE_SIDE = 16_384


class Window:
    """A napari window whose frames are counted."""

    def __init__(self) -> None:
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(SIZE[0] + 400, SIZE[1] + 200)
        self.frames, self.last_frame = 0, 0.0
        # Not public, and the only way to know that a frame was drawn.
        canvas = self.viewer.window._qt_viewer.canvas
        canvas._scene_canvas.events.draw.connect(self._drawn, position="last")
        self.settle(0.5)

    def _drawn(self, _event: Any) -> None:
        self.frames += 1
        self.last_frame = time.perf_counter()

    def settle(self, seconds: float) -> None:
        """Handle events for a while."""
        end = time.perf_counter() + seconds
        self.until(lambda: time.perf_counter() >= end, seconds)

    def until(self, true: Callable[[], bool], limit: float = 30.0) -> float:
        """Handle events until something holds; returns the seconds."""
        start = time.perf_counter()
        while not true() and time.perf_counter() - start < limit:
            QApplication.processEvents()
            time.sleep(0.001)  # an event loop that waits: one that spins takes a core from the decoders
        return time.perf_counter() - start

    def next_frame(self, limit: float = 30.0) -> None:
        """Handle events until something is drawn."""
        before = self.frames
        self.until(lambda: self.frames > before, limit)

    def move(self, change: Callable[[], None]) -> float:
        """Seconds from a change of the camera to the next frame."""
        start = time.perf_counter()
        change()
        self.next_frame()
        return time.perf_counter() - start


def tour(moves: int, seed: int = 0) -> Iterator[tuple[str, float, float]]:
    """Pans by a part of the view, and zooms by a part of an octave, in bursts."""
    rng = np.random.default_rng(seed)
    left = moves
    while left > 0:
        burst = min(left, int(rng.integers(4, 12)))
        if rng.random() < 0.6:
            angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.3)
            yield from [("pan", length * np.sin(angle), length * np.cos(angle))] * burst
        else:
            yield from [("zoom", float(rng.choice([0.8, 1.25])), 0.0)] * burst
        left -= burst


def travel(window: Window, layer: Image, moves: int, on_move: Callable[[], None]) -> list[float]:
    """Make the tour over a layer; seconds of each move."""
    camera = window.viewer.scene.camera
    window.viewer.reset_view()
    window.settle(1.0)
    pixel = float(layer.scale[-1])
    extent = np.array(layer.data[0].shape[:2]) * pixel
    farthest, nearest = float(camera.zoom), 2.0 / pixel
    camera.zoom = np.sqrt(farthest * nearest)
    window.settle(1.0)
    times = []
    for what, a, b in tour(moves):

        def change(what: str = what, a: float = a, b: float = b) -> None:
            if what == "zoom":
                zoom = camera.zoom * a
                camera.zoom = zoom if farthest <= zoom <= nearest else camera.zoom / a
                return
            step = np.array([a, b]) * SIZE[1] / camera.zoom
            middle = np.array(camera.center[-2:]) + step
            middle = np.where((middle < 0.1 * extent) | (middle > 0.9 * extent), middle - 2 * step, middle)
            camera.center = tuple(middle)

        times.append(window.move(change))
        on_move()
        window.settle(DWELL)
    return times


def jumps(window: Window, layer: Image, count: int) -> list[float]:
    """Seconds until places not seen before are sharp, each with an empty cache."""
    camera, view = window.viewer.scene.camera, layer.data[0].slide
    pixel = float(layer.scale[-1])
    extent = np.array(layer.data[0].shape[:2]) * pixel
    rng = np.random.default_rng(1)
    times = []
    for _ in range(count):
        window.until(view.is_idle)
        bound, TILES.max_bytes = TILES.max_bytes, 0
        TILES.max_bytes = bound
        place = tuple(rng.uniform(0.3, 0.7, 2) * extent)
        camera.zoom = float(2.0 ** rng.uniform(-4, 0.5)) / pixel
        start = time.perf_counter()
        camera.center = place
        window.next_frame()  # coarse
        window.until(lambda: view.is_sharp() and view.is_shown())
        window.settle(0.2)  # the frame that shows it, unless it was drawn already
        times.append(window.last_frame - start)
    return times


def baseline(side: int) -> list[NDArray[np.uint8]]:
    """A NumPy pyramid in memory."""
    rng = np.random.default_rng(0)
    levels = [rng.integers(0, 255, (side, side, 3), dtype=np.uint8)]
    while len(levels[-1]) > 1024:
        levels.append(np.ascontiguousarray(levels[-1][::2, ::2]))
    return levels


def milliseconds(times: list[float]) -> dict[str, float]:
    """Median, 95th percentile and maximum."""
    values = np.array(times) * 1000
    return {
        "median": round(float(np.median(values)), 1),
        "p95": round(float(np.percentile(values, 95)), 1),
        "max": round(float(values.max()), 1),
    }


def resident_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--moves", type=int, default=200)
    parser.add_argument("--jumps", type=int, default=40)
    arguments = parser.parse_args()
    window = Window()
    empty = resident_mb()
    before, start = window.frames, time.perf_counter()
    levels, options, _ = as_layer(open_slide(arguments.slide))
    layer = window.viewer.add_image(levels, **options)
    window.until(lambda: window.frames > before)
    opened = time.perf_counter() - start
    memory: list[float] = []
    times = travel(window, layer, arguments.moves, lambda: memory.append(resident_mb()))
    sharp = jumps(window, layer, arguments.jumps)
    window.viewer.layers.clear()
    plain = window.viewer.add_image(baseline(BASELINE_SIDE), rgb=True, multiscale=True)
    reference = travel(window, plain, arguments.moves, lambda: None)
    ours, theirs = milliseconds(times), milliseconds(reference)
    result = {
        "slide": arguments.slide.name,
        "shape": list(levels[0].shape[:2]),
        "open_seconds": round(opened, 2),
        "frame_ms": ours,
        "frame_ms_numpy": theirs,
        "ratio_p95": round(ours["p95"] / theirs["p95"], 2),
        "ratio_max": round(ours["max"] / theirs["max"], 2),
        "sharp_ms": milliseconds(sharp),
        "memory_mb": {"window": round(empty), "largest": round(max(memory)), "last": round(memory[-1])},
    }
    print(json.dumps(result, indent=1))
    window.viewer.close()


if __name__ == "__main__":
    main()
