"""What is not decoded yet shows the coarser level, then sharpens."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides import Slide, slide_from_arrays
from napari_genselfdiff.slides.cache import TILES
from napari_genselfdiff.slides.loading import LOADER
from napari_genselfdiff.slides.progressive import ProgressiveSlide
from napari_genselfdiff.slides.sampling import has_no_overview, sampled_overview

PATIENCE = 60.0
SIDE = 3000
Pixels = np.ndarray


@pytest.fixture(scope="module")
def picture(tissue: Callable[[int, int], Pixels]) -> Pixels:
    return tissue(SIDE, SIDE)


class Held:
    """An array whose parts cannot be read before it is let go."""

    def __init__(self, array: Pixels) -> None:
        self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, 3
        self.chunks = (256, 256, 3)
        self.free = threading.Event()
        self.broken = False

    def __getitem__(self, key: object) -> Pixels:
        assert self.free.wait(PATIENCE)
        if self.broken:
            raise OSError("bad tile")
        return self.array[key]  # type: ignore[index]


@pytest.fixture
def held(picture: Pixels) -> Iterator[Held]:
    """The finest level, held back."""
    made = Held(picture)
    yield made
    made.free.set()


@pytest.fixture
def slide(held: Held, picture: Pixels) -> Slide:
    coarse = picture.reshape(SIDE // 2, 2, SIDE // 2, 2, 3).mean((1, 3)).round().astype(np.uint8)
    small = coarse.reshape(SIDE // 4, 2, SIDE // 4, 2, 3).mean((1, 3)).round().astype(np.uint8)
    levels = [held, *(zarr.array(level, chunks=(256, 256, 3)) for level in (coarse, small))]
    return slide_from_arrays(levels, name="slow")


def settled(view: ProgressiveSlide) -> None:
    assert LOADER.wait(view._token, PATIENCE)


def test_looking_never_waits_and_ends_in_the_true_pixels(slide: Slide, held: Held, picture: Pixels) -> None:
    view = ProgressiveSlide(slide)
    part = np.s_[1000:1600, 700:1500]
    coarse = view.levels[0][part]  # while no tile can be read
    assert not view.is_sharp()
    # What is seen is the overview, enlarged.
    blurred = np.abs(coarse.astype(int) - picture[part]).mean()
    assert 0 < blurred < 25
    news = threading.Event()
    view.loaded.connect(news.set)
    held.free.set()
    settled(view)
    assert news.is_set()
    assert view.is_sharp()
    assert not view.is_shown()
    np.testing.assert_array_equal(view.levels[0][part], picture[part])
    assert view.is_shown()


def test_every_part_is_filled_at_any_place_and_level(slide: Slide, held: Held, picture: Pixels) -> None:
    view = ProgressiveSlide(slide)
    rng = np.random.default_rng(0)
    truth = picture.astype(int)
    for index, level in enumerate(view.levels):
        height, width = level.shape[:2]
        for _ in range(10):
            y, x = rng.integers(0, height - 1), rng.integers(0, width - 1)
            h, w = rng.integers(1, height - y + 1), rng.integers(1, width - x + 1)
            shown = level[y : y + h, x : x + w]
            assert shown.shape == (h, w, 3)
            step = 2**index
            there = truth[y * step : (y + h) * step, x * step : (x + w) * step].mean((0, 1))
            assert np.abs(shown.mean((0, 1)) - there).max() < 40


def test_another_thread_gets_the_true_pixels(slide: Slide, held: Held, picture: Pixels) -> None:
    view = ProgressiveSlide(slide)
    held.free.set()
    with ThreadPoolExecutor(1) as pool:
        got = pool.submit(lambda: view.levels[0][5:300, 10:90]).result(PATIENCE)
    np.testing.assert_array_equal(got, picture[5:300, 10:90])
    np.testing.assert_array_equal(view.levels[0][::500, ::500], picture[::500, ::500])


def test_the_levels_that_come_next_are_fetched_ahead(slide: Slide, held: Held) -> None:
    view = ProgressiveSlide(slide)
    held.free.set()
    view.levels[1][500:800, 500:800]
    settled(view)
    fine, coarse = slide.readers[0], slide.readers[1]
    assert fine.held(5, 5) is not None  # the middle, a level down
    assert coarse.held(1, 1) is not None  # around, at this level
    assert coarse.held(5, 5) is None  # far away


def test_fetching_ahead_is_bounded_by_the_cache(
    slide: Slide, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TILES, "_max_bytes", 8 * 256 * 256 * 3)
    view = ProgressiveSlide(slide)
    held.free.set()
    view.levels[0][1024:1280, 1024:1280]
    settled(view)
    assert slide.readers[0].held(4, 4) is not None


def test_a_damaged_part_stays_coarse_and_is_told_once(slide: Slide, held: Held) -> None:
    view = ProgressiveSlide(slide)
    told: list[str] = []
    view.damaged.connect(told.append)
    held.broken = True
    held.free.set()
    view.levels[0][0:600, 0:600]
    settled(view)
    assert len(told) == 1
    assert "could not be read" in told[0]
    assert view.levels[0][0:600, 0:600].std() > 5


def test_an_overview_that_takes_long_comes_later(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_genselfdiff.slides.progressive.FIRST_LOOK_SECONDS", 0.01)
    view = ProgressiveSlide(slide_from_arrays(held, name="no pyramid"))
    come = threading.Event()
    view.overview_loaded.connect(come.set)
    assert (np.asarray(view.levels[-1]) == 255).all()
    assert view.levels[0][0:50, 0:50].shape == (50, 50, 3)
    held.free.set()
    assert come.wait(PATIENCE)
    assert np.asarray(view.levels[-1]).std() > 5


def test_a_file_without_a_pyramid_shows_samples_first(
    held: Held, monkeypatch: pytest.MonkeyPatch, picture: Pixels
) -> None:
    monkeypatch.setattr("napari_genselfdiff.slides.sampling.COSTLY", 1_000_000)
    monkeypatch.setattr("napari_genselfdiff.slides.sampling.FIELDS", 10)
    held.free.set()
    slide = slide_from_arrays(held, name="no pyramid")
    assert has_no_overview(slide)
    rgb, downsample = sampled_overview(slide)
    assert rgb.shape == (80, 80, 3)
    assert downsample == pytest.approx(SIDE / 80)
    for row, column in ((0, 0), (4, 7), (9, 9)):  # each field is the tile in its middle, shrunk
        y, x = (int((place + 0.5) * SIDE / 10) // 256 * 256 for place in (row, column))
        truth = picture[y : y + 256, x : x + 256].mean((0, 1))
        shown = rgb[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8].mean((0, 1))
        np.testing.assert_allclose(shown, truth, atol=2)


def test_nothing_keeps_a_closed_slide_alive(slide: Slide, held: Held) -> None:
    held.free.set()
    view = ProgressiveSlide(slide)
    view.levels[0][0:600, 0:600]
    token = view._token
    settled(view)
    del view
    gc.collect()
    assert token not in LOADER._wanted


def test_a_missing_tile_of_a_file_raises_for_whoever_reads_it(slide: Slide, held: Held) -> None:
    held.broken = True
    held.free.set()
    with pytest.raises(UserError, match="could not be read"):
        slide.read(0, 0, 10, 10)
