from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_genselfdiff.annotations.codes import encode
from napari_genselfdiff.annotations.store import EditStore
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.geometry import Region

HUGE = (100_000, 100_000)


def open_store(folder: Path, shape: tuple[int, int] = HUGE, **options: object) -> EditStore:
    return EditStore.open(folder / "edits", shape=shape, slide_id="slide", **options)


def full(side: int, code: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full((side, side), code, np.uint8), np.ones((side, side), bool)


def chunk_files(folder: Path, array: str) -> list[Path]:
    return [
        path for path in (folder / "edits" / array).rglob("*") if path.is_file() and path.name != "zarr.json"
    ]


def test_a_new_store_is_unseen_and_holds_no_chunks(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert store.layers == 9
    assert not store.read(0, 99_900, 99_900, 300, 300).any()
    assert store.supervised_boxes() == []
    assert chunk_files(tmp_path, "own") == []


def test_a_coarse_stroke_makes_no_fine_chunks_and_is_seen_at_all_magnifications(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.apply(6, 300, 300, *full(500, 3))
    store.chunks.flush()
    assert len(chunk_files(tmp_path, "own/6")) == 4
    for layer in range(6):
        assert chunk_files(tmp_path, f"own/{layer}") == []
    for layer in range(1, 7):
        assert chunk_files(tmp_path, f"shown/{layer}") == []
    for layer in range(store.layers):
        assert store.read(layer, (500 << 6) >> layer, (500 << 6) >> layer, 2, 2).tolist() == [[3, 3], [3, 3]]
    edge = 300 << 6
    assert store.read(0, edge - 1, edge - 1, 2, 2).tolist() == [[0, 0], [0, 3]]


def test_a_coarse_stroke_wins_over_finer_ones_before_it_and_loses_to_those_after_it(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.apply(0, 6400, 6400, *full(100, 2))
    store.apply(6, 100, 100, *full(1, 3))
    assert np.unique(store.read(0, 6400, 6400, 64, 64)).tolist() == [3]
    assert np.unique(store.read(0, 6464, 6464, 36, 36)).tolist() == [2]
    store.apply(0, 6410, 6410, *full(4, 5))
    assert store.read(0, 6409, 6409, 2, 2).tolist() == [[3, 3], [3, 5]]


def test_making_a_fine_place_unseen_shows_no_coarse_stroke_through_it(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.apply(3, 100, 100, *full(10, 4))
    store.apply(0, 800, 800, *full(16, 0))
    assert not store.read(0, 800, 800, 16, 16).any()
    assert store.read(3, 100, 100, 3, 3).tolist() == [[0, 0, 4], [0, 0, 4], [4, 4, 4]]


def test_a_coarse_pixel_takes_the_most_frequent_seen_code_of_its_children(tmp_path: Path) -> None:
    store = open_store(tmp_path, (2000, 2000))
    two, three, accepted = int(encode(1)), int(encode(2)), int(encode(2, True))
    children = {
        (0, 0): ([two, 0, 0, 0], two),
        (0, 1): ([two, three, three, 0], three),
        (1, 0): ([accepted, accepted, two, two], two),
        (1, 1): ([three, two, 0, 0], three),
        (2, 2): ([0, 0, 0, 0], 0),
    }
    for (y, x), (codes, _) in children.items():
        image = np.array(codes, np.uint8).reshape(2, 2)
        store.apply(0, 2 * y, 2 * x, image, image != 0)
    seen = store.read(1, 0, 0, 3, 3)
    assert {place: int(seen[place]) for place in children} == {p: want for p, (_, want) in children.items()}


def test_edits_at_and_beyond_the_last_partial_pixels_are_clipped(tmp_path: Path) -> None:
    shape = (1031, 1301)  # odd at every layer
    store = open_store(tmp_path, shape)
    assert store.apply(0, 1031, 0, *full(4, 2)) == []
    store.apply(2, 256, 324, *full(9, 2))  # the last row and columns of layer 2, which are partial
    store.apply(0, -3, -3, *full(5, 3))
    whole = store.read(0, 0, 0, *shape)
    assert (whole[1024:, 1296:] == 2).all()
    assert (whole[:2, :2] == 3).all()
    assert np.count_nonzero(whole) == 7 * 5 + 4
    assert store.read(0, 1030, 1300, 3, 3).tolist() == [[2, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert store.read(2, 257, 325, 2, 2).tolist() == [[2, 0], [0, 0]]
    assert store.supervised_boxes() == [Region(0, 0, 2, 2), Region(1024, 1296, 7, 5)]


def test_supervised_boxes_are_tight_and_follow_edits(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.apply(0, 50_000, 60_000, *full(60, 2))
    store.apply(6, 10, 20, *full(3, 2))
    assert store.touched_regions(0) == [Region(50_000, 60_000, 60, 60)]
    assert store.touched_regions(6) == [Region(640, 1280, 192, 192)]
    store.apply(0, 50_000, 60_000, *full(60, 0))
    assert store.supervised_boxes() == [Region(640, 1280, 192, 192)]


def test_a_chunk_that_is_all_unseen_again_leaves_no_file(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.apply(0, 0, 0, *full(60, 2))
    store.apply(0, 0, 0, *full(60, 0))
    store.chunks.flush()
    assert chunk_files(tmp_path, "own") == []
    assert chunk_files(tmp_path, "shown") == []


def test_another_shape_or_slide_is_refused_and_named(tmp_path: Path) -> None:
    open_store(tmp_path, (1000, 1000))
    with pytest.raises(UserError, match=r"1000 x 1000 pixels, not 1000 x 999"):
        open_store(tmp_path, (1000, 999))
    with pytest.raises(UserError, match="another slide"):
        EditStore.open(tmp_path / "edits", shape=(1000, 1000), slide_id="other")
    (tmp_path / "edits" / "zarr.json").write_text("{}")
    with pytest.raises(UserError, match="no edit store"):
        open_store(tmp_path, (1000, 1000))


@pytest.mark.parametrize("damage", [b"", b"not zstd at all", None])
def test_a_damaged_chunk_is_told_with_its_file_and_what_to_do(tmp_path: Path, damage: bytes | None) -> None:
    random = np.random.default_rng(0)
    store = open_store(tmp_path, (600, 600))
    store.apply(0, 0, 0, encode(random.integers(0, 9, (500, 500))), np.ones((500, 500), bool))
    (file,) = chunk_files(tmp_path, "own/0")
    if damage is None:  # one flipped bit
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 4
        damage = bytes(content)
    file.write_bytes(damage)
    with pytest.raises(UserError, match="damaged") as caught:
        open_store(tmp_path, (600, 600)).read(0, 0, 0, 10, 10)
    assert str(file) in str(caught.value)
    assert "journal" in str(caught.value)


def test_a_read_only_store_sees_what_the_writer_does(tmp_path: Path) -> None:
    assert not open_store(tmp_path, read_only=True).read(0, 0, 0, 4, 4).any()
    writer = open_store(tmp_path)
    reader = open_store(tmp_path, read_only=True)
    assert not reader.read(0, 0, 0, 4, 4).any()
    writer.apply(0, 0, 0, *full(4, 2))
    assert (reader.read(0, 0, 0, 4, 4) == 2).all()
    assert reader.supervised_boxes() == [Region(0, 0, 4, 4)]
    writer.apply(0, 0, 0, *full(4, 3))
    assert (reader.read(0, 0, 0, 4, 4) == 3).all()


def test_layers_and_shapes_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path, (600, 600))
    with pytest.raises(ValueError, match="layers 0 to 1"):
        store.read(2, 0, 0, 1, 1)
    with pytest.raises(ValueError, match="differ in shape"):
        store.apply(0, 0, 0, np.zeros((2, 2), np.uint8), np.ones((2, 3), bool))
    with pytest.raises(UserError, match="cannot be annotated"):
        open_store(tmp_path / "new", (0, 600))
