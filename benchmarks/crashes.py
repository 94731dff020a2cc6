"""Crashes: a session after kill -9 at random moments, and after simulated power cuts.

    python benchmarks/crashes.py                      # a hundred of each; about ten minutes
    python benchmarks/crashes.py --kills 4 --cuts 8   # does the script work?

A pathologist without a window (`drawing.py`) works on real sessions in a process of its own: strokes,
accepted views, undo, redo, fine-tunes in a second thread, segmentations, checkpoints, saves, ends, restarts.

*Kills.* The process is killed within a phase that is drawn by lot, several times a session in a row, so that
recoveries are killed too. What it said it had drawn must be there.

*Power cuts.* Its file operations are recorded (`recorder.py`), and the folder is built as of random moments
without what was not yet synced (`powercut.py`). What was drawn a second before the moment must be there.

After each: the session opens for writing, the picture is the one that was drawn, views at all magnifications
follow from the journal, the chain of hashes holds, undo and redo work, versions are there and load.
Linux only.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded

import argparse
import json
import pickle
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from drawing import examine, make_library, work
from powercut import after_cut, write_out
from recorder import Recorder

PHASES = ("opening", "painting", "fine-tuning", "adopting", "checkpoint", "saving", "segmenting", "closing")
KILLS_A_SESSION = 10
CUTS_A_RUN = 25
GRACE = 1.0  # seconds before a power cut that may be lost


class Child:
    """A forked process that tells lines, each with its moment.

    Parameters
    ----------
    task : callable
        Gets a function that tells.
    """

    def __init__(self, task: Callable[[Callable[..., None]], None]) -> None:
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            status = 1
            try:

                def tell(*words: Any) -> None:
                    line = " ".join(map(str, (time.monotonic(), *words)))
                    os.write(writing, f"{line}\n".encode())

                task(tell)
                status = 0
            except BaseException:  # noqa: BLE001 - the process ends here, whatever it was
                import traceback

                traceback.print_exc()
            os._exit(status)
        os.close(writing)
        self._pipe = reading
        self._rest = b""
        self.lines: list[tuple[float, str, str]] = []

    def read(self, until: float) -> bool:
        """Read lines until a moment or the end; returns whether the end came."""
        while (left := until - time.monotonic()) > 0:
            if not select.select([self._pipe], [], [], left)[0]:
                return False
            block = os.read(self._pipe, 1 << 16)
            if not block:
                return True
            *lines, self._rest = (self._rest + block).split(b"\n")
            for line in lines:
                moment, word, value = line.decode().split(" ", 2)
                self.lines.append((float(moment), word, value))
        return False

    def end(self, *, kill: bool = False) -> int:
        """Wait for its end, or bring it about; everything that it told is read."""
        if kill:
            os.kill(self.pid, signal.SIGKILL)
        while not self.read(time.monotonic() + 3600):
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self._pipe)
        return os.waitstatus_to_exitcode(status)

    def last(self, word: str, *, before: float = float("inf")) -> list[str]:
        """Values of a word that were told before a moment."""
        return [value for moment, told, value in self.lines if told == word and moment <= before]


def examined(folder: Path, seed: int, *, drawn: int, adopted: set[str]) -> dict[str, Any]:
    """Examine in a process of its own."""
    child = Child(lambda tell: tell("found", json.dumps(examine(folder, seed, drawn=drawn, adopted=adopted))))
    status = child.end()
    found = child.last("found")
    if not found:
        return {"position": 0, "recovered": "", "problems": [f"the examination ended with status {status}"]}
    result: dict[str, Any] = json.loads(found[0])
    return result


def kills(count: int, seed: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Kill sessions at work."""
    random = np.random.default_rng([seed, 1])
    drawn, adopted = 0, set[str]()
    for number in range(count):
        session = folder / f"killed-{number // KILLS_A_SESSION}"
        if number % KILLS_A_SESSION == 0:
            drawn, adopted = 0, set()
        phase = PHASES[number % len(PHASES)]
        wait = float(random.exponential(0.05 if phase != "fine-tuning" else 0.2))
        run = seed + number // KILLS_A_SESSION
        child = Child(partial(work, session, run, 600))
        # The phase is waited for a random number of times, so that there is something to lose.
        wanted = int(random.integers(1, 3)) if phase != "opening" else 1
        limit = time.monotonic() + 60
        while child.last("phase").count(phase) < wanted and time.monotonic() < limit:
            if child.read(time.monotonic() + 0.002):
                break
        child.read(time.monotonic() + wait)
        status = child.end(kill=True)
        drawn = max([drawn, *map(int, child.last("drawn"))])
        adopted |= set(child.last("adopted"))
        session.mkdir(exist_ok=True)
        result = examined(session, run, drawn=drawn, adopted=adopted)
        if status != -signal.SIGKILL:
            result["problems"].append(f"the work ended by itself with status {status}")
        yield {"phase": phase, "told": drawn, **result}


