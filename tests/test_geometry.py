"""Rectangles and layers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from napari_genselfdiff.geometry import Region, layer_count, layer_shape

SIDES = st.integers(1, 50)
REGIONS = st.builds(Region, st.integers(-50, 50), st.integers(-50, 50), SIDES, SIDES)


def pixels(region: Region | None) -> set[tuple[int, int]]:
    if region is None:
        return set()
    return {(y, x) for y in range(region.y, region.bottom) for x in range(region.x, region.right)}


@given(REGIONS, REGIONS)
def test_the_intersection_holds_the_pixels_of_both(a: Region, b: Region) -> None:
    assert pixels(a.intersection(b)) == pixels(a) & pixels(b) == pixels(b.intersection(a))


@given(REGIONS, SIDES, SIDES)
def test_clipping_keeps_what_lies_on_the_slide(region: Region, height: int, width: int) -> None:
    assert pixels(region.clipped(height, width)) == pixels(region) & pixels(Region(0, 0, height, width))


def test_borders_and_centre() -> None:
    region = Region(10, 20, 5, 8)
    assert (region.bottom, region.right) == (15, 28)
    assert region.centre == (12.5, 24.0)
    assert region.intersection(Region(15, 20, 5, 8)) is None  # they touch


@given(st.integers(1, 200_000), st.integers(1, 200_000))
def test_layers_halve_until_the_coarsest_fits(height: int, width: int) -> None:
    count = layer_count((height, width))
    for layer in range(count - 1):
        h, w = layer_shape((height, width), layer)
        assert max(h, w) > 512
        assert layer_shape((height, width), layer + 1) == ((h + 1) // 2, (w + 1) // 2)
    assert max(layer_shape((height, width), count - 1)) <= 512
    assert layer_shape((height, width), 0) == (height, width)


def test_small_slides_have_one_layer() -> None:
    assert layer_count((512, 512)) == 1
    assert layer_count((513, 1)) == 2
    assert layer_count((1000, 1000), coarsest=100) == 5
