"""Outlines follow pixel edges exactly."""

from __future__ import annotations

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage
from skimage.draw import polygon2mask

from napari_genselfdiff.exchange.outlines import fill_rings, trace_outlines

MAPS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 3))


def test_a_square_with_a_hole() -> None:
    labels = np.zeros((6, 6), np.uint8)
    labels[1:5, 1:5] = 9
    labels[2:4, 2:4] = 0
    (outline,) = trace_outlines(labels)
    assert outline.value == 9
    hollow = shapely.box(1, 1, 5, 5).difference(shapely.box(2, 2, 4, 4))
    assert shapely.Polygon(outline.rings[0], outline.rings[1:]).equals(hollow)
    assert len(outline.rings[0]) == len(outline.rings[1]) == 5  # corners only


def test_pixels_that_touch_at_a_corner_are_two_parts() -> None:
    assert len(list(trace_outlines(np.eye(3, dtype=np.uint8)))) == 3


@given(MAPS)
@settings(max_examples=200, deadline=None)
def test_outlines_are_valid_polygons_of_the_right_area(labels: np.ndarray) -> None:
    outlines = list(trace_outlines(labels))
    polygons = [shapely.Polygon(outline.rings[0], outline.rings[1:]) for outline in outlines]
    assert all(polygon.is_valid for polygon in polygons)
    for value in range(1, 4):
        chosen = [p for p, outline in zip(polygons, outlines, strict=True) if outline.value == value]
        assert sum(p.area for p in chosen) == (labels == value).sum()
        assert len(chosen) == ndimage.label(labels == value)[1]


@given(MAPS)
@settings(max_examples=200, deadline=None)
def test_filling_gives_the_labels_back(labels: np.ndarray) -> None:
    drawn = np.zeros_like(labels)
    for outline in trace_outlines(labels):
        fill_rings(drawn, [np.array(ring, float) for ring in outline.rings], outline.value)
    np.testing.assert_array_equal(drawn, labels)


@given(arrays(np.float64, (6, 2), elements=st.floats(-5, 25, allow_nan=False)))
@settings(max_examples=100, deadline=None)
def test_any_polygon_is_filled_like_scikit_image_does(points: np.ndarray) -> None:
    ring = np.vstack([points + 0.0123, points[:1] + 0.0123])
    polygon = shapely.Polygon(ring)
    drawn = np.zeros((20, 20), np.uint8)
    fill_rings(drawn, [ring], 1)
    expected = polygon2mask((20, 20), ring[:, ::-1] - 0.5)
    edge = shapely.distance(
        polygon.exterior, shapely.points(*np.meshgrid(np.arange(20) + 0.5, np.arange(20) + 0.5))
    )
    clear = edge > 1e-6
    np.testing.assert_array_equal((drawn == 1)[clear], expected[clear])
