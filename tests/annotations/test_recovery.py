from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_genselfdiff.annotations import Annotations, encode
from napari_genselfdiff.annotations.chunks import ChunkedArrays, Key
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.geometry import Region

SHAPE = (3000, 3000)
WHOLE = Region(0, 0, *SHAPE)


def open_session(folder: Path) -> Annotations:
    return Annotations.open(folder, shape=SHAPE, slide_id="slide")


def paint(session: Annotations, y: int, x: int, number: int, *, layer: int = 0, side: int = 8) -> None:
    codes = np.full((side, side), encode(number), np.uint8)
    session.stroke(layer, y, x, codes, np.ones((side, side), bool))


def crashed(session: Annotations, folder: Path) -> Path:
    """What the disk holds if the machine stops now."""
    return Path(shutil.copytree(session.folder, folder, ignore=shutil.ignore_patterns("session.lock")))


def views(session: Annotations) -> list[np.ndarray]:
    return [
        session.read(layer, Region(0, 0, 3000 >> layer, 3000 >> layer)) for layer in range(session.layers)
    ]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def draw_a_little(session: Annotations) -> None:
    paint(session, 500, 500, 1, side=40)  # over four chunks
    paint(session, 100, 100, 2, layer=2, side=30)
    paint(session, 420, 420, 3, side=9)
    session.checkpoint()
    paint(session, 505, 505, 4)
    paint(session, 40, 40, 5, layer=3, side=20)
    session.undo()


def test_a_crash_loses_nothing_and_undo_goes_on(tmp_path: Path) -> None:
    with open_session(tmp_path / "session") as session:
        draw_a_little(session)
        expected = views(session)
        image = crashed(session, tmp_path / "crashed")
    with open_session(image) as again:
        assert "6 changes" in str(again.recovered)
        assert same(views(again), expected)
        again.redo()
        assert again.read(3, Region(40, 40, 1, 1)) == encode(5)
    with open_session(image) as again:
        assert again.recovered is None


@pytest.mark.parametrize("lost", ["own", "own and shown", "the folder"])
def test_chunks_that_never_reached_the_disk_are_made_again(tmp_path: Path, lost: str) -> None:
    with open_session(tmp_path / "session") as session:
        draw_a_little(session)
        session.store.chunks.flush()
        expected = views(session)
        boxes = session.supervised_boxes()
        image = crashed(session, tmp_path / "crashed")
    if lost == "the folder":
        shutil.rmtree(image / "edits")
    else:
        for name in lost.split(" and "):
            for number, file in enumerate((image / "edits" / name).rglob("c/*/*")):
                if file.is_file() and number % 2:
                    file.write_bytes(b"")  # its name reached the disk and its content did not
                elif file.is_file():
                    file.unlink()
    with open_session(image) as again:
        assert again.recovered is not None
        assert same(views(again), expected)
        assert again.supervised_boxes() == boxes


def test_pixels_whose_record_was_lost_in_a_power_cut_are_gone_too(tmp_path: Path) -> None:
    with open_session(tmp_path / "session") as session:
        draw_a_little(session)
        session.checkpoint()
        expected = views(session)
        durable = (tmp_path / "session" / "journal.ndjson").stat().st_size
        paint(session, 2000, 2000, 6)
        paint(session, 512, 512, -1, side=40)  # makes a chunk empty: its file is deleted
        image = crashed(session, tmp_path / "crashed")
    with (image / "journal.ndjson").open("rb+") as file:
        file.truncate(durable + 100)
    with open_session(image) as again:
        assert "cut off" in str(again.recovered)
        assert again.position == 6
        assert same(views(again), expected)
        assert again.verify().ok
    assert (image / "journal.ndjson.damaged-1").stat().st_size == 100


@pytest.mark.parametrize("loss", ["missing", "changed in the middle", "shorter than the checkpoint"])
def test_without_its_journal_the_drawing_is_kept_and_can_be_rebuilt_later(tmp_path: Path, loss: str) -> None:
    folder = tmp_path / "session"
    with open_session(folder) as session:
        draw_a_little(session)
        expected = views(session)
    path = folder / "journal.ndjson"
    content = path.read_bytes()
    if loss == "missing":
        path.unlink()
    elif loss == "changed in the middle":
        path.write_bytes(content.replace(b'"seq":2,', b'"seq":7,'))
    else:
        path.write_bytes(b"".join(content.splitlines(keepends=True)[:3]))
    with open_session(folder) as again:
        assert "cannot be undone" in str(again.recovered)
        assert same(views(again), expected)
        assert not again.can_undo
        paint(again, 1500, 1500, 3)
        again.undo()
    assert (folder / "journal.ndjson.damaged-1").exists() == (loss != "missing")
    shutil.rmtree(folder / "edits")
    with open_session(folder) as again:
        assert same(views(again), expected)
        assert again.verify().ok


