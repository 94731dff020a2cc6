from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from napari_genselfdiff.annotations import journal as journal_module
from napari_genselfdiff.annotations.background import GroupedTask
from napari_genselfdiff.annotations.delta import Patch, pack, unpack
from napari_genselfdiff.annotations.journal import Journal, set_tail_aside
from napari_genselfdiff.annotations.records import scan
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.geometry import Region

IMAGES = array_shapes(min_dims=2, max_dims=2, max_side=12).flatmap(
    lambda shape: st.tuples(*[arrays(np.uint8, shape, elements=st.integers(0, 3))] * 2)
)


def patch(number: int = 1) -> Patch:
    image = np.zeros((3, 5), np.uint8)
    image[1, 1:4] = number
    made = Patch.between(0, 10, 20, np.zeros_like(image), image)
    assert made is not None
    return made


def filled(path: Path, records: int = 5) -> Journal:
    journal = Journal(path, slide_id="slide", author="Ágnes")
    for number in range(1, records + 1):
        made = patch(number)
        journal.append("stroke", layer=0, box=made.box, patches=[made])
    return journal


@given(st.lists(IMAGES, max_size=4))
def test_the_bytes_of_an_edit_come_back(images: list[tuple[np.ndarray, np.ndarray]]) -> None:
    made = [Patch.between(layer, 3, 4, *pair) for layer, pair in enumerate(images)]
    patches = [one for one in made if one is not None]
    again = unpack(pack(patches), [(one.layer, one.box) for one in patches])
    for one, other in zip(patches, again, strict=True):
        image = images[one.layer][0].copy()
        other.draw(image, Region(3, 4, *image.shape))
        assert np.array_equal(image, images[one.layer][1])
        other.swapped().draw(image, Region(3, 4, *image.shape))
        assert np.array_equal(image, images[one.layer][0])


def test_damaged_bytes_of_an_edit_are_refused() -> None:
    good = pack([patch()])
    for delta in (good[:-8], "!", pack([patch(), patch()])):
        with pytest.raises(ValueError, match="delta"):
            unpack(delta, [(0, patch().box)])


def test_every_record_says_who_when_and_where_and_names_the_one_before(tmp_path: Path) -> None:
    filled(tmp_path / "j", 3).close()
    records = [json.loads(line) for line in (tmp_path / "j").read_text(encoding="utf-8").splitlines()]
    assert [record["seq"] for record in records] == [1, 2, 3]
    assert {record["author"] for record in records} == {"Ágnes"}
    assert {record["slide"] for record in records} == {"slide"}
    assert records[0]["box"] == [11, 21, 1, 3]
    assert records[0]["time"].endswith("+00:00")
    assert records[0]["prev"] == "0" * 64
    assert len({record["prev"] for record in records}) == 3
    assert scan(tmp_path / "j").report.ok


def test_records_are_durable_within_a_second_without_being_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = threading.Event()
    journal = Journal(tmp_path / "j", slide_id="slide")
    fsync = os.fsync

    def observed(descriptor: int) -> None:
        fsync(descriptor)
        assert threading.current_thread() is not threading.main_thread()
        synced.set()

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", observed)
        journal.append("note", text="hello")
        assert synced.wait(timeout=10)
    assert journal_module._GROUPING < 1
    journal.flush()
    assert journal.durable == 1
    journal.close()


def test_many_requests_make_one_run_and_an_error_is_told_once() -> None:
    runs: list[str] = []
    ran = threading.Event()

    def task() -> None:
        runs.append(threading.current_thread().name)
        ran.set()
        raise UserError("no space")

    grouped = GroupedTask(task, delay=0.05, name="grouped")
    assert grouped.failure() is None
    for _ in range(50):
        grouped.request()
    assert ran.wait(timeout=10)
    grouped.close()
    assert runs == ["grouped"]
    assert isinstance(grouped.failure(), UserError)
    assert grouped.failure() is None


def test_a_cut_off_last_line_is_set_aside_and_everything_before_it_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.ndjson"
    filled(path).close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    found = scan(path)
    assert (found.report.records, found.report.line) == (4, 5)
    assert "cut off" in str(found.report.problem)
    with pytest.raises(UserError, match="damaged"):
        Journal(path, slide_id="slide")
    lines = whole.splitlines(keepends=True)
    assert set_tail_aside(path, found.good) == tmp_path / "journal.ndjson.damaged-1"
    assert (tmp_path / "journal.ndjson.damaged-1").read_bytes() == lines[4][:-7]
    assert path.read_bytes() == b"".join(lines[:4])
    journal = Journal(path, slide_id="slide")
    journal.append("note", text="goes on")
    assert journal.verify().ok
    journal.close()
    assert set_tail_aside(path, 0).name == "journal.ndjson.damaged-2"


@pytest.mark.parametrize("line", [0, 2, 3])
def test_a_changed_record_is_found(tmp_path: Path, line: int) -> None:
    path = tmp_path / "j"
    journal = filled(path)
    assert journal.verify().ok
    lines = path.read_bytes().splitlines(keepends=True)
    record = json.loads(lines[line])
    record["author"] = "somebody else"
    lines[line] = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    path.write_bytes(b"".join(lines))
    report = journal.verify()
    assert not report.ok
    assert report.line == line + 2  # the next one names another hash
    journal.close()


def test_a_changed_or_missing_last_record_is_found_while_the_journal_is_open(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = filled(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"seq":5,"time":"2', b'"seq":5,"time":"1'))
    assert journal.verify().line == 5
    path.write_bytes(b"".join(content.splitlines(keepends=True)[:4]))
    assert journal.verify().problem == "records at the end are missing"
    journal.close()


def test_a_full_disk_is_told_and_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = filled(path)
    before = path.read_bytes()
    real = journal._file
    assert real is not None

    class FullDisk:
        """Takes half of what it is given, then nothing."""

        def __init__(self) -> None:
            self.calls = 0

        def write(self, data: memoryview) -> int | None:
            self.calls += 1
            if self.calls > 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real.write(data[: len(data) // 2])

        def truncate(self, size: int) -> int:
            return real.truncate(size)

    journal._file = FullDisk()  # type: ignore[assignment]
    with pytest.raises(UserError, match="No space left"):
        journal.append("note", text="too much")
    journal._file = real
    assert path.read_bytes() == before
    assert journal.seq == 5
    journal.append("note", text="fits again")
    assert journal.verify().records == 6
    journal.close()


def test_the_journal_of_another_slide_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "j").close()
    with pytest.raises(UserError, match="another slide"):
        Journal(tmp_path / "j", slide_id="other")


def test_records_name_the_model_in_use_and_older_journals_without_it_are_read(tmp_path: Path) -> None:
    path = tmp_path / "j"
    journal = Journal(path, slide_id="slide", author="Ágnes")
    journal.append("note", text="one")
    journal.model = "round-1 sha256:0123456789abcdef"
    journal.append("note", text="two")
    journal.close()
    records = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [record["model"] for record in records] == ["", "round-1 sha256:0123456789abcdef"]
    del records[0]["model"]
    old = json.dumps(records[0], separators=(",", ":"), ensure_ascii=False).encode()
    path.write_bytes(old + b"\n")
    journal = Journal(path, slide_id="slide")
    journal.append("note", text="goes on")
    assert journal.verify().records == 2
    journal.close()
