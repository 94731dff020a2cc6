"""What a model in training says, shown over the view."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.widgets.conftest import TINY

from napari_genselfdiff.finetuning.scoring import predict_image
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.network import Segmenter, SegmenterSpec, build_segmenter
from napari_genselfdiff.widgets.preview import PREVIEW_NAME, Preview
from napari_genselfdiff.widgets.view import show_region

pytestmark = pytest.mark.gui

PLACES = (Region(100, 120, 200, 240), Region(300, 400, 160, 200))


@pytest.fixture
def preview() -> Iterator[Preview]:
    made = Preview(pytest.fail)
    yield made
    made.close()


@pytest.fixture
def layers(dock: Any, tissue: np.ndarray[Any, Any]) -> Any:
    """Of a slide of 0.25 um/px, half as fine as the model."""
    dock.viewer.add_image(tissue, rgb=True, name="tissue", scale=(0.25, 0.25), units=("um", "um"))
    return dock.layers


@pytest.fixture
def segmenter() -> Segmenter:
    return build_segmenter(SegmenterSpec(TINY, ("background", "nucleus"), mpp=0.5), start=None, seed=3)


def look(preview: Preview, layers: Any, segmenter: Segmenter, place: Region) -> Any:
    """Look at a place, show the model's answer there, and return the layer."""
    show_region(layers.viewer, layers.image, place)
    preview.show(layers, segmenter)
    preview._queue.wait()
    return layers.viewer.layers[PREVIEW_NAME]


def test_it_says_what_the_model_says_where_it_says_it(
    preview: Preview, layers: Any, segmenter: Segmenter
) -> None:
    for place in PLACES:
        layer = look(preview, layers, segmenter, place)
        y, x = (round(float(value) / 0.5) for value in layer.translate)
        height, width = layer.data.shape
        rgb = layers.session.slide.read_scaled(y, x, height, width, scale=2.0)
        np.testing.assert_array_equal(
            layer.data, predict_image(segmenter, rgb, layers.session.compute).labels
        )
        # The corners of the place lie in it, to a pixel of the model.
        for corner in ((place.y, place.x), (place.bottom, place.right)):
            world = np.array(corner) * 0.25
            low, high = np.array(layer.extent.world)
            assert (world > low - 0.5).all()
            assert (world < high + 0.5).all()


def test_one_layer_shows_all_of_them_and_painting_goes_on(
    preview: Preview, layers: Any, segmenter: Segmenter
) -> None:
    viewer = layers.viewer
    viewer.layers.selection.active = layers.image
    first = look(preview, layers, segmenter, PLACES[0])
    assert look(preview, layers, segmenter, PLACES[1]) is first
    assert viewer.layers.selection.active is layers.image
    assert not first.editable
    viewer.layers.remove(first)
    again = look(preview, layers, segmenter, PLACES[0])
    assert again is not first
    preview.clear()
    assert PREVIEW_NAME not in viewer.layers


def test_what_comes_after_the_end_is_not_shown(preview: Preview, layers: Any, segmenter: Segmenter) -> None:
    show_region(layers.viewer, layers.image, PLACES[0])
    preview.show(layers, segmenter)
    preview.clear()
    preview._queue.wait()
    assert PREVIEW_NAME not in layers.viewer.layers
    look(preview, layers, segmenter, PLACES[0])