def test_a_chunk_damaged_after_a_clean_end_is_told_and_comes_back_as_the_message_says(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        draw_a_little(session)
        expected = views(session)
    (tmp_path / "edits" / "own" / "0" / "c" / "0" / "0").write_bytes(b"damaged")
    with open_session(tmp_path) as session, pytest.raises(UserError, match="'edits'"):
        session.read(0, Region(490, 490, 20, 20))
    shutil.rmtree(tmp_path / "edits")
    with open_session(tmp_path) as session:
        assert "rebuilt from the 6 changes" in str(session.recovered)
        assert same(views(session), expected)


def test_an_edit_that_the_disk_does_not_take_did_not_happen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "session"
    save = ChunkedArrays._save
    saved: list[Key] = []

    def full_after_one(self: ChunkedArrays, key: Key, chunk: np.ndarray) -> None:
        if saved:
            raise UserError("No space left")
        saved.append(key)
        save(self, key, chunk)

    with open_session(folder) as session:
        paint(session, 500, 500, 1, side=40)
        expected = views(session)
        monkeypatch.setattr(ChunkedArrays, "_save", full_after_one)
        with pytest.raises(UserError, match="No space left"):
            paint(session, 500, 500, 2, side=40)  # one of four chunks is written, and cannot be taken back
        monkeypatch.undo()
        assert session.position == 1
        assert session.verify().ok
    with open_session(folder) as session:
        assert same(views(session), expected)
        assert session.position == 1


def test_zarr_telling_that_the_disk_is_full_becomes_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with open_session(tmp_path) as session:
        paint(session, 0, 0, 1)
        with monkeypatch.context() as patched:
            patched.setattr("zarr.storage._local._put", full)
            with pytest.raises(UserError, match="No space left on device"):
                paint(session, 0, 0, 2)
        assert session.read(0, Region(0, 0, 1, 1)) == encode(1)
        paint(session, 0, 0, 3)
        assert session.read(0, Region(0, 0, 1, 1)) == encode(3)


def test_a_checkpoint_covers_what_was_drawn_before_it(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        draw_a_little(session)
        session.checkpoint()
        applied = json.loads((tmp_path / "edits" / "applied.json").read_text())
        assert (applied["seq"], applied["clean"]) == (6, False)
    applied = json.loads((tmp_path / "edits" / "applied.json").read_text())
    assert (applied["seq"], applied["clean"]) == (6, True)


DRAWER = """
import itertools, sys
import numpy as np
from napari_genselfdiff.annotations import Annotations, encode

session = Annotations.open(sys.argv[1], shape=(3000, 3000), slide_id="slide")
if session.recovered:
    print("recovered", flush=True)
for number in itertools.count(session.position):
    layer, y, x = number % 3, (37 * number) % 700, (101 * number) % 700
    codes = np.full((20, 20), encode(number % 30), np.uint8)
    session.stroke(layer, y, x, codes, np.ones((20, 20), bool))
    if number % 4 == 0:
        session.flush()
        print("flushed", session.position, flush=True)
    if number % 16 == 0:
        session.checkpoint()
"""


def test_a_session_killed_while_drawing_comes_back_whole_again_and_again(tmp_path: Path) -> None:
    folder = tmp_path / "session"
    reported = 0
    for lines in (3, 6, 11):
        with subprocess.Popen(
            [sys.executable, "-c", DRAWER, str(folder)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(lines):
                word, *rest = process.stdout.readline().split()
                reported = int(rest[0]) if word == "flushed" else reported
            process.kill()  # SIGKILL: nothing is tidied up
    with open_session(folder) as session:
        assert not session.read_only  # the lock died with its holder
        assert session.recovered is not None
        assert session.position >= reported > 30
        assert session.verify().ok
        expected = np.zeros(SHAPE, np.uint8)
        for number in range(session.position):
            layer, y, x = number % 3, (37 * number) % 700, (101 * number) % 700
            window = np.s_[y << layer : (y + 20) << layer, x << layer : (x + 20) << layer]
            expected[window] = encode(number % 30)
        assert np.array_equal(session.read(0, WHOLE), expected)
        while session.undo():
            pass
        assert not session.read(0, WHOLE).any()
