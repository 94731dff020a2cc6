"""Predictions at another resolution, and their objects."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_genselfdiff.segmentation.prediction import Prediction


def with_edge(scale: float, *, axis: int, edge: int, origin: tuple[int, int] = (0, 0)) -> Prediction:
    """Background before pixel ``edge`` of the grid along an axis, class 1 from there on."""
    plane = np.zeros((60, 70), np.uint8)
    plane[(slice(None), slice(edge, None)) if axis else slice(edge, None)] = 255
    return Prediction(origin, scale, np.stack([255 - plane, plane]), plane // 2)


def crossing(profile: NDArray[np.uint8]) -> float:
    """Where a rising profile passes the half, in pixels from its beginning."""
    values = profile.astype(float)
    index = int(np.argmax(values > 127.5))
    before, after = values[index - 1], values[index]
    return float(index - 0.5 + (127.5 - before) / (after - before))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("scale", [2.0, 1.37, 1.0, 0.5, 2.19])
def test_an_edge_stays_at_its_place(scale: float, axis: int) -> None:
    origin = (5, 11)
    prediction = with_edge(scale, axis=axis, edge=21, origin=origin)
    place = (origin[axis] + 21) * scale  # in level-0 pixels
    # A part that begins between pixels of the grid, and another one, cut elsewhere.
    for y, x in ((round(9 * scale) + 1, round(14 * scale) + 1), (round(16 * scale), round(13 * scale) + 3)):
        height, width = round(40 * scale), round(41 * scale)
        shown = prediction.resampled(y, x, height, width)
        assert (shown.origin, shown.scale) == ((y, x), 1.0)
        assert shown.probabilities.shape == (2, height, width)
        plane = shown.probabilities[1]
        assert y + crossing(plane[:, 5]) == pytest.approx(place, abs=0.5) if axis == 0 else True
        assert x + crossing(plane[5]) == pytest.approx(place, abs=0.5) if axis == 1 else True
        assert shown.core is not None
        assert shown.core.shape == (height, width)
        edge = round(place) - (y, x)[axis]
        labels = shown.labels if axis == 0 else shown.labels.T
        assert (labels[: edge - 1] == 0).all()
        assert (labels[edge + 1 :] == 1).all()


def test_parts_fit_together() -> None:
    rng = np.random.default_rng(0)
    plane = rng.integers(0, 256, (40, 50), dtype=np.uint8)
    prediction = Prediction((3, 4), 1.37, np.stack([plane, 255 - plane]), None)
    whole = prediction.resampled(5, 6, 48, 60)
    part = prediction.resampled(15, 16, 30, 20)
    cut = whole.probabilities[:, 10:40, 10:30].astype(int)
    assert np.abs(part.probabilities - cut).max() <= 1
    assert part.core is None


def test_its_own_grid_is_an_exact_copy() -> None:
    plane = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    prediction = Prediction((3, 4), 1.0, np.stack([plane, 255 - plane]), plane)
    shown = prediction.resampled(3, 4, 40, 50)
    assert (shown.probabilities == prediction.probabilities).all()
    assert shown.core is not None
    assert (shown.core == plane).all()


def test_what_lies_beyond_is_not_predicted_and_moves_nothing() -> None:
    prediction = with_edge(2.0, axis=1, edge=20, origin=(10, 10))
    shown = prediction.resampled(0, 0, 160, 180)  # the grid reaches from 20 to 140 and from 20 to 160
    inside = np.zeros((160, 180), bool)
    inside[20:140, 20:160] = True
    assert (shown.confidence[~inside] == 0).all()
    assert (shown.confidence[inside] > 0).all()
    assert crossing(shown.probabilities[1, 80, :150]) == pytest.approx(60, abs=0.5)
    assert not prediction.resampled(500, 500, 10, 10).confidence.any()


def test_labels_and_confidence() -> None:
    planes = np.array([[[200, 10, 0]], [[40, 30, 0]], [[15, 215, 0]]], np.uint8)
    prediction = Prediction((0, 0), 1.0, planes, None)
    assert prediction.labels.tolist() == [[0, 2, 0]]
    assert prediction.confidence.tolist() == [[200, 215, 0]]  # nothing was predicted in the last pixel
