"""Distances of boundaries against hand-computed values, scikit-image, SciPy and distance transforms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.spatial.distance import directed_hausdorff
from skimage.metrics import hausdorff_distance

from napari_genselfdiff.segmentation.metrics import distance_scores, hausdorff, hd95

MASKS = arrays(bool, (9, 12), elements=st.booleans(), fill=st.just(False))


def square(y: int, x: int, size: int = 10, shape: tuple[int, int] = (200, 200)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[y : y + size, x : x + size] = True
    return mask


def blobs(seed: int) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((60, 80)), 3)
    return noise > 0.05


def naive_boundary(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)


def test_a_moved_blob_is_as_far_as_it_moved() -> None:
    assert hausdorff(square(5, 5), square(5, 175)) == 170
    assert hausdorff(square(5, 5), square(175, 5), mpp=0.25) == 42.5
    assert hausdorff(square(5, 5), square(8, 9)) == 5
    assert hd95(square(5, 5), square(5, 5)) == 0


def test_the_boundary_counts_and_not_the_inside() -> None:
    """The rim of a hole is 4 pixels from the border of the square, although the square covers it."""
    full = square(5, 5, 13)
    hollow = full & ~square(10, 10, 3)
    assert hausdorff(full, hollow) == 4
    assert hausdorff_distance(full, hollow) < 4


def test_hd95_forgives_what_is_rare_in_its_direction() -> None:
    """A line of 100 pixels, and the same with 4 or 10 more that are 30 away."""
    line = np.zeros((60, 100), bool)
    line[10] = True
    few, many = line.copy(), line.copy()
    few[40, :4] = many[40, :10] = True
    assert hausdorff(few, line) == hausdorff(many, line) == 30
    assert hd95(few, line) == hd95(line, few) == 0
    assert hd95(many, line) == hd95(line, many) == 30


def test_empty_masks() -> None:
    empty, full = np.zeros((30, 40), bool), square(3, 3, shape=(30, 40))
    for distance in (hausdorff, hd95):
        assert distance(empty, empty) == 0.0
        assert distance(full, empty) == distance(empty, full) == 50.0
        assert distance(full, empty, mpp=0.5) == 25.0


def test_unlabelled_pixels_belong_to_neither() -> None:
    predicted, target = blobs(1), blobs(2)
    valid = np.ones_like(target)
    valid[:, 50:] = False
    whole, cut = (distance_scores(predicted, target, valid=mask) for mask in (None, valid))
    assert cut == distance_scores(predicted[:, :50], target[:, :50])
    assert cut != whole


def test_both_distances_in_both_units() -> None:
    a, b = blobs(3), blobs(4)
    pixels = {"hausdorff": hausdorff(a, b), "hd95": hd95(a, b)}
    assert pixels["hausdorff"] > pixels["hd95"] > 0
    assert distance_scores(a, b) == pixels
    microns = {"hausdorff_um": hausdorff(a, b, mpp=0.25), "hd95_um": hd95(a, b, mpp=0.25)}
    assert microns["hausdorff_um"] == pixels["hausdorff"] / 4
    assert distance_scores(a, b, mpp=0.25) == pytest.approx(pixels | microns)


@pytest.mark.parametrize("seed", range(5))
def test_hausdorff_agrees_with_scikit_image(seed: int) -> None:
    a, b = blobs(seed), blobs(seed + 100)
    assert hausdorff(a, b) == pytest.approx(hausdorff_distance(naive_boundary(a), naive_boundary(b)))


@given(MASKS, MASKS)
@settings(deadline=None)
def test_hausdorff_agrees_with_scipy(a: np.ndarray, b: np.ndarray) -> None:
    assume(a.any() and b.any())
    points = [np.argwhere(naive_boundary(mask)) for mask in (a, b)]
    there, back = directed_hausdorff(*points)[0], directed_hausdorff(*points[::-1])[0]
    assert hausdorff(a, b) == pytest.approx(max(there, back))


@given(MASKS, MASKS)
@settings(deadline=None)
def test_hd95_agrees_with_distance_transforms(a: np.ndarray, b: np.ndarray) -> None:
    assume(a.any() and b.any())
    edges = naive_boundary(a), naive_boundary(b)
    ways = [ndimage.distance_transform_edt(~there)[here] for here, there in (edges, edges[::-1])]
    expected = max(np.percentile(distances, 95) for distances in ways)
    assert hd95(a, b, mpp=2.0) == pytest.approx(2 * expected)
