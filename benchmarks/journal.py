"""How long a stroke, an accepted view, a start and a recovery take, and how much the journal holds.

    python benchmarks/journal.py                       # 10,000 strokes; some minutes
    python benchmarks/journal.py --strokes 200         # does the script work?

Bars: a stroke's record costs under 2 ms, a session of 10,000 strokes opens in under 3 s, its journal is under
50 MB. Nothing is left behind but the JSON file that ``--output`` names.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from napari_genselfdiff.annotations import Annotations, encode
from napari_genselfdiff.annotations.chunks import CHUNK
from napari_genselfdiff.annotations.delta import Patch
from napari_genselfdiff.annotations.journal import Journal
from napari_genselfdiff.geometry import Region

SHAPE = (100_000, 100_000)
RESULTS: dict[str, object] = {}
"""Everything that was printed, by what it is about."""


def disk(radius: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Make a round brush."""
    y, x = np.ogrid[-radius:radius, -radius:radius]
    return np.asarray(y * y + x * x < radius * radius)


def told(name: str, milliseconds: list[float]) -> None:
    """Print the median and the worst cases of a list of times."""
    values = np.sort(milliseconds)
    median, p95, worst = (float(v) for v in (np.median(values), values[int(0.95 * len(values))], values[-1]))
    print(f"{name:58s} median {median:7.2f}  p95 {p95:7.2f}  worst {worst:7.2f} ms  (n={len(values)})")
    times = {"median": median, "p95": p95, "worst": worst}
    RESULTS[f"{name}, ms"] = {key: round(value, 3) for key, value in times.items()} | {"n": len(values)}


def say(name: str, value: float, unit: str) -> None:
    """Print one number."""
    print(f"{name:58s} {value:.2f} {unit}")
    RESULTS[f"{name}, {unit}"] = round(value, 3)


def measure_journal(folder: Path, strokes: int) -> None:
    """Append, size and start of the journal alone."""
    random = np.random.default_rng(0)
    path = folder / "journal.ndjson"
    journal = Journal(path, slide_id="benchmark", author="benchmark")
    mask = disk(30)
    times, worked = [], []
    for _ in range(strokes):
        y, x = (int(value) for value in random.integers(0, 99_000, 2))
        # Half of the brush lies over an older stroke of another class.
        before = np.zeros(mask.shape, np.uint8)
        before[:, :30] = 2
        after = np.where(mask, np.uint8(1 + random.integers(1, 5)), before)
        patch = Patch.between(0, y, x, before, after)
        started, before = time.perf_counter(), time.thread_time()
        journal.append("stroke", layer=0, box=patch.box if patch else None, patches=[patch] if patch else [])
        times.append(1e3 * (time.perf_counter() - started))
        worked.append(1e3 * (time.thread_time() - before))
    journal.close()
    told("journal: append one 60 x 60 px stroke", times)
    told("journal: append one, processor time of the thread", worked)
    say("journal: size of all strokes", path.stat().st_size / 1e6, "MB")
    started = time.perf_counter()
    journal = Journal(path, slide_id="benchmark", author="benchmark")
    say("journal: opening it, chain of hashes checked", time.perf_counter() - started, "s")
    journal.close()


def measure_session(folder: Path, strokes: int) -> None:
    """Strokes, undo, views and starts of a whole session on a slide of 100,000 x 100,000 px."""
    random = np.random.default_rng(1)
    with Annotations.open(folder, shape=SHAPE, slide_id="benchmark") as session:
        mask = disk(30)
        times: dict[str, list[float]] = {"stroke": [], "coarse": [], "undo": [], "accept": [], "read": []}
        place = np.array([50_000, 50_000])
        for _ in range(strokes):
            place = np.clip(place + random.integers(-200, 201, 2), 0, 99_000)
            codes = np.full(mask.shape, encode(int(random.integers(0, 5))), np.uint8)
            started = time.perf_counter()
            session.stroke(0, int(place[0]), int(place[1]), codes, mask)
            times["stroke"].append(1e3 * (time.perf_counter() - started))
        for _ in range(20):
            y, x = (int(value) for value in random.integers(0, 900, 2))
            started = time.perf_counter()
            session.stroke(6, y, x, np.full((500, 500), 3, np.uint8), np.ones((500, 500), bool))
            times["coarse"].append(1e3 * (time.perf_counter() - started))
            started = time.perf_counter()
            session.undo()
            times["undo"].append(1e3 * (time.perf_counter() - started))
        labels = encode(random.integers(0, 4, (64, 64)).repeat(32, 0).repeat(32, 1))
        for index in range(5):
            box = Region(48_000 + 2048 * index, 48_000, 2048, 2048)
            started = time.perf_counter()
            session.accept(0, box, labels)
            times["accept"].append(1e3 * (time.perf_counter() - started))
        for layer in range(session.layers):
            side = min(2048, -(-SHAPE[0] >> layer))
            corner = max(0, (50_000 >> layer) - side // 2)
            started = time.perf_counter()
            session.read(layer, Region(corner, corner, side, side))
            times["read"].append(1e3 * (time.perf_counter() - started))
        told("session: stroke of 60 x 60 px at layer 0", times["stroke"])
        told("session: stroke of 500 x 500 px at layer 6 over all that", times["coarse"])
        told("session: undo of it", times["undo"])
        told("session: accept a view of 2048 x 2048 px", times["accept"])
        told("session: read a window of 2048 x 2048 px, all layers", times["read"])
        started = time.perf_counter()
        boxes = session.supervised_boxes()
        seconds = time.perf_counter() - started
        say(f"session: {len(boxes)} supervised boxes (chunks of {CHUNK} px)", seconds, "s")
        started = time.perf_counter()
    say("session: close", time.perf_counter() - started, "s")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    journal = (folder / "journal.ndjson").stat().st_size
    say("session: folder", size / 1e6, "MB")
    say("session: journal in it", journal / 1e6, "MB")
    session = started_after("a clean end", folder)
    for _ in range(100):
        y, x = (int(value) for value in random.integers(48_000, 52_000, 2))
        session.stroke(0, y, x, np.full(mask.shape, 3, np.uint8), mask)
    session.flush()
    crashed = folder.with_name("crashed")
    shutil.copytree(folder, crashed, ignore=shutil.ignore_patterns("session.lock"))
    session.close()
    started_after("a crash 100 strokes after the last checkpoint", crashed).close()
    shutil.rmtree(crashed / "edits")
    started_after("the loss of all stored pixels", crashed).close()


def started_after(name: str, folder: Path) -> Annotations:
    """Open a session and print how long it took."""
    started, worked = time.perf_counter(), time.process_time()
    session = Annotations.open(folder, shape=SHAPE, slide_id="benchmark")
    say(f"session: start after {name}", time.perf_counter() - started, "s")
    say(f"session: start after {name}, processor time", time.process_time() - worked, "s")
    return session


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--strokes", type=int, default=10_000)
    parser.add_argument("--output", type=Path, help="a JSON file")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.strokes} strokes")
    RESULTS["cores"], RESULTS["strokes"] = os.cpu_count(), options.strokes
    RESULTS["load at the start"] = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory() as folder:
        measure_journal(Path(folder) / "journal", options.strokes)
        measure_session(Path(folder) / "session", options.strokes)
    if options.output:
        options.output.write_text(json.dumps(RESULTS, indent=1) + "\n")


if __name__ == "__main__":
    main()
