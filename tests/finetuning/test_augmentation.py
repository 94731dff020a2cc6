"""Changes of stain, light and focus."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2hed

from napari_genselfdiff.finetuning.augmentation import Appearance, vary_appearance

ALL = np.stack(np.meshgrid(*[np.arange(0, 256, 15, dtype=np.uint8)] * 3), axis=-1).reshape(18, -1, 3)
NONE = Appearance(*[0.0] * 8)
STAIN = Appearance(0.4, *[0.0] * 7)
LIGHT = Appearance(0, 0, 0, 0.25, 0, 0, 0)
TEXTURE = Appearance(*[0.0] * 7, 0.6)
FOCUS = Appearance(*[0.0] * 5, 2.5, 1.0)
PURPLE: NDArray[np.uint8] = np.full((4, 4, 3), (120, 70, 150), np.uint8)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_shape_and_dtype_stay() -> None:
    varied = vary_appearance(ALL, rng())
    assert varied.shape == ALL.shape
    assert varied.dtype == np.uint8


def test_without_strength_nothing_changes() -> None:
    assert all((vary_appearance(ALL, rng(seed), NONE) == ALL).all() for seed in range(8))


def test_seeds_repeat_and_differ() -> None:
    assert (vary_appearance(ALL, rng(1)) == vary_appearance(ALL, rng(1))).all()
    assert (vary_appearance(ALL, rng(1)) != vary_appearance(ALL, rng(2))).mean() > 0.3


def test_white_stays_nearly_white() -> None:
    white = np.full((4, 4, 3), 255, np.uint8)
    assert all(vary_appearance(white, rng(seed)).min() > 150 for seed in range(50))
    assert all((vary_appearance(white, rng(seed), STAIN) == 255).all() for seed in range(5))


def test_tissue_changes_visibly_but_not_wildly() -> None:
    varied = [vary_appearance(PURPLE, rng(seed)).astype(int) for seed in range(100)]
    changes = [np.abs(image - PURPLE).max() for image in varied]
    assert 15 < np.mean(changes) < 60
    assert max(changes) < 140
    for image in varied:  # what is darkest in haematoxylin's colour stays so
        assert image[..., 1].mean() < image[..., 2].mean()


def test_each_stain_is_scaled_by_its_own_factor() -> None:
    """In the stain space of an independent implementation, the ratio is the same for all colours."""
    colours = np.array([[[120, 70, 150], [200, 120, 190], [90, 60, 130], [180, 90, 160]]], np.uint8)
    ratios = (rgb2hed(vary_appearance(colours, rng(3), STAIN)) / rgb2hed(colours))[0, :, :2]
    np.testing.assert_allclose(ratios, ratios.mean(axis=0, keepdims=True).repeat(4, axis=0), atol=0.06)
    assert abs(ratios[0, 0] - ratios[0, 1]) > 0.03


def test_light_changes_all_densities_alike() -> None:
    def density(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
        return np.asarray(-np.log((rgb + 1.0) / 256))

    changes = [density(vary_appearance(PURPLE, rng(seed), LIGHT)) - density(PURPLE) for seed in range(60)]
    assert all(np.ptp(change) < 0.03 for change in changes)
    means = [change.mean() for change in changes]
    assert min(means) < -0.15
    assert max(means) > 0.15


def test_half_is_sharpened_a_quarter_blurred_and_a_quarter_left() -> None:
    edge = np.full((32, 32, 3), 200, np.uint8)
    edge[:, 16:] = 100
    steps = [np.ptp(vary_appearance(edge, rng(seed), FOCUS)[16, 14:18, 0].astype(int)) for seed in range(400)]
    sharper, softer = np.mean([s > 100 for s in steps]), np.mean([s < 100 for s in steps])
    assert 0.4 < sharper < 0.6
    assert 0.08 < softer < 0.3  # the least blur is hardly one


def test_every_second_image_gets_a_texture_that_leaves_glass_alone() -> None:
    plain = np.full((32, 32, 3), (120, 70, 150), np.uint8)
    plain[:, 16:] = 255
    varied = [vary_appearance(plain, rng(seed), TEXTURE) for seed in range(200)]
    assert 0.4 < np.mean([np.ptp(image[:, :16, 0].astype(int)) > 3 for image in varied]) < 0.6
    assert all((image[:, 16:] == 255).all() for image in varied)
