"""What every room relies on: one grid, exact copies, white outside, threads, bounded memory."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides import Slide, open_slide, slide_from_arrays
from napari_genselfdiff.slides.cache import TileCache
from napari_genselfdiff.slides.levels import Level, tile_side, whole_downsample


@pytest.fixture(scope="module")
def large(tissue: Callable[[int, int], np.ndarray]) -> np.ndarray:
    """1500 x 1100 pixels."""
    return tissue(1500, 1100)


@pytest.fixture(scope="module")
def slide(large: np.ndarray) -> Slide:
    """A slide of it."""
    return slide_from_arrays(large, name="picture")


@settings(max_examples=60, deadline=None)
@given(
    scale=st.one_of(st.floats(0.3, 6), st.sampled_from([0.5, 1.0, 1.001, 2.0, 2.5, 3.99, 4.0, 8.0])),
    y=st.integers(-40, 300),
    x=st.integers(-40, 300),
    dy=st.integers(1, 59),
    dx=st.integers(1, 59),
)
def test_pixels_do_not_depend_on_cuts(slide: Slide, scale: float, y: int, x: int, dy: int, dx: int) -> None:
    whole = slide.read_scaled(y, x, 60, 60, scale=scale)
    for top, left, height, width in (
        (0, 0, dy, dx),
        (0, dx, dy, 60 - dx),
        (dy, 0, 60 - dy, dx),
        (dy, dx, 60 - dy, 60 - dx),
    ):
        part = slide.read_scaled(y + top, x + left, height, width, scale=scale)
        assert part.shape == (height, width, 3)
        np.testing.assert_array_equal(whole[top : top + height, left : left + width], part)


@pytest.mark.parametrize("level", [0, 1])
def test_the_scale_of_a_level_is_an_exact_copy(slide: Slide, level: int) -> None:
    scaled = slide.read_scaled(13, 17, 200, 150, scale=slide.downsamples[level])
    assert np.array_equal(scaled, slide.read(13, 17, 200, 150, level=level))


def test_scaled_pixels_lie_where_they_should() -> None:
    ramp = np.broadcast_to(np.linspace(0, 250, 501)[None, :, None], (200, 501, 3)).astype(np.uint8)
    slide = slide_from_arrays(ramp, name="ramp")
    for scale in (0.4, 1.7, 2.0, 3.3):
        columns = np.arange(40)
        row = slide.read_scaled(20, 20, 1, 40, scale=scale)[0, :, 0]
        # the centre of grid column c is (c + 0.5) * scale level-0 pixels from the left edge
        assert np.abs(row - ((columns + 20.5) * scale - 0.5) / 2).max() <= 1.5


def test_outside_is_white(slide: Slide, large: np.ndarray) -> None:
    pixels = slide.read(-10, 1090, 20, 30)
    assert (pixels[:10] == 255).all()
    assert (pixels[:, 10:] == 255).all()
    assert np.array_equal(pixels[10:, :10], large[:10, 1090:])
    assert (slide.read(5000, 5000, 4, 5) == 255).all()
    assert (slide.read_scaled(-500, -500, 9, 9, scale=1.3) == 255).all()


def test_computed_levels_are_means_of_2_by_2(tissue: Callable[[int, int], np.ndarray]) -> None:
    odd = tissue(1501, 1103)
    slide = slide_from_arrays(odd, name="odd")
    assert [level.shape for level in slide.levels] == [(1501, 1103, 3), (750, 551, 3)]
    assert slide.downsamples == (1.0, 2.0)
    expected = (odd[:1500, :1102].reshape(750, 2, 551, 2, 3).sum((1, 3), dtype=int) + 2) // 4
    assert np.array_equal(slide.levels[1].compute(), expected)


def test_gaps_in_a_pyramid_are_filled_and_long_ends_continued() -> None:
    base = da.zeros((40000, 30000, 3), chunks=(1024, 1024, 3), dtype=np.uint8)
    sixteenth = da.zeros((2500, 1875, 3), chunks=(1024, 1024, 3), dtype=np.uint8)
    slide = slide_from_arrays([base, sixteenth], name="sparse")
    assert slide.downsamples == (1.0, 2.0, 4.0, 16.0, 32.0, 64.0)
    assert slide.levels[3].shape == (2500, 1875, 3)


def test_best_level() -> None:
    slide = slide_from_arrays(da.zeros((8000, 8000, 3), chunks=1024, dtype=np.uint8), name="large")
    assert slide.downsamples == (1.0, 2.0, 4.0, 8.0)
    wanted = {0.5: 0, 1.0: 0, 1.97: 0, 1.99: 1, 2.0: 1, 3.9: 1, 4.0: 2, 7.5: 2, 8.0: 3, 100.0: 3}
    assert {factor: slide.best_level(factor) for factor in wanted} == wanted


def test_mpp_is_validated(slide: Slide) -> None:
    assert slide.mpp is None
    assert slide.with_mpp(0.25).mpp == 0.25
    for wrong in (0, -1, 0.001, 1000, float("nan"), float("inf")):
        with pytest.raises(UserError, match="micrometres per pixel"):
            slide.with_mpp(wrong)


def test_threads_read_the_same_pixels(cmu_slide: Path) -> None:
    slide = open_slide(cmu_slide)
    places = [(y, x) for y in range(0, 2400, 300) for x in range(0, 1800, 300)]
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda place: slide.read(*place, 310, 320), places))
    again = open_slide(cmu_slide)
    assert all(
        np.array_equal(part, again.read(*place, 310, 320)) for place, part in zip(places, parts, strict=True)
    )


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "OS-1-detail.ome.tif"])
def test_a_slide_can_be_sent_to_another_process(data_dir: Path, name: str) -> None:
    slide = open_slide(data_dir / "slides" / name)
    expected = slide.read(100, 100, 64, 64)
    content = pickle.dumps(slide)
    assert len(content) < 50_000
    assert np.array_equal(pickle.loads(content).read(100, 100, 64, 64), expected)


def test_opening_reads_no_pixels() -> None:
    def never(block: np.ndarray) -> np.ndarray:
        if block.size:
            raise AssertionError("computed")
        return block

    zeros = da.zeros((100_000, 100_000, 3), chunks=(4096, 4096, 3), dtype=np.uint8)
    slide = slide_from_arrays(
        zeros.map_blocks(never, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)), name="huge"
    )
    assert slide.shape == (100_000, 100_000)
    with pytest.raises(AssertionError, match="computed"):
        slide.read(0, 0, 1, 1)


def test_readers_own_pixels_cannot_be_changed_through_a_result(large: np.ndarray) -> None:
    array = zarr.array(large, chunks=(256, 256, 3))
    slide = slide_from_arrays(array, name="zarr")
    slide.read(0, 0, 256, 256)[:] = 0
    assert np.array_equal(slide.read(0, 0, 256, 256), large[:256, :256])


def test_layers_of_any_kind_are_slides(large: np.ndarray) -> None:
    rgba = np.dstack([large, np.full(large.shape[:2], 255, np.uint8)])
    kinds = {
        "numpy": large,
        "list": [large, large[::2, ::2]],
        "rgba": rgba,
        "float": large / np.float32(255),
        "dask": da.from_array(large, chunks=(400, 500, 3)),
        "zarr": zarr.array(large, chunks=(300, 300, 3)),
    }
    for name, kind in kinds.items():
        slide = slide_from_arrays(kind, name=name, mpp=0.5)
        assert np.array_equal(slide.read(40, 50, 600, 700), large[40:640, 50:750]), name
        assert (slide.name, slide.mpp, slide.shape) == (name, 0.5, (1500, 1100))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((20, 20), np.uint8), "not an RGB image"),
        (np.zeros((20, 20, 2), np.uint8), "not an RGB image"),
        (np.zeros((20, 20, 3), np.uint16), "uint16"),
        (np.full((20, 20, 3), 200.0), "range 0 to 1"),
        (np.zeros((0, 20, 3), np.uint8), "empty"),
        ([], "no image"),
        ([np.zeros((20, 20, 3), np.uint8)] * 2, "do not become smaller"),
    ],
)
def test_layers_that_are_not_rgb(wrong: object, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        slide_from_arrays(wrong, name="my layer")
    assert "my layer" in str(caught.value)


def test_the_cache_is_bounded_and_keeps_what_is_used() -> None:
    cache = TileCache(3000)
    tile = np.zeros((10, 100, 1), np.uint8)
    for column in range(3):
        cache.put(("a", 0, column), tile)
    assert cache.get(("a", 0, 0)) is tile
    cache.put(("a", 0, 3), tile)
    assert cache.get(("a", 0, 1)) is None
    assert cache.get(("a", 0, 0)) is tile
    cache.put(("a", 9, 9), np.zeros((100, 100, 1), np.uint8))
    assert cache.nbytes == 3000


def test_tiles_that_were_computed_outlast_those_of_the_file() -> None:
    cache = TileCache(3000)
    tile = np.zeros((10, 100, 1), np.uint8)
    cache.put(("a", 0, 0), tile, derived=True)
    for column in range(9):
        cache.put(("b", 0, column), tile)
    assert cache.get(("a", 0, 0), derived=True) is tile
    assert cache.nbytes == 3000
    cache.max_bytes = 1000
    assert cache.nbytes == 1000


def test_each_tile_is_decoded_once() -> None:
    asked: list[tuple[int, ...]] = []

    def source(*window: int) -> np.ndarray:
        asked.append(window)
        return np.zeros((*window[2:], 3), np.uint8)

    level = Level(source, (300, 500), tile=(100, 200))
    level.read(50, 50, 100, 100)
    level.read(0, 0, 200, 200)
    level.read(290, 490, 40, 40)
    assert sorted(asked) == [(0, 0, 100, 200), (100, 0, 100, 200), (200, 400, 100, 100)]


def test_tiles_are_whole_native_tiles() -> None:
    assert [tile_side(native) for native in (128, 240, 256, 512, 8, 3968)] == [256, 240, 256, 512, 256, 256]


def test_downsamples_forgive_dropped_remainders() -> None:
    assert whole_downsample((3567, 4443), (1783, 2221)) == 2.0
    assert whole_downsample((3567, 4443), (892, 1111)) == 4.0
    assert whole_downsample((1000, 1000), (400, 400)) == 2.5
