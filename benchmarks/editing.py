"""Correcting in the middle of a slide of 100,000 x 100,000 pixels: strokes, commits, moves, the overview.

    xvfb-run -a -s "-screen 0 2200x1500x24" python benchmarks/editing.py [--json OUT]

Real mouse events in a real napari window over a lazy synthetic slide, in a session folder that is removed
afterwards. Times are in milliseconds, on the clock and (cpu) of the thread alone, which says more on a
machine that has other work. "handlers" is what the event handlers of a stroke take (press, every
move, release, and sending the stroke to be written), without drawing, and "showing" what it takes to
replace the window's pixels after a move, and "stall" the longest time between two turns of the event loop,
with drawing. Bars: handlers of a stroke of 30 px radius under 16 ms at the 95th
percentile; a commit of a 2048 x 2048 window, on all layers, under 150 ms, and off the main thread.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import napari
import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QPointF, Qt, QTimer
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication, QWidget

from napari_genselfdiff.geometry import Region
from napari_genselfdiff.slides import slide_from_arrays
from napari_genselfdiff.widgets.demo import settle, wait_for
from napari_genselfdiff.widgets.dock import GenSelfDiffDock
from napari_genselfdiff.widgets.slides import add_slide

SIDE = 100_000
RADIUS = 30
HANDLERS_BAR, COMMIT_BAR = 16.0, 150.0


@dataclass(frozen=True)
class Spent:
    """Milliseconds on the clock, and of the calling thread's own time."""

    clock: float
    cpu: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.clock + other.clock, self.cpu + other.cpu)


