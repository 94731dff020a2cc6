"""Predictions on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_genselfdiff.events import TileDone
from napari_genselfdiff.geometry import Region, layer_shape
from napari_genselfdiff.segmentation.store import PredictionStore, finest_layer

Labels = NDArray[np.uint8]


def tile(origin: tuple[int, int], labels: Labels, confidence: int = 200) -> TileDone:
    return TileDone(origin, labels, np.full(labels.shape, confidence, np.uint8))


def whole(store: PredictionStore, layer: int) -> Labels:
    return store.read(layer, Region(0, 0, *layer_shape(store.shape, layer)))


def nearest(labels: Labels, shape: tuple[int, int], layer: int, scale: float) -> Labels:
    """The layer as one would sample it directly: class + 1 of the model pixel under each pixel's centre."""
    indices = []
    for side, limit, extent in zip(layer_shape(shape, layer), labels.shape, shape, strict=True):
        centres = (np.arange(side) + 0.5) * (2**layer / scale)
        on_the_slide = np.minimum(centres, extent / scale - 1e-9)
        assert on_the_slide[-1] < limit
        indices.append(on_the_slide.astype(int))
    return labels[np.ix_(*indices)] + np.uint8(1)


def model_grid(shape: tuple[int, int], scale: float, seed: int = 0) -> Labels:
    size = [int(np.ceil(side / scale)) for side in shape]
    return np.random.default_rng(seed).integers(0, 16, size, dtype=np.uint8)


def write_all(store: PredictionStore, labels: Labels, *, step: int, origin: tuple[int, int] = (0, 0)) -> None:
    for y in range(0, labels.shape[0], step):
        for x in range(0, labels.shape[1], step):
            part = labels[y : y + step, x : x + step]
            store.write_tile(tile((y - origin[0], x - origin[1]), part), origin)


# 3.85 divides the height of the slide: its last, partial pixel has its centre beyond the model's grid.
# 1.09 and 1.34 have centres on the first pixel of a tile, to the last bit.
@pytest.mark.parametrize("scale", [1.09, 1.34, 1.0, 2.0, 2.19, 1.002, 0.5, 3.85, 4.38])
def test_tiles_compose_the_layer_without_holes(tmp_path: Path, scale: float) -> None:
    shape = (1001, 670)
    store, labels = PredictionStore(tmp_path / "p", shape, scale), model_grid(shape, scale)
    write_all(store, labels, step=50 if scale == 1.09 else 100 if scale > 1.05 else 211, origin=(7, 13))
    layer = store.finest
    expected = nearest(labels, shape, layer, scale)
    shown = whole(store, layer)
    assert shown.shape == layer_shape(shape, layer)
    assert (shown > 0).all()
    assert (shown == expected).all()
    while layer + 1 in store.layers:
        assert (whole(store, layer + 1) == whole(store, layer)[::2, ::2]).all()
        layer += 1
    assert max(layer_shape(shape, layer)) <= 512


def test_coarser_layers_are_current_after_every_tile(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path / "p", (1500, 1700), 1.0)
    assert sorted(store.layers) == [0, 1, 2]
    rng = np.random.default_rng(1)
    for _ in range(15):
        h, w = rng.integers(1, 300, 2)
        y, x = rng.integers(0, 1500 - h), rng.integers(0, 1700 - w)
        labels = rng.integers(0, 5, (h, w), dtype=np.uint8)
        store.write_tile(tile((0, 0), labels), (int(y), int(x)))
        for layer in (1, 2):
            assert (whole(store, layer) == whole(store, layer - 1)[::2, ::2]).all()


def test_later_tiles_replace_earlier_ones_and_nothing_around_them(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path / "p", (600, 600), 1.0)
    store.write_tile(tile((0, 0), np.full((100, 100), 1, np.uint8)), (50, 50))
    store.write_tile(tile((10, 20), np.full((5, 5), 3, np.uint8)), (100, 100))
    expected = np.zeros((600, 600), np.uint8)
    expected[50:150, 50:150] = 2
    expected[110:115, 120:125] = 4
    assert (whole(store, 0) == expected).all()


def test_pixels_that_were_not_predicted_stay_0(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path / "p", (600, 600), 1.0)
    labels, confidence = np.zeros((10, 10), np.uint8), np.full((10, 10), 9, np.uint8)
    confidence[:, 5:] = 0
    store.write_tile(TileDone((0, 0), labels, confidence), (0, 0))
    shown = whole(store, 0)
    assert (shown[:10, :5] == 1).all()
    assert (shown[:10, 5:] == 0).all()
    assert shown.sum() == 50


def test_tiles_at_and_beyond_the_border(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path / "p", (100, 90), 1.0)
    store.write_tile(tile((0, 0), np.zeros((50, 50), np.uint8)), (80, 70))
    assert whole(store, 0)[80:, 70:].all()
    assert whole(store, 0).sum() == 20 * 20
    store.write_tile(tile((0, 0), np.zeros((5, 5), np.uint8)), (200, 200))
    assert whole(store, 0).sum() == 20 * 20


def test_predictions_are_still_there_when_opened_again(tmp_path: Path) -> None:
    shape, labels = (900, 800), model_grid((900, 800), 2.0)
    first = PredictionStore(tmp_path / "p", shape, 2.0)
    write_all(first, labels[:200], step=150)
    again = PredictionStore(tmp_path / "p", shape, 2.0)
    for layer in first.layers:
        assert (whole(again, layer) == whole(first, layer)).all()
    again.write_tile(tile((0, 0), labels[200:]), (200, 0))
    assert (whole(first, 1) == labels + 1).all()


def test_empty_places_take_no_room(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path / "p", (100_000, 100_000), 1.0)
    store.write_tile(tile((0, 0), np.ones((300, 300), np.uint8)), (50_000, 50_000))
    files = [path for path in (tmp_path / "p").rglob("*") if path.is_file()]
    assert len(files) < 30
    assert sum(path.stat().st_size for path in files) < 100_000
    assert store.read(0, Region(50_000, 50_000, 300, 300)).min() == 2
    assert not store.read(0, Region(1000, 1000, 300, 300)).any()


def test_finer_layers_are_read_from_the_finest_one_there_is(tmp_path: Path) -> None:
    store, labels = PredictionStore(tmp_path / "p", (2100, 900), 4.0), model_grid((2100, 900), 4.0)
    assert store.finest == 2
    write_all(store, labels, step=200)
    shown = store.read(0, Region(101, 203, 50, 60))
    rows, columns = np.arange(101, 151) // 4, np.arange(203, 263) // 4
    assert (shown == labels[np.ix_(rows, columns)] + 1).all()
    assert (store.read(1, Region(50, 60, 7, 9)) == store.read(0, Region(100, 120, 14, 18))[::2, ::2]).all()


def test_the_finest_layer_holds_the_model_without_loss() -> None:
    shape = (100_000, 100_000)
    for scale, layer in ((0.5, 0), (1.0, 0), (1.002, 0), (1.9, 0), (1.96, 1), (2.0, 1), (2.19, 1), (8.0, 3)):
        assert finest_layer(scale, shape) == layer, scale
    assert finest_layer(8.0, (1000, 1000)) == 1  # there is none coarser
