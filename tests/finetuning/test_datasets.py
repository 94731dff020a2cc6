"""Labelled images at a model's resolution."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.pairs import LabelledImage
from napari_genselfdiff.finetuning.datasets import choose_resolution, object_areas, to_example
from napari_genselfdiff.segmentation.instances import core_target


def discs(radius: float, *, count: int = 4, side: int = 400) -> NDArray[np.int32]:
    """Ids of discs on a row."""
    y, x = np.mgrid[:side, :side]
    ids = np.zeros((side, side), np.int32)
    for index in range(count):
        centre = (index + 0.5) * side / count
        ids[np.hypot(y - side / 2, x - centre) < radius] = index + 1
    return ids


def labelled(labels: NDArray[np.generic], valid: NDArray[np.bool_] | None = None) -> LabelledImage:
    rgb = np.where(np.asarray(labels)[..., None] > 0, (90, 60, 140), (230, 180, 210)).astype(np.uint8)
    return LabelledImage("a", rgb, labels, np.ones(labels.shape, bool) if valid is None else valid)


def test_image_and_labels_stay_aligned_when_resampled() -> None:
    labels = np.zeros((100, 150), np.uint8)
    labels[40:, 60:] = 2
    for scale in (1.0, 2.0, 1.7, 0.5):
        example = to_example(labelled(labels), scale=scale, instances=False)
        assert example.labels.shape == (round(100 / scale), round(150 / scale))
        assert example.rgb.shape == (*example.labels.shape, 3)
        dark = example.rgb[..., 1] < 120
        assert (dark != (example.labels == 2)).mean() < 0.02
        assert set(np.unique(example.labels)) == {0, 2}  # no class in between
        assert (example.weight == 1).all()
        assert example.core is None


def test_pixels_without_a_label_do_not_count() -> None:
    labels, valid = np.full((20, 20), 255, np.uint8), np.zeros((20, 20), bool)
    labels[:, 10:], valid[:, 10:] = 1, True
    example = to_example(labelled(labels, valid), scale=2.0, instances=False)
    assert (example.weight[:, :5] == 0).all()
    assert (example.weight[:, 5:] == 1).all()
    assert example.labels.max() == 1


def test_ids_become_a_class_and_a_core() -> None:
    ids = discs(30) + np.where(discs(30) > 0, 1000, 0)  # more ids than a byte holds
    example = to_example(labelled(ids), scale=2.0, instances=True)
    assert example.labels.dtype == np.uint8
    assert set(np.unique(example.labels)) == {0, 1}
    assert example.core is not None
    assert example.core.max() == 1
    np.testing.assert_array_equal(example.core, core_target(ndimage.label(example.labels)[0]))


def test_the_median_object_becomes_16_pixels_wide() -> None:
    mpp, downsample = choose_resolution([labelled(discs(32))], mpp=0.25, instances=True)
    assert downsample == pytest.approx(4, rel=0.03)
    assert mpp == pytest.approx(1.0, rel=0.03)
    mpp, downsample = choose_resolution(
        [labelled((discs(32) > 0).astype(np.uint8))], mpp=None, instances=False
    )
    assert mpp is None
    assert downsample == pytest.approx(4, rel=0.03)


def test_the_resolution_keeps_within_limits() -> None:
    assert choose_resolution([labelled(discs(4))], mpp=0.5, instances=True) == (0.5, 1.0)
    large = [labelled(discs(90, count=2))]
    assert choose_resolution(large, mpp=0.5, instances=True) == (2.5, 5.0)
    assert choose_resolution(large, mpp=4.0, instances=True) == (4.0, 1.0)
    huge = [labelled(discs(190, count=1))]
    assert choose_resolution(huge, mpp=None, instances=True) == (None, 8.0)


def test_specks_do_not_decide() -> None:
    ids = discs(32)
    ids[:20:4, ::4] = np.arange(10, 10 + ids[:20:4, ::4].size).reshape(5, -1)
    assert choose_resolution([labelled(ids)], mpp=0.25, instances=True)[1] == pytest.approx(4, rel=0.03)


def test_labels_without_an_object_are_told() -> None:
    empty, invalid = np.zeros((50, 50), np.uint8), np.zeros((50, 50), bool)
    for image in (labelled(empty), labelled(discs(10, side=50), invalid)):
        with pytest.raises(UserError, match="the labels hold no object"):
            choose_resolution([image], mpp=0.5, instances=True)


def test_areas_of_objects_are_in_model_pixels_and_strokes_have_none() -> None:
    ids = discs(20)
    areas = object_areas(labelled(ids), scale=2.0)
    np.testing.assert_allclose(areas, np.pi * 10**2, rtol=0.02)
    np.testing.assert_array_equal(object_areas(labelled((ids > 0).astype(np.uint8)), scale=2.0), areas)
    valid = np.ones(ids.shape, bool)
    valid[:, 200:] = False
    assert not object_areas(labelled(ids, valid), scale=2.0).size
