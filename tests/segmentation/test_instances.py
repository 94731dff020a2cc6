"""Objects from distance maps, on drawn shapes and on the nuclei of MoNuSeg."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from napari_genselfdiff.segmentation.instances import distance_target, label_instances
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


def test_distance_is_to_the_outside_of_the_own_object() -> None:
    ids = touching_discs()
    target = distance_target(ids)
    assert target.dtype == np.float32
    for number in (3, 7):
        alone = ndimage.distance_transform_edt(ids == number)
        np.testing.assert_allclose(target[ids == number], (alone / alone.max())[ids == number], rtol=1e-6)
    assert not target[ids == 0].any()


def test_distance_of_odd_maps() -> None:
    assert not distance_target(np.zeros((5, 6), np.uint8)).any()
    assert (distance_target(np.ones((5, 6), np.uint8)) == 1).all()  # an object without an outside
    ids = touching_discs()
    renamed = np.where(ids == 7, 2_000_000_000, ids)
    np.testing.assert_array_equal(distance_target(renamed), distance_target(ids))
    full = np.where(ids == 7, 2_000_000_000, 1)
    np.testing.assert_array_equal(distance_target(full), distance_target(np.where(ids == 7, 2, 1)))


def test_touching_objects_are_separated() -> None:
    ids = touching_discs()
    found = label_instances(ids > 0, distance_target(ids))
    assert found.dtype == np.int32
    assert aji(found, ids) > 0.99
    assert found[20, 20] == 1
    assert found[20, 38] == 2  # numbers follow the raster order of the first pixels


def test_no_foreground_vanishes_but_what_is_too_small() -> None:
    foreground = np.zeros((40, 40), bool)
    foreground[2:8, 2:8] = foreground[20:30, 20:30] = True
    foreground[35:37, 2:4] = True
    distance = np.zeros((40, 40), np.float32)
    distance[24:26, 24:26] = 1  # only the second object has a ridge
    kept = label_instances(foreground, distance, min_area=1)
    assert kept.max() == 3
    np.testing.assert_array_equal(kept > 0, foreground)
    assert label_instances(foreground, distance, min_area=5).max() == 2


def test_probabilities_are_thresholded() -> None:
    ids = touching_discs()
    probability = np.where(ids > 0, 0.6, 0.4)
    distance = distance_target(ids)
    np.testing.assert_array_equal(label_instances(probability, distance), label_instances(ids > 0, distance))
    assert not label_instances(probability, distance, threshold=0.7).any()


def test_nuclei_survive_the_round_trip(nuclei: list[np.ndarray]) -> None:
    scores = [aji(label_instances(ids > 0, distance_target(ids)), ids) for ids in nuclei]
    assert min(scores) >= 0.9
    assert np.mean(scores) >= 0.97


def test_noise_on_the_distance_does_little_harm(nuclei: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    scores = []
    for ids in nuclei:
        noisy = distance_target(ids) + 0.1 * rng.standard_normal(ids.shape)
        scores.append(aji(label_instances(ids > 0, noisy), ids))
    assert min(scores) >= 0.9


def test_a_megapixel_takes_less_than_half_a_second(nuclei: list[np.ndarray]) -> None:
    ids = np.block([[nuclei[0], nuclei[1]], [nuclei[2], nuclei[3]]])
    ids = ndimage.label(ids)[0]
    distance = distance_target(ids)
    seconds = []
    for _ in range(3):
        started = time.process_time()
        label_instances(ids > 0, distance)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.5
