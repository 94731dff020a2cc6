"""Changes of stain and light."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2hed

from napari_genselfdiff.finetuning.augmentation import jitter_stain

ALL = np.stack(np.meshgrid(*[np.arange(0, 256, 15, dtype=np.uint8)] * 3), axis=-1).reshape(18, -1, 3)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_shape_and_dtype_stay() -> None:
    jittered = jitter_stain(ALL, rng())
    assert jittered.shape == ALL.shape
    assert jittered.dtype == np.uint8


def test_without_strength_nothing_changes() -> None:
    assert (jitter_stain(ALL, rng(), strength=0, shift=0) == ALL).all()


def test_seeds_repeat_and_differ() -> None:
    assert (jitter_stain(ALL, rng(1)) == jitter_stain(ALL, rng(1))).all()
    assert (jitter_stain(ALL, rng(1)) != jitter_stain(ALL, rng(2))).mean() > 0.3


def test_white_stays_nearly_white() -> None:
    white = np.full((4, 4, 3), 255, np.uint8)
    assert all(jitter_stain(white, rng(seed)).min() > 235 for seed in range(50))
    assert all((jitter_stain(white, rng(seed), shift=0) == 255).all() for seed in range(5))


def test_tissue_changes_visibly_but_not_wildly() -> None:
    purple: NDArray[np.uint8] = np.full((4, 4, 3), (120, 70, 150), np.uint8)
    changes = [np.abs(jitter_stain(purple, rng(seed)).astype(int) - purple).max() for seed in range(50)]
    assert 5 < np.mean(changes) < 40
    assert max(changes) < 70


def test_each_stain_is_scaled_by_its_own_factor() -> None:
    """In the stain space of an independent implementation, the ratio is the same for all colours."""
    colours = np.array([[[120, 70, 150], [200, 120, 190], [90, 60, 130], [180, 90, 160]]], np.uint8)
    before = rgb2hed(colours)
    after = rgb2hed(jitter_stain(colours, rng(3), shift=0))
    ratios = (after / before)[0, :, :2]
    np.testing.assert_allclose(ratios, ratios.mean(axis=0, keepdims=True).repeat(4, axis=0), atol=0.06)
    assert abs(ratios[0, 0] - ratios[0, 1]) > 0.03
