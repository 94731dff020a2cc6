"""Tissue against glass, pen marks and tiles that were not scanned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.ndimage import binary_dilation, binary_erosion

from napari_genselfdiff.geometry import Region
from napari_genselfdiff.slides import open_slide, slide_from_arrays
from napari_genselfdiff.slides.tissue import Tissue, find_tissue, overview, tissue_mask

GLASS = (242, 240, 243)


@pytest.fixture(scope="module")
def tiles(data_dir: Path) -> list[np.ndarray]:
    """Real tissue as it looks on an overview."""
    paths = sorted((data_dir / "monuseg").glob("*/Tissue Images/*.tif"))[::4]
    images = [Image.open(path).convert("RGB").resize((120, 120), Image.Resampling.BOX) for path in paths]
    return [np.asarray(image) for image in images]


def on_glass(tissue: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An overview of 400 x 500 pixels with one piece of tissue, and where it is."""
    noise = np.random.default_rng(0).normal(0, 1.5, (400, 500, 3))
    rgb, truth = np.array(GLASS) + noise, np.zeros((400, 500), bool)
    rgb[100:220, 60:180], truth[100:220, 60:180] = tissue, True
    return rgb.clip(0, 255).astype(np.uint8), truth


def assert_found(found: np.ndarray, rgb: np.ndarray, truth: np.ndarray) -> None:
    """All that is stained, and nothing beyond the piece, but for its rim; its holes may go either way."""
    inside, near = (change(truth, iterations=3) for change in (binary_erosion, binary_dilation))
    assert found[inside & (rgb.min(axis=2) < 160)].mean() > 0.98
    assert not found[~near].any()


def test_tissue_is_told_from_glass(tiles: list[np.ndarray]) -> None:
    for tile in tiles:
        rgb, truth = on_glass(tile)
        assert_found(tissue_mask(rgb), rgb, truth)


@pytest.mark.parametrize(
    "ink", [(20, 20, 22), (30, 60, 190), (20, 130, 70), (200, 25, 40)], ids=["black", "blue", "green", "red"]
)
def test_pen_marks_are_left_out(tiles: list[np.ndarray], ink: tuple[int, int, int]) -> None:
    rgb, truth = on_glass(tiles[0])
    picture = Image.fromarray(rgb)
    ImageDraw.Draw(picture).line([(250, 350), (400, 60), (470, 300)], fill=ink, width=14)
    assert_found(tissue_mask(np.asarray(picture)), rgb, truth)


def test_nothing_of_real_tissue_is_taken_for_ink(tiles: list[np.ndarray]) -> None:
    for tile in tiles:
        rgb = np.tile(tile, (2, 2, 1))
        assert tissue_mask(rgb)[rgb.min(axis=2) < 160].mean() > 0.95


@pytest.mark.parametrize("empty", [(0, 0, 0), (255, 255, 255)])
def test_tiles_that_were_not_scanned_are_left_out(
    tiles: list[np.ndarray], empty: tuple[int, int, int]
) -> None:
    rgb, truth = on_glass(tiles[1])
    rgb[:, 320:] = empty
    assert_found(tissue_mask(rgb), rgb, truth)


@pytest.mark.parametrize("value", [0, 210, 240, 255])
def test_an_overview_of_one_colour_has_no_tissue(value: int) -> None:
    rgb = np.full((50, 60, 3), value, np.uint8)
    assert not tissue_mask(rgb).any()


def test_an_overview_that_is_all_ink_has_no_tissue() -> None:
    dark = np.full((50, 60, 3), (20, 65, 40), np.uint8)
    dark[::2] //= 4
    assert not tissue_mask(dark).any()


def test_sensitivity_takes_paler_tissue_in(tiles: list[np.ndarray]) -> None:
    pale = (0.15 * tiles[2] + 0.85 * np.array(GLASS)).astype(np.uint8)
    rgb, truth = on_glass(pale)
    shares = [float((tissue_mask(rgb, sensitivity=s) & truth).sum()) for s in (0.0, 0.5, 1.0)]
    assert shares[0] < shares[1] < shares[2]


def test_a_real_slide(data_dir: Path) -> None:
    slide = open_slide(data_dir / "slides" / "CMU-1-Small-Region.svs")
    tissue = find_tissue(slide)
    assert tissue.mask.shape[0] == pytest.approx(slide.shape[0] / tissue.downsample, abs=1)
    assert 0.3 < tissue.share < 0.5
    assert tissue.meets(1200, 800, 200, 200)  # in the middle of the piece
    assert not tissue.meets(100, 100, 400, 400)  # glass


def test_a_large_overview_is_read_small() -> None:
    slide = slide_from_arrays([np.full((4000, 6000, 3), 240, np.uint8)], name="a", mpp=None)
    rgb, downsample = overview(slide)
    assert max(rgb.shape) <= 2048
    assert rgb.shape[1] == pytest.approx(6000 / downsample, abs=1)


def test_meets_is_exact_to_a_pixel_of_the_mask() -> None:
    mask = np.zeros((10, 10), bool)
    mask[4, 6] = True
    tissue = Tissue(mask, 16.0)
    assert tissue.meets(64, 96, 1, 1)
    assert tissue.meets(79.5, 111.5, 100, 100)
    assert not tissue.meets(80, 96, 10, 10)
    assert not tissue.meets(0, 0, 64, 200)
    assert not tissue.meets(1000, 1000, 10, 10)


def test_the_mask_is_read_at_the_pixels_of_a_layer() -> None:
    mask = np.random.default_rng(0).random((12, 9)) > 0.5
    tissue = Tissue(mask, 16.0)
    whole = np.kron(mask, np.ones((16, 16), bool))  # level 0
    np.testing.assert_array_equal(tissue.read(0, Region(37, 21, 90, 101)), whole[37:127, 21:122])
    np.testing.assert_array_equal(tissue.read(2, Region(5, 3, 30, 20)), whole[22:142:4, 14:94:4])
    np.testing.assert_array_equal(tissue.read(4, Region(0, 0, 12, 9)), mask)
    # A pixel that hangs over the slide's border.
    np.testing.assert_array_equal(tissue.read(6, Region(2, 2, 1, 1)), [[mask[10, 8]]])


def test_a_large_file_without_a_pyramid_is_sampled_and_no_tissue_is_lost(
    tiles: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_genselfdiff.slides.sampling.COSTLY", 1_000_000)
    monkeypatch.setattr("napari_genselfdiff.slides.sampling.FIELDS", 8)
    rgb, truth = on_glass(tiles[0])
    large = np.asarray(Image.fromarray(rgb).resize((5000, 4000), Image.Resampling.BICUBIC))
    asked = []

    class Counted:
        shape, dtype, ndim, chunks = large.shape, large.dtype, 3, (64, 64, 3)

        def __getitem__(self, key: object) -> np.ndarray:
            asked.append(key)
            return large[key]  # type: ignore[index]

    found = find_tissue(slide_from_arrays(Counted(), name="flat"))
    read = sum((part[0].stop - part[0].start) * (part[1].stop - part[1].start) for part in asked)
    assert read < 0.25 * large[..., 0].size
    rows, columns = np.nonzero(binary_erosion(truth, iterations=3))
    for row, column in zip(rows[::97], columns[::97], strict=True):
        assert found.meets(row * 10, column * 10, 10, 10)
    assert not found.meets(0, 3500, 900, 1400)
    assert found.share < 0.35