class Bench:
    """One dock over one huge slide."""

    def __init__(self, viewer: napari.Viewer, folder: Path) -> None:
        self.viewer = viewer
        self.dock = GenSelfDiffDock(viewer, folder)
        viewer.window.add_dock_widget(self.dock, name="GenSelfDiff", area="right")
        window = self.dock.window()
        assert window is not None
        window.resize(2200, 1500)
        self.image = add_slide(viewer, _slide())
        settle()
        widgets = window.findChildren(QWidget)
        (self.canvas,) = [part for part in widgets if type(part).__name__ == "CanvasBackendDesktop"]
        assert self.dock.session is not None
        self.annotations = self.dock.session.annotations

    def look(self, y: float, x: float, zoom: float) -> None:
        """Bring a level-0 pixel to the middle; ``zoom`` in screen pixels a level-0 pixel."""
        self.viewer.scene.camera.center = tuple(self.image.data_to_world((y, x)))
        self.viewer.scene.camera.zoom = zoom / self.image.scale[-1]

    def mouse(self, kind: QEvent.Type, y: float, x: float, *, pressed: bool) -> Spent:
        """Send an event at a level-0 pixel; returns how long its handlers took."""
        camera = self.viewer.scene.camera
        offset = np.array(self.image.data_to_world((y, x))) - np.array(camera.center[-2:])
        down, across = np.array([self.canvas.height(), self.canvas.width()]) / 2 + offset * camera.zoom
        place = QPointF(float(across), float(down))
        left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
        event = QMouseEvent(
            kind,
            place,
            QPointF(self.canvas.mapToGlobal(place)),
            none if kind == QEvent.Type.MouseMove else left,
            left if pressed else none,
            Qt.KeyboardModifier.NoModifier,
        )
        return _spent(lambda: QApplication.sendEvent(self.canvas, event))[0]

    def strokes(self, count: int, moves: int = 20) -> dict[str, Any]:
        """Draw short curved strokes around the middle of the slide."""
        window = self.dock.editing
        assert window is not None
        window.layer.brush_size = 2 * RADIUS
        random = np.random.default_rng(0)
        events, whole, sending = [], [], []
        for stroke in range(count):
            window.layer.selected_label = stroke % 2
            y, x = SIDE / 2 + random.integers(-250, 250, 2)
            spent = [self.mouse(QEvent.Type.MouseButtonPress, y, x, pressed=True)]
            for _ in range(moves):
                y, x = np.array([y, x]) + random.integers(-15, 16, 2)
                QApplication.processEvents()  # drawn, as between the events of a real mouse
                spent.append(self.mouse(QEvent.Type.MouseMove, y, x, pressed=True))
            spent.append(self.mouse(QEvent.Type.MouseButtonRelease, y, x, pressed=False))
            sending.append(_spent(window.commit)[0])
            events += [*spent[:-1], spent[-1] + sending[-1]]
            whole.append(sum(spent[1:], spent[0]) + sending[-1])
            QApplication.processEvents()
        self._finish()
        return {
            "radius_px": RADIUS,
            "handlers": _told(events),
            "sending": _told(sending),
            "all_of_a_stroke": _told(whole),
            "records": self.annotations.position,
        }

    def commits(self, count: int) -> dict[str, Any]:
        """Change every pixel of the largest window, again and again."""
        window = self.dock.editing
        assert window is not None
        rows, columns = np.mgrid[: window.place.height, : window.place.width]
        nuclei = ((rows % 40 - 20) ** 2 + (columns % 44 - 22) ** 2 < 90).astype(np.uint8)
        main, written, threads = [], [], set()
        stroke = self.annotations.stroke

        def timed(*args: Any) -> Any:
            threads.add(threading.current_thread() is threading.main_thread())
            spent, change = _spent(lambda: stroke(*args))
            written.append(spent)
            return change

        vars(self.annotations)["stroke"] = timed
        for turn in range(count):
            window.layer.data[:] = nuclei if turn % 2 == 0 else 1 - nuclei
            main.append(_spent(window.commit)[0])
            self._finish()
        del vars(self.annotations)["stroke"]
        size = [window.place.height, window.place.width]
        return {
            "window": size,
            "written": _told(written),
            "main_thread": _told(main),
            "off_the_main_thread": threads == {False},
        }

    def moves(self, count: int) -> dict[str, Any]:
        """Look at places some way off, and wait for the window to follow."""
        window = self.dock.editing
        assert window is not None
        after, longest, showing = [], [], []
        show = window._show
        vars(window)["_show"] = lambda *args: showing.append(_spent(lambda: show(*args))[0])
        for turn in range(count):
            place = window.place
            with _stalls() as stalls:
                self.look(SIDE / 2 + 1200 * (turn + 1), SIDE / 2, (1.0, 0.5, 0.1)[turn % 3])
                started = time.perf_counter()
                wait_for(lambda place=place: window.place is not place)  # type: ignore[misc]
                after.append(Spent(1e3 * (time.perf_counter() - started)))
                settle()
            longest.append(Spent(stalls[0]))
        del vars(window)["_show"]
        return {"followed_after": _told(after), "showing": _told(showing), "stall": _told(longest)}

    def overview(self) -> dict[str, Any]:
        """Fill the whole overview over everything that was drawn; take it back, do it again."""
        window = self.dock.editing
        assert window is not None
        self.look(SIDE / 2, SIDE / 2, min(self.canvas.height(), self.canvas.width()) / SIDE)
        wait_for(lambda: window.place.layer > 5)
        self._finish()
        settle()
        journal = self.annotations.folder / "journal.ndjson"
        fine = len(self.annotations.store.chunks.keys("own/0"))
        before = journal.stat().st_size
        window.layer.data[:] = 1
        times = {}
        for name, step in (
            ("fill", window.commit),
            ("undo", self.annotations.undo),
            ("redo", self.annotations.redo),
        ):
            started = time.perf_counter()
            step()
            self._finish()
            times[name] = round(1e3 * (time.perf_counter() - started), 1)
            if name == "fill":
                size = journal.stat().st_size - before
        seen = self.annotations.read(0, Region(SIDE - 100, 7, 100, 100))
        return {
            **times,
            "window_layer": window.place.layer,
            "fine_chunks_under_it": fine,
            "journal_bytes": size,
            "filled_everywhere": bool((seen == 2).all()),
        }

    def _finish(self) -> None:
        assert self.dock.layers is not None
        self.dock.layers.finish_edits()


