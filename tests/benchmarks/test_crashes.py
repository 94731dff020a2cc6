"""A few of the crashes that ``benchmarks/crashes.py`` brings about by the hundred."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from napari_genselfdiff.annotations import Annotations
from napari_genselfdiff.files import atomic_path, make_folder, write_text
from napari_genselfdiff.geometry import Region

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="paths of open files are asked of /proc")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from drawing import SHAPE, Expected  # noqa: E402
from powercut import Operation, after_cut, contents, write_out  # noqa: E402
from recorder import Recorder  # noqa: E402

SEEDS = range(40)


def possible(operations: list[Operation]) -> set[tuple[tuple[str, bytes], ...]]:
    """Disks that forty power cuts leave at the end."""
    cuts = (after_cut(operations, float("inf"), np.random.default_rng(seed)) for seed in SEEDS)
    return {tuple(sorted(contents(disk).items())) for disk in cuts}


def test_what_was_not_synced_may_be_lost_and_what_was_is_not() -> None:
    new = [Operation("link", 1, name="a"), Operation("write", 1, data=b"hello")]
    assert {(), (("a", b""),), (("a", b"hello"),)} <= possible(new)
    content = [*new, Operation("sync", 1, at=2)]
    assert possible(content) == {(), (("a", b"hello"),)}
    name = [*content, Operation("sync", 0, at=3)]
    assert possible(name) == {(("a", b"hello"),)}
    more = [*name, Operation("write", 1, at=5, data=b" there")]
    assert {(("a", b"hello"),), (("a", b"hello there"),), (("a", b"hello" + bytes(6)),)} <= possible(more)


def test_a_rename_happens_or_does_not_and_may_come_before_the_content() -> None:
    old = [Operation("link", 1, name="a"), Operation("write", 1, data=b"old"), Operation("sync", 1, at=2)]
    new = [Operation("link", 2, name="t"), Operation("write", 2, data=b"new"), Operation("sync", 0, at=5)]
    rename = Operation("rename", 2, name="a", was=(0, "t"))
    left = possible([*old, *new, rename])
    assert {dict(files)["a"] for files in left} >= {b"old", b"new", b""}
    assert (("a", b"new"), ("t", b"new")) not in left
    left = possible([*old, *new, Operation("sync", 2, at=6), rename])
    assert {dict(files)["a"] for files in left} == {b"old", b"new"}


def test_a_file_that_is_written_whole_is_the_old_or_the_new_one_wherever_it_lies(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.install()
    try:
        write_text(tmp_path / "new" / "folder" / "file", "old")
        before = len(recorder.operations)
        write_text(tmp_path / "new" / "folder" / "file", "new")
    finally:
        recorder.uninstall()
    assert recorder.missed() == []
    for count in range(before, len(recorder.operations) + 1):
        for files in possible(recorder.operations[:count]):
            assert dict(files)["new/folder/file"] in (b"old", b"new")
    assert {dict(files)["new/folder/file"] for files in possible(recorder.operations)} == {b"new"}


def test_the_recorder_sees_what_other_languages_write_into_files_that_are_synced(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.install()
    try:
        make_folder(tmp_path / "a")
        with atomic_path(tmp_path / "a" / "file") as temporary:
            subprocess.run(["cp", __file__, temporary], check=True)
    finally:
        recorder.uninstall()
    assert recorder.missed() == []
    assert possible(recorder.operations) == {(("a/file", Path(__file__).read_bytes()),)}


def test_annotations_survive_power_cuts_with_all_that_was_durable(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    durable: list[tuple[int, int]] = []  # operations so far, and edits that are safe with them
    recorder = Recorder(root)
    recorder.install()
    try:
        for _ in range(2):
            with Annotations.open(root / "annotations", shape=SHAPE, slide_id="slide") as session:
                expected = Expected(7).forward(session.position)
                for number in range(16):
                    expected.step(session)
                    if number % 3 == 2:
                        session.flush()
                        durable.append((len(recorder.operations), expected.position))
                    if number == 9:
                        session.checkpoint()
    finally:
        recorder.uninstall()
    assert recorder.missed() == []
    random = np.random.default_rng(7)
    recovered = 0
    for _ in range(12):
        count = int(random.integers(len(recorder.operations)))
        disk = after_cut(recorder.operations[:count], float("inf"), random)
        with tempfile.TemporaryDirectory(dir=tmp_path) as cut:
            write_out(disk, Path(cut))
            with Annotations.open(Path(cut, "annotations"), shape=SHAPE, slide_id="slide") as session:
                recovered += session.recovered is not None
                assert session.position >= max((edits for at, edits in durable if at <= count), default=0)
                expected = Expected(7).forward(session.position)
                assert np.array_equal(session.read(0, Region(0, 0, *SHAPE)), expected.image)
                assert session.verify().ok
                if expected.can_undo:
                    expected.undo(session)
                    assert np.array_equal(session.read(0, Region(0, 0, *SHAPE)), expected.image)
    assert recovered >= 6


def test_sessions_survive_kills_and_power_cuts(tmp_path: Path) -> None:
    output = tmp_path / "crashes.json"
    arguments = ["--kills", "3", "--cuts", "3", "--seconds", "3", "--seed", "11", "--output", str(output)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "crashes.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(output.read_text())
    assert results["kills"]["without a problem"] == 3
    assert results["cuts"]["without a problem"] == 3
    assert results["kills"]["rows"][-1]["position"] > 0
