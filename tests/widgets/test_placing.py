"""Where the editable window lies: arithmetic, without a window."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from napari_genselfdiff.geometry import Region, layer_count, layer_shape
from napari_genselfdiff.widgets.placing import LARGEST, Place, place_for

SHAPE = (100_000, 80_000)
LAYERS = layer_count(SHAPE)


def view(y: int, x: int, height: int, width: int) -> Region:
    """The part of a rectangle that is on the slide."""
    clipped = Region(y, x, height, width).clipped(*SHAPE)
    assert clipped is not None
    return clipped


@given(
    st.integers(0, 99_999),
    st.integers(0, 79_999),
    st.floats(0.05, 300),
    st.integers(200, 3000),
    st.integers(200, 4000),
)
def test_the_window_holds_the_view_and_no_more_than_it_may(
    y: int, x: int, screen_pixel: float, height: int, width: int
) -> None:
    seen = view(y, x, int(height * screen_pixel) + 1, int(width * screen_pixel) + 1)
    place = place_for(seen, screen_pixel, SHAPE, LAYERS)
    assert place.region.intersection(seen) == seen
    assert max(place.height, place.width) <= LARGEST
    rows, columns = layer_shape(SHAPE, place.layer)
    assert 0 <= place.y < place.y + place.height <= rows
    assert 0 <= place.x < place.x + place.width <= columns
    assert place_for(seen, screen_pixel, SHAPE, LAYERS, place) is place


def test_a_window_pixel_is_about_a_screen_pixel_and_slight_zooming_does_not_change_it() -> None:
    def layer(screen_pixel: float, now: Place | None = None) -> int:
        side = int(1000 * screen_pixel)
        seen = view(40_000, 40_000, side, side)
        return place_for(seen, screen_pixel, SHAPE, LAYERS, now).layer

    assert [layer(pixel) for pixel in (0.1, 1, 1.3, 1.5, 4, 60)] == [0, 0, 0, 1, 2, 6]
    now = place_for(view(40_000, 40_000, 2000, 2000), 2.0, SHAPE, LAYERS)
    assert now.layer == 1
    assert [layer(pixel, now) for pixel in (1.3, 1.5, 3.2)] == [1, 1, 1]
    assert [layer(pixel, now) for pixel in (1.1, 3.5)] == [0, 2]


def test_a_large_screen_gets_a_coarser_window_of_all_of_it() -> None:
    place = place_for(view(40_000, 40_000, 2000, 3800), 1.0, SHAPE, LAYERS)
    assert place.layer == 2
    assert place.region.intersection(view(40_000, 40_000, 2000, 3800)) == view(40_000, 40_000, 2000, 3800)


def test_the_window_moves_when_the_view_leaves_it() -> None:
    now = place_for(view(40_000, 40_000, 800, 1000), 1.0, SHAPE, LAYERS)
    assert now == Place(0, 39_600, 39_500, 1600, 2000)
    assert place_for(view(40_300, 39_600, 800, 1000), 1.0, SHAPE, LAYERS, now) is now
    moved = place_for(view(40_500, 40_000, 800, 1000), 1.0, SHAPE, LAYERS, now)
    assert moved == Place(0, 40_100, 39_500, 1600, 2000)
