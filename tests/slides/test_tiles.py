"""Random tiles of tissue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_genselfdiff.errors import MissingScaleError, UserError
from napari_genselfdiff.slides import Slide, open_slide, slide_from_arrays
from napari_genselfdiff.slides.tiles import Tile, TileSample, sample_tiles

GLASS = 245


def half_tissue(*, seed: int = 0, mpp: float | None = 0.5, side: int = 1600) -> Slide:
    """Purple on the left half, glass on the right."""
    rng = np.random.default_rng(seed)
    rgb = np.full((side, side, 3), GLASS, np.uint8)
    left = rng.integers(-25, 25, (side, side // 2, 3)) + np.array((150, 90, 160))
    rgb[:, : side // 2] = left.astype(np.uint8)
    return slide_from_arrays([rgb], name=f"slide {seed}", mpp=mpp)


def sampled(slides: list[Slide], **options: int) -> TileSample:
    given = {"side": 100, "count": 40, "held_out": 10, "seed": 3} | options
    return sample_tiles(slides, mpp=1.0, **given)


def test_tiles_lie_on_tissue_and_not_on_glass() -> None:
    slides = [half_tissue()]
    sample = sampled(slides)
    assert (len(sample.training), len(sample.held_out)) == (40, 10)
    for tile in (*sample.training, *sample.held_out):
        pixels = sample.read(slides, tile)
        assert pixels.shape == (100, 100, 3)
        assert (pixels.min(axis=2) < 200).mean() >= 0.45


def test_the_seed_decides_which() -> None:
    assert sampled([half_tissue()]) == sampled([half_tissue()])
    assert sampled([half_tissue()]).training != sampled([half_tissue()], seed=4).training


def test_held_out_tiles_share_no_pixel_with_the_others() -> None:
    slides = [half_tissue(seed=0), half_tissue(seed=1)]
    sample = sampled(slides, count=200, held_out=60)

    def covered(tiles: tuple[Tile, ...]) -> np.ndarray:
        masks = np.zeros((2, 800, 800), bool)
        for tile in tiles:
            masks[tile.slide, tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] = True
        return masks

    a, b = covered(sample.training), covered(sample.held_out)
    assert not (a & b).any()
    assert a.any(axis=(1, 2)).all()
    assert b.any()
    training, held_out = sample.cells
    assert 0.1 <= held_out / (training + held_out) <= 0.3


def test_what_is_held_out_of_a_slide_does_not_depend_on_the_others() -> None:
    slides = [half_tissue(seed=0, side=6400), half_tissue(seed=1, side=6400)]
    alone = sampled(slides[:1], held_out=300).held_out
    together = [tile for tile in sampled(slides, held_out=300).held_out if tile.slide == 0]
    cells = {(tile.y // 400, tile.x // 400) for tile in together}
    assert cells <= {(tile.y // 400, tile.x // 400) for tile in alone}


def test_a_small_image_is_one_tile() -> None:
    slides = [half_tissue(seed=i, side=160) for i in range(5)]
    sample = sampled(slides)
    assert {(tile.height, tile.width) for tile in sample.training} == {(80, 80)}
    assert {t.slide for t in sample.training}.isdisjoint({t.slide for t in sample.held_out})


def test_a_slide_without_tissue_or_resolution_says_so() -> None:
    glass = slide_from_arrays([np.full((900, 900, 3), GLASS, np.uint8)], name="glass", mpp=0.5)
    with pytest.raises(UserError, match="no tissue was found, glass"):
        sampled([glass])
    with pytest.raises(MissingScaleError):
        sampled([half_tissue(mpp=None)])


def test_tiles_of_a_real_slide_are_tissue(cmu_slide: Path) -> None:
    slide = open_slide(cmu_slide)
    sample = sample_tiles([slide], mpp=0.5, side=128, count=12, held_out=4)
    for tile in (*sample.training, *sample.held_out):
        assert (sample.read([slide], tile).min(axis=2) < 220).mean() > 0.3
