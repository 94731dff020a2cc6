"""Objects from their cores, on drawn shapes and on the nuclei of MoNuSeg."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from napari_genselfdiff.segmentation.instances import (
    Separation,
    _smoothed,
    core_target,
    label_instances,
    relative_depth,
    separation,
)
from napari_genselfdiff.segmentation.metrics import aji


def touching_discs() -> np.ndarray:
    y, x = np.mgrid[:40, :60]
    ids = np.zeros((40, 60), np.int32)
    ids[(y - 20) ** 2 + (x - 20) ** 2 <= 100] = 7
    ids[((y - 20) ** 2 + (x - 38) ** 2 <= 100) & (ids == 0)] = 3
    return ids


@pytest.fixture(scope="module")
def nuclei(data_dir: Path) -> list[np.ndarray]:
    """Every sixth MoNuSeg map, at 0.5 µm per pixel."""
    files = sorted((data_dir / "monuseg" / "instances").glob("*.png"))[::6]
    if not files:
        pytest.skip("no MoNuSeg instance maps in the data folder")
    return [np.asarray(Image.open(file)).astype(np.int32)[::2, ::2] for file in files]


def test_depth_is_that_in_the_own_object() -> None:
    ids = touching_discs()
    depth, shallow = relative_depth(ids), relative_depth(ids, deepest=4)
    assert depth.dtype == np.float32
    for number in (3, 7):
        alone = ndimage.distance_transform_edt(ids == number)
        np.testing.assert_allclose(depth[ids == number], (alone / alone.max())[ids == number], rtol=1e-6)
        np.testing.assert_allclose(shallow[ids == number], np.minimum(alone / 4, 1)[ids == number], rtol=1e-6)
    assert not depth[ids == 0].any()


def test_depth_of_odd_maps() -> None:
    assert not relative_depth(np.zeros((5, 6), np.uint8)).any()
    assert (relative_depth(np.ones((5, 6), np.uint8)) == 1).all()  # an object without an outside
    ids = touching_discs()
    renamed = np.where(ids == 7, 2_000_000_000, ids)
    np.testing.assert_array_equal(relative_depth(renamed), relative_depth(ids))
    full = np.where(ids == 7, 2_000_000_000, 1)
    np.testing.assert_array_equal(relative_depth(full), relative_depth(np.where(ids == 7, 2, 1)))


def test_a_core_is_all_of_a_large_object_but_its_rim_and_the_middle_half_of_a_small_one() -> None:
    ids = np.zeros((40, 60), np.int32)
    ids[5:35, 5:35] = 1
    ids[10:15, 50:55] = 2  # its middle is three pixels from the outside
    core = core_target(ids) > 0
    expected = np.zeros_like(core)
    expected[8:32, 8:32] = expected[11:14, 51:54] = True
    np.testing.assert_array_equal(core, expected)
    assert core_target(np.eye(3)).sum() == 3  # even a pixel is seen


def test_cores_of_objects_that_touch_do_not() -> None:
    ids = touching_discs()
    assert ndimage.label(core_target(ids))[1] == 2
    assert ndimage.label(ids > 0)[1] == 1


def test_touching_objects_are_separated() -> None:
    ids = touching_discs()
    found = label_instances(ids > 0, core_target(ids))
    assert found.dtype == np.int32
    assert aji(found, ids) > 0.99
    assert found[20, 20] == 1
    assert found[20, 38] == 2  # numbers follow the raster order of the first pixels


def test_no_foreground_vanishes_but_what_is_too_small() -> None:
    foreground = np.zeros((40, 40), bool)
    foreground[2:8, 2:8] = foreground[20:30, 20:30] = True
    foreground[35:37, 2:4] = True
    core = np.zeros((40, 40), np.float32)
    core[24:26, 24:26] = 1  # only the second object has one
    kept = label_instances(foreground, core, Separation(min_area=1))
    assert kept.max() == 3
    np.testing.assert_array_equal(kept > 0, foreground)
    assert label_instances(foreground, core, Separation(min_area=5)).max() == 2


def test_probabilities_are_thresholded() -> None:
    ids = touching_discs()
    probability = np.where(ids > 0, 0.6, 0.4)
    core = core_target(ids)
    np.testing.assert_array_equal(label_instances(probability, core), label_instances(ids > 0, core))
    assert not label_instances(probability, core, threshold=0.7).any()


def test_the_larger_the_objects_the_wider_the_smoothing() -> None:
    nuclei, glands = separation(80), separation(1800)
    assert nuclei.smoothing == 0.75
    assert glands.smoothing == pytest.approx(4.2, abs=0.1)
    assert (nuclei.min_area, glands.min_area) == (12, 180)
    assert separation(None) == Separation()


def test_separation_is_in_pixels_of_the_map() -> None:
    fine = separation(1800, scale=2.5)
    assert fine.smoothing == pytest.approx(2.5 * separation(1800).smoothing)
    assert fine.min_area == 1125
    assert separation(None, scale=2) == Separation(smoothing=1.5, min_area=48)
    assert separation(None, scale=100).min_area == separation(None, scale=8).min_area  # specks of a thumbnail


def test_a_long_gland_with_a_gap_in_its_core_stays_one_and_specks_go() -> None:
    y, x = np.mgrid[:120, :200]
    gland = (np.abs(y - 60) <= 20) & (x > 10) & (x < 190)
    core = np.where(gland & (np.abs(x - 100) > 1), 0.9, 0)
    gland[5:12, 5:12] = True
    assert label_instances(gland, core, separation(80)).max() == 3
    assert label_instances(gland, core, separation(3000)).max() == 1


def test_nuclei_survive_the_round_trip(nuclei: list[np.ndarray]) -> None:
    scores = [aji(label_instances(ids > 0, core_target(ids)), ids) for ids in nuclei]
    assert min(scores) >= 0.9
    assert np.mean(scores) >= 0.97


def test_noise_on_the_cores_does_little_harm(nuclei: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    scores = []
    for ids in nuclei:
        noisy = core_target(ids) + 0.2 * rng.standard_normal(ids.shape)
        scores.append(aji(label_instances(ids > 0, noisy), ids))
    assert min(scores) >= 0.9


def test_a_megapixel_takes_less_than_half_a_second(nuclei: list[np.ndarray]) -> None:
    ids = np.block([[nuclei[0], nuclei[1]], [nuclei[2], nuclei[3]]])
    ids = ndimage.label(ids)[0]
    core = core_target(ids)
    seconds = []
    for _ in range(3):
        started = time.process_time()
        label_instances(ids > 0, core)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.5


@pytest.mark.parametrize("smoothing", [1.0, 3.0, 6.5, 20.0])
def test_wide_smoothing_on_a_smaller_image_is_the_gaussian(smoothing: float) -> None:
    rng = np.random.default_rng(3)
    image = (ndimage.gaussian_filter(rng.random((403, 517)), 6) > 0.5).astype(np.float32)
    exact = ndimage.gaussian_filter(image, smoothing)
    np.testing.assert_allclose(_smoothed(image, smoothing), exact, atol=0.03)