@contextmanager
def _stalls() -> Iterator[list[float]]:
    """Longest time between two turns of the event loop, in milliseconds, in a list of one."""
    longest, last = [0.0], time.perf_counter()

    def tick() -> None:
        nonlocal last
        now = time.perf_counter()
        longest[0] = max(longest[0], 1e3 * (now - last))
        last = now

    timer = QTimer()
    timer.timeout.connect(tick)
    timer.start(1)
    try:
        yield longest
    finally:
        timer.stop()


def _slide() -> Any:
    """A slide of pink tissue with dark stripes, computed where it is looked at."""

    def tile(block_info: Any = None, step: int = 1) -> NDArray[np.uint8]:
        (top, bottom), (left, right), _ = block_info[None]["array-location"]
        rows, columns = np.ogrid[top:bottom, left:right]
        dark = (rows * step // 64 + columns * step // 64) % 2 == 0
        purple, pink = (np.array(color, np.uint8) for color in ((150, 90, 160), (235, 190, 215)))
        return np.where(dark[..., None], purple, pink)

    levels = []
    step = 1
    while SIDE // step > 256:
        side = SIDE // step
        sides = (512,) * (side // 512) + ((side % 512,) if side % 512 else ())
        blocks = da.map_blocks(tile, chunks=(sides, sides, (3,)), dtype=np.uint8, step=step)  # type: ignore[no-untyped-call]
        levels.append(blocks)
        step *= 4
    return slide_from_arrays(levels, name="synthetic", mpp=0.25)


def _spent(work: Callable[[], Any]) -> tuple[Spent, Any]:
    started, used = time.perf_counter(), time.thread_time()
    result = work()
    return Spent(1e3 * (time.perf_counter() - started), 1e3 * (time.thread_time() - used)), result


def _told(times: list[Spent]) -> dict[str, float]:
    clock, cpu = np.sort([spent.clock for spent in times]), np.sort([spent.cpu for spent in times])
    told = {
        "median": float(np.median(clock)),
        "p95": float(np.quantile(clock, 0.95)),
        "worst": float(clock[-1]),
    }
    if cpu.any():
        told |= {"cpu_median": float(np.median(cpu)), "cpu_p95": float(np.quantile(cpu, 0.95))}
    return {name: round(value, 2) for name, value in told.items()} | {"n": len(times)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--strokes", type=int, default=30)
    parser.add_argument("--commits", type=int, default=10)
    parser.add_argument("--moves", type=int, default=9)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GENSELFDIFF_HOME"] = str(Path(folder) / "home")
        viewer = napari.Viewer(show=True)
        bench = Bench(viewer, Path(folder) / "session")
        bench.look(SIDE / 2, SIDE / 2, 1.0)
        bench.dock.correct_here()
        settle()
        numbers: dict[str, Any] = {"slide": [SIDE, SIDE], "load": [round(x, 1) for x in os.getloadavg()]}
        steps: tuple[tuple[str, Callable[[], dict[str, Any]]], ...] = (
            ("stroke", lambda: bench.strokes(arguments.strokes)),
            ("commit", lambda: bench.commits(arguments.commits)),
            ("move", lambda: bench.moves(arguments.moves)),
            ("overview", bench.overview),
        )
        for name, step in steps:
            numbers[name] = step()
        numbers["bars"] = {
            "handlers": numbers["stroke"]["handlers"]["p95"] < HANDLERS_BAR,
            "commit": numbers["commit"]["written"]["p95"] < COMMIT_BAR
            and numbers["commit"]["off_the_main_thread"],
        }
        bench.dock.shut()
        viewer.close()
    text = json.dumps(numbers, indent=1)
    sys.stdout.write(text + "\n")
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