def recorded(session: Path, seed: int, seconds: float, log: Path) -> Child:
    """Work with all file operations recorded into a log."""

    def task(tell: Callable[..., None]) -> None:
        recorder = Recorder(session.parent)
        recorder.install()
        work(session, seed, seconds, tell)
        recorder.uninstall()
        tell("missed", json.dumps([name for name in recorder.missed() if not name.endswith(".lock")]))
        recorder.save(log)

    child = Child(task)
    status = child.end()
    if status or not child.last("missed"):
        raise SystemExit(f"the recorded work ended with status {status}")
    return child


def cuts(count: int, seed: int, seconds: float, folder: Path) -> Iterator[dict[str, Any]]:
    """Cut the power."""
    random = np.random.default_rng([seed, 2])
    for number in range(count):
        if number % CUTS_A_RUN == 0:
            root = folder / f"recorded-{number // CUTS_A_RUN}"
            root.mkdir()
            log = folder / "log.pickle"
            run = seed + 1000 + number // CUTS_A_RUN
            child = recorded(root / "session", run, seconds, log)
            operations = pickle.loads(log.read_bytes())
            missed = json.loads(child.last("missed")[0])
            began, ended = operations[0].moment, operations[-1].moment
        # By the clock, which a fine-tune takes most of, or where much is written.
        moment = float(random.uniform(began, ended))
        if number % 2:
            moment = operations[int(random.integers(len(operations)))].moment
        cut = folder / "cut"
        cut.mkdir()
        write_out(after_cut(operations, moment, random), cut)
        must = [int(value) for value in child.last("drawn", before=moment - GRACE)]
        told = [int(value) for value in child.last("drawn", before=moment)]
        adopted = set(child.last("adopted", before=moment - GRACE))
        session = cut / "session"
        session.mkdir(exist_ok=True)  # a session whose folder never reached the disk starts anew
        result = examined(session, run, drawn=max(must, default=0), adopted=adopted)
        if missed:
            result["problems"].append(f"the recorder missed writes to {missed}")
        lost = [
            at
            for at, word, value in child.lines
            if word == "drawn" and int(value) > result["position"] and at <= moment
        ]
        shutil.rmtree(cut)
        yield {
            "phase": [value for at, word, value in child.lines if word == "phase" and at <= moment][-1],
            "told": max(told, default=0),
            "seconds_lost": round(moment - min(lost), 3) if lost else 0.0,
            "operations": len(operations),
            **result,
        }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the rows say together."""
    return {
        "count": len(rows),
        "without a problem": sum(not row["problems"] for row in rows),
        "phases": dict(Counter(row["phase"] for row in rows)),
        "edits at the end": int(np.median([row["position"] for row in rows])) if rows else 0,
        "recoveries": sum(bool(row["recovered"]) for row in rows),
        "most seconds lost": max((row.get("seconds_lost", 0.0) for row in rows), default=0.0),
    }


def main() -> int:
    """Run, print and save; the status is 1 if a single session was not as it must be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=12.0, help="length of a recorded run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a JSON file")
    options = parser.parse_args()
    rows: dict[str, list[dict[str, Any]]] = {"kills": [], "cuts": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["GENSELFDIFF_HOME"] = str(folder / "home")
        Child(lambda tell: make_library(folder / "home")).end()
        work_of = {
            "kills": kills(options.kills, options.seed, folder),
            "cuts": cuts(options.cuts, options.seed, options.seconds, folder),
        }
        for kind, found in work_of.items():
            for row in found:
                rows[kind].append(row)
                print(kind, len(rows[kind]), json.dumps(row), flush=True)
    results = {kind: {**summary(found), "rows": found} for kind, found in rows.items()}
    for kind, result in results.items():
        print(kind, json.dumps({key: value for key, value in result.items() if key != "rows"}))
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n")
    return int(any(row["problems"] for found in rows.values() for row in found))


if __name__ == "__main__":
    sys.exit(main())
