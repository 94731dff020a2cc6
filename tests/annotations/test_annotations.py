from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_genselfdiff.annotations import Annotations, Change, encode
from napari_genselfdiff.annotations.pyramid import layer_shape
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.geometry import Region

Image = NDArray[np.uint8]


class DenseModel:
    """A naive model of annotations: one dense image at full resolution, and all its earlier states."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.image = np.zeros(shape, np.uint8)
        self._done: list[Image] = []
        self._undone: list[Image] = []

    def stroke(self, layer: int, y: int, x: int, codes: Image, mask: NDArray[np.bool_]) -> None:
        self._paint(layer, y, x, codes, mask, np.ones(self.image.shape, bool))

    def accept(self, layer: int, y: int, x: int, codes: Image) -> None:
        edited = (self.image != 0) & (self.image < 128)
        self._paint(layer, y, x, codes, codes != 0, ~edited)

    def undo(self) -> None:
        if self._done:
            self._undone.append(self.image)
            self.image = self._done.pop()

    def redo(self) -> None:
        if self._undone:
            self._done.append(self.image)
            self.image = self._undone.pop()

    def seen_at(self, layer: int) -> Image:
        """What a view at a layer shows: the majority of 2 x 2, again and again, in plain loops."""
        image = self.image
        for _ in range(layer):
            height, width = image.shape
            half = np.zeros((-(-height // 2), -(-width // 2)), np.uint8)
            for y, x in zip(*np.nonzero(_blocks_with_any(image)), strict=True):
                children = [int(code) for code in image[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel() if code]
                counts = Counter(children)
                # max keeps the first of equals, and children are in reading order.
                half[y, x] = max(children, key=lambda code, counts=counts: (counts[code], code < 128))
            image = half
        return image

    def _paint(
        self, layer: int, y: int, x: int, codes: Image, mask: NDArray[np.bool_], allowed: NDArray[np.bool_]
    ) -> None:
        after = self.image.copy()
        scale = 2**layer
        for row, column in zip(*np.nonzero(mask), strict=True):
            top, left = (y + row) * scale, (x + column) * scale
            if top < 0 or left < 0:
                continue
            window = np.s_[top : top + scale, left : left + scale]
            after[window][allowed[window]] = codes[row, column]
        self._keep(after)

    def _keep(self, after: Image) -> None:
        self._done.append(self.image)
        self._undone.clear()
        self.image = after


def _blocks_with_any(image: Image) -> NDArray[np.bool_]:
    height, width = image.shape
    padded = np.pad(image, ((0, height % 2), (0, width % 2))) != 0
    return padded.reshape(-(-height // 2), 2, -(-width // 2), 2).any(axis=(1, 3))


# Long and thin: several layers and chunks, and a reference model in plain loops stays quick.
SHAPES = [(5, 4099), (3001, 7), (700, 530)]


def open_session(folder: Path, shape: tuple[int, int] = (2000, 2000)) -> Annotations:
    return Annotations.open(folder, shape=shape, slide_id="slide", author="tester")


def paint(
    session: Annotations, y: int, x: int, number: int, *, layer: int = 0, side: int = 8
) -> Change | None:
    codes = np.full((side, side), encode(number), np.uint8)
    return session.stroke(layer, y, x, codes, np.ones((side, side), bool))


@st.composite
def edits(
    draw: st.DrawFn, shape: tuple[int, int], layers: int
) -> tuple[int, int, int, np.ndarray, np.ndarray]:
    layer = draw(st.integers(0, layers - 1))
    height, width = layer_shape(shape, layer)
    # Few places, so that edits of different layers meet; also over the edges and across chunks.
    y = draw(st.sampled_from(sorted({-2, 0, (512 >> layer) - 3, height // 2, height - 2})))
    x = draw(st.sampled_from(sorted({-2, 0, (512 >> layer) - 3, width // 2, width - 2})))
    size = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    accepted = random.random(size) < 0.3
    codes = encode(random.integers(-1, 3, size), accepted)
    mask = random.random(size) < draw(st.sampled_from([0.2, 0.8, 1.0]))
    return layer, y, x, codes, mask


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_sequence_of_edits_undo_redo_and_restarts_equals_painting_at_full_resolution(
    data: st.DataObject,
) -> None:
    shape = data.draw(st.sampled_from(SHAPES), label="shape")
    model = DenseModel(shape)
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(Path(folder), shape)
        try:
            for _ in range(data.draw(st.integers(1, 12), label="steps")):
                action = data.draw(
                    st.sampled_from(["stroke"] * 4 + ["accept", "undo", "undo", "redo", "reopen"])
                )
                if action in ("stroke", "accept"):
                    layer, y, x, codes, mask = data.draw(edits(shape, session.layers))
                    if action == "stroke":
                        change = session.stroke(layer, y, x, codes, mask)
                    else:
                        codes = np.where(codes == 0, 0, codes | 128).astype(np.uint8)
                        change = session.accept(layer, Region(y, x, *codes.shape), codes)
                    if change is not None:
                        edit = (codes, mask) if action == "stroke" else (codes,)
                        getattr(model, action)(layer, y, x, *edit)
                elif action == "reopen":
                    session.close()
                    session = open_session(Path(folder), shape)
                    assert session.recovered is None
                else:
                    getattr(model, action)()
                    getattr(session, action)()
                assert np.array_equal(session.read(0, Region(0, 0, *shape)), model.image)
            for layer in range(session.layers):
                whole = Region(0, 0, *layer_shape(shape, layer))
                assert np.array_equal(session.read(layer, whole), model.seen_at(layer)), f"layer {layer}"
            assert session.verify().ok
        finally:
            session.close()


def test_undo_and_redo_reach_over_restarts(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        paint(session, 0, 0, 1)
        paint(session, 0, 0, 2)
        paint(session, 0, 0, 3)
        session.undo()
    with open_session(tmp_path) as session:
        assert session.can_undo
        assert session.can_redo
        assert session.read(0, Region(0, 0, 1, 1)) == encode(2)
        session.redo()
        assert session.read(0, Region(0, 0, 1, 1)) == encode(3)
        for expected in (2, 1, -1):
            session.undo()
            assert session.read(0, Region(0, 0, 1, 1)) == encode(expected)
        assert session.undo() is None
        assert not session.can_undo
        assert session.position == 3 + 1 + 1 + 3
        assert session.supervised_boxes() == []
    with open_session(tmp_path) as session:
        session.redo()
        paint(session, 100, 100, 5)
        assert not session.can_redo
        assert session.redo() is None


def test_undo_of_a_coarse_edit_brings_back_the_fine_pixels_under_it(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        paint(session, 40, 40, 1)
        paint(session, 44, 44, 2, layer=1)
        fine = session.read(0, Region(0, 0, 200, 200))
        coarse = session.read(2, Region(0, 0, 50, 50))
        paint(session, 0, 0, 7, layer=2, side=40)
        assert (session.read(0, Region(0, 0, 160, 160)) == encode(7)).all()
        session.undo()
        assert np.array_equal(session.read(0, Region(0, 0, 200, 200)), fine)
        assert np.array_equal(session.read(2, Region(0, 0, 50, 50)), coarse)


def test_accepting_a_view_keeps_what_was_drawn_by_hand_at_any_magnification(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        paint(session, 4, 4, 1, side=2)  # finer than the view
        paint(session, 3, 3, 2, layer=2, side=1)  # coarser
        session.accept(1, Region(0, 0, 20, 20), encode(np.zeros((20, 20), int)))
        seen = session.read(0, Region(0, 0, 42, 42))
        expected = np.zeros((42, 42), np.uint8)
        expected[:40, :40] = encode(0, True)
        expected[4:6, 4:6] = encode(1)
        expected[12:16, 12:16] = encode(2)
        assert np.array_equal(seen, expected)


def test_accepting_a_view_renews_a_finer_accepted_place_within_a_hand_drawn_one(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        paint(session, 10, 10, 1, layer=2, side=1)
        session.stroke(0, 40, 40, encode(np.full((2, 2), 3), True), np.ones((2, 2), bool))
        session.accept(2, Region(10, 10, 1, 1), encode([[2]]))
        expected = np.full((4, 4), encode(1), np.uint8)
        expected[:2, :2] = encode(2, True)
        assert np.array_equal(session.read(0, Region(40, 40, 4, 4)), expected)


def test_views_are_told_what_to_draw_again(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        told: list[Change] = []
        session.changed.connect(told.append)
        change = paint(session, -4, 10, 1, layer=1)
        assert change == Change(1, 0, 10, 4, 8)
        paint(session, -4, 10, 1, layer=1)  # the same again: nothing to draw, nothing to undo
        session.undo()
        session.redo()
        assert told == [change, change, change]
        assert session.position == 3


def test_a_second_opener_may_look_but_not_draw(tmp_path: Path) -> None:
    with open_session(tmp_path) as first:
        paint(first, 0, 0, 1)
        with open_session(tmp_path) as second:
            assert second.read_only
            assert not first.read_only
            assert second.read(0, Region(0, 0, 8, 8)).all()
            assert not second.can_undo
            with pytest.raises(UserError, match="looking only"):
                paint(second, 0, 0, 2)
            with pytest.raises(UserError, match="looking only"):
                second.undo()
        paint(first, 0, 0, 3)  # closing the second did not take the right away
        with pytest.raises(UserError, match="2000 x 1999"):
            Annotations.open(tmp_path, shape=(2000, 1999), slide_id="slide")
    with open_session(tmp_path) as third:
        assert not third.read_only
        assert third.recovered is None


def test_a_folder_that_cannot_be_written_opens_for_looking(tmp_path: Path) -> None:
    with open_session(tmp_path / "session") as session:
        paint(session, 0, 0, 1)
    lock = tmp_path / "session" / "session.lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()  # holds for root as well, whom permissions do not stop
    with open_session(tmp_path / "session") as session:
        assert session.read_only
        assert session.read(0, Region(0, 0, 8, 8)).all()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another folder"):
        open_session(tmp_path / "file")


def test_a_refused_open_leaves_the_session_free_for_the_next(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        paint(session, 0, 0, 1)
    with pytest.raises(UserError, match="another slide"):
        Annotations.open(tmp_path, shape=(2000, 2000), slide_id="other")
    with open_session(tmp_path) as session:
        assert not session.read_only


def test_closing_leaves_no_thread_behind_and_may_be_done_twice(tmp_path: Path) -> None:
    session = open_session(tmp_path)
    paint(session, 0, 0, 1)
    names = {thread.name for thread in threading.enumerate()}
    assert {"journal-sync", "annotations-checkpoint"} <= names
    session.close()
    session.close()
    names = {thread.name for thread in threading.enumerate()}
    assert not {"journal-sync", "annotations-checkpoint"} & names
    with pytest.raises(UserError, match="looking only"):
        paint(session, 0, 0, 2)


def test_importing_the_room_loads_no_window_and_nothing_heavy() -> None:
    code = (
        "import sys, napari_genselfdiff.annotations\n"
        "print([name for name in ('qtpy', 'napari', 'torch', 'zarr', 'dask') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


HUGE = (100_000, 100_000)
ONE, TWO, THREE = (int(encode(number)) for number in (1, 2, 3))


def fill_overview(session: Annotations, number: int) -> Change | None:
    """Fill all of a huge slide, at the magnification at which it fits a screen."""
    side = layer_shape(session.store.shape, 7)
    return session.stroke(7, 0, 0, np.full(side, encode(number), np.uint8), np.ones(side, bool))


def test_filling_a_huge_overview_is_small_and_fine_edits_in_it_win_later(tmp_path: Path) -> None:
    with Annotations.open(tmp_path, shape=HUGE, slide_id="slide") as session:
        places = [(4096 * index, 97_000 - 512 * index) for index in range(12)]
        for y, x in places:
            paint(session, y, x, 2, side=600)
        before = (tmp_path / "journal.ndjson").stat().st_size
        fill_overview(session, 1)
        assert (tmp_path / "journal.ndjson").stat().st_size - before < 20_000
        paint(session, 50_000, 50_000, 3, side=60)
        session.checkpoint()
        chunks = session.store.chunks
        assert len(chunks.keys("own/0")) <= 4
        assert sum(len(chunks.keys(f"own/{layer}")) for layer in range(1, 7)) == 0

        def drawn(y: int, x: int) -> int:
            return int(session.read(0, Region(y, x, 1, 1))[0, 0])

        assert {drawn(y + 300, x + 300) for y, x in places} == {ONE}
        assert drawn(99_999, 99_999) == ONE
        assert drawn(50_030, 50_030) == THREE
        assert session.read(5, Region(50_030 >> 5, 50_030 >> 5, 1, 1)) == THREE
        session.undo()
        assert drawn(50_030, 50_030) == ONE
        session.undo()
        assert {drawn(y + 300, x + 300) for y, x in places} == {TWO}
        assert drawn(50_030, 50_030) == drawn(99_999, 99_999) == 0
        session.redo()
        session.redo()
        assert drawn(50_030, 50_030) == THREE
        assert session.verify().ok


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_what_a_coarse_edit_covered_comes_back_after_any_restart_or_loss(data: st.DataObject) -> None:
    shape = (1100, 1700)
    model = DenseModel(shape)
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(Path(folder), shape)
        try:
            for _ in range(data.draw(st.integers(2, 9), label="steps")):
                action = data.draw(
                    st.sampled_from(["fine", "fine", "cover", "undo", "undo", "redo", "reopen", "lose"])
                )
                if action in ("undo", "redo"):
                    getattr(model, action)()
                    getattr(session, action)()
                elif action in ("reopen", "lose"):
                    session.close()
                    if action == "lose":
                        shutil.rmtree(Path(folder) / "edits")
                    session = open_session(Path(folder), shape)
                else:
                    layer = 0 if action == "fine" else 2
                    y, x = (data.draw(st.sampled_from([0, 128, 250])) for _ in range(2))
                    size = (40, 300) if action == "fine" else (160, 300)
                    codes = np.full(size, encode(data.draw(st.integers(-1, 3))), np.uint8)
                    mask = np.ones(size, bool)
                    if session.stroke(layer, y, x, codes, mask) is not None:
                        model.stroke(layer, y, x, codes, mask)
                assert np.array_equal(session.read(0, Region(0, 0, *shape)), model.image)
            for layer in range(session.layers):
                whole = Region(0, 0, *layer_shape(shape, layer))
                assert np.array_equal(session.read(layer, whole), model.seen_at(layer)), f"layer {layer}"
        finally:
            session.close()


def test_a_covering_edit_and_its_undo_survive_a_crash(tmp_path: Path) -> None:
    session = Annotations.open(tmp_path / "session", shape=HUGE, slide_id="slide")
    paint(session, 60_000, 60_000, 2, side=1100)
    session.checkpoint()
    for name, step, expected in (
        ("covered", lambda: fill_overview(session, 1), ONE),
        ("undone", session.undo, TWO),
        ("redone", session.redo, ONE),
    ):
        step()
        # What a killed process leaves: the journal is written, most chunks are not.
        shutil.copytree(tmp_path / "session", tmp_path / name, ignore=shutil.ignore_patterns("session.lock"))
        with Annotations.open(tmp_path / name, shape=HUGE, slide_id="slide") as again:
            assert again.recovered is not None
            assert again.read(0, Region(60_500, 60_500, 1, 1)) == expected
            assert again.read(4, Region(60_500 >> 4, 60_500 >> 4, 1, 1)) == expected
    session.close()
