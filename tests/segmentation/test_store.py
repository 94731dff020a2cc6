"""Predictions on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from napari_genselfdiff.events import TileDone
from napari_genselfdiff.exchange.omezarr import read_ome_zarr
from napari_genselfdiff.geometry import Region, layer_shape
from napari_genselfdiff.segmentation.store import CELL, STEP, PredictionStore, finest_layer

Labels = NDArray[np.uint8]


def tile(origin: tuple[int, int], labels: Labels, confidence: int = 200) -> TileDone:
    return TileDone(origin, labels, np.full(labels.shape, confidence, np.uint8))


def whole(store: PredictionStore, layer: int) -> Labels:
    return store.read(layer, Region(0, 0, *layer_shape(store.shape, layer)))


def model_grid(shape: tuple[int, int], scale: float, seed: int = 0) -> Labels:
    size = [int(np.ceil(side / scale)) for side in shape]
    return np.random.default_rng(seed).integers(0, 16, size, dtype=np.uint8)


def write_all(store: PredictionStore, labels: Labels, *, step: int, origin: tuple[int, int] = (0, 0)) -> None:
    for y in range(0, labels.shape[0], step):
        for x in range(0, labels.shape[1], step):
            part = labels[y : y + step, x : x + step]
            store.write_tile(tile((y - origin[0], x - origin[1]), part), origin)


@pytest.mark.parametrize("scale", [1.09, 1.34, 1.0, 2.0, 2.19, 1.002, 0.5, 3.85, 4.38])
def test_every_layer_shows_what_the_model_said_under_its_pixels(tmp_path: Path, scale: float) -> None:
    shape = (1001, 670)
    store, labels = PredictionStore(tmp_path / "p", shape, scale), model_grid(shape, scale)
    write_all(store, labels, step=97, origin=(7, 13))
    for layer in range(4):
        shown = whole(store, layer)
        assert shown.shape == layer_shape(shape, layer)
        assert (shown > 0).all()
        # The pixel of the model under the centre, to the pixels that the coarser layers of the store drop.
        ours = min(max(0, int(np.floor(np.log2(2**layer / scale) + 1e-9))), len(store.layers) - 1)
        dropped = 2**ours
        indices = []
        for side, limit in zip(shown.shape, labels.shape, strict=True):
            places = np.floor((np.arange(side) + 0.5) * (2**layer / scale) + 1e-9).astype(int)
            indices.append(np.minimum(places // dropped * dropped, (limit - 1) // dropped * dropped))
        assert (shown == labels[np.ix_(*indices)] + 1).all()


def test_the_parts_of_a_layer_are_the_whole(tmp_path: Path) -> None:
    shape = (900, 700)
    store = PredictionStore(tmp_path / "p", shape, 2.19)
    write_all(store, model_grid(shape, 2.19), step=150)
    for layer in (0, 1, 2):
        complete = whole(store, layer)
        for y, x, h, w in ((0, 0, 1, 1), (13, 57, 101, 43), (complete.shape[0] - 5, 0, 5, complete.shape[1])):
            np.testing.assert_array_equal(
                store.read(layer, Region(y, x, h, w)), complete[y : y + h, x : x + w]
            )


def test_coarser_layers_are_current_after_every_tile(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path / "p", (1500, 1700), 1.0)
    assert len(store.layers) == 3
    rng = np.random.default_rng(1)
    for _ in range(15):
        h, w = rng.integers(1, 300, 2)
        y, x = rng.integers(0, 1500 - h), rng.integers(0, 1700 - w)
        labels = rng.integers(0, 5, (h, w), dtype=np.uint8)
        store.write_tile(tile((0, 0), labels), (int(y), int(x)))
        for layer in (1, 2):
            assert (store.layers[layer][:] == store.layers[layer - 1][::2, ::2]).all()


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
    first.finish(0, 0)
    again = PredictionStore(tmp_path / "p", shape, 2.0)
    assert again.is_finished(0, 0)
    for layer in range(4):
        assert (whole(again, layer) == whole(first, layer)).all()
    again.write_tile(tile((0, 0), labels[200:]), (200, 0))
    assert (whole(first, 1) == labels + 1).all()


def test_confidence_and_core_are_kept_in_steps(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path / "p", (300, 300), 1.0)
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, (200, 200), dtype=np.uint8)
    confidence, core = rng.integers(1, 256, (2, 200, 200), dtype=np.uint8)
    store.write_tile(TileDone((0, 0), labels, confidence, core), (10, 20))
    box = Region(10, 20, 200, 200)
    kept = store.confidence(box)
    assert (kept > 0).all()
    assert np.abs(kept.astype(int) - confidence).max() < STEP
    ridges = store.core(box)
    assert np.abs(ridges.astype(int) - core)[labels > 0].max() < STEP
    assert not ridges[labels == 0].any()


def test_empty_places_take_no_room(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path / "p", (100_000, 100_000), 1.0)
    store.write_tile(tile((0, 0), np.ones((300, 300), np.uint8)), (50_000, 50_000))
    store.finish(3, 4)
    files = [path for path in (tmp_path / "p").rglob("*") if path.is_file()]
    assert len(files) < 40
    assert sum(path.stat().st_size for path in files) < 100_000
    assert store.read(0, Region(50_000, 50_000, 300, 300)).min() == 2
    assert not store.read(0, Region(1000, 1000, 300, 300)).any()


def test_other_programs_read_the_pyramid(tmp_path: Path) -> None:
    shape = (3 * CELL, 2 * CELL)
    store, labels = PredictionStore(tmp_path / "p", shape, 2.0, mpp=0.25), model_grid(shape, 2.0)
    write_all(store, labels, step=CELL)
    found = read_ome_zarr(tmp_path / "p" / "labels").labels
    np.testing.assert_array_equal(found, labels + 1)
    (image,) = zarr.open_group(tmp_path / "p" / "labels", mode="r").attrs["ome"]["multiscales"]
    scales = [d["coordinateTransformations"][0]["scale"][0] for d in image["datasets"]]
    assert scales == [0.5 * 2**k for k in range(len(scales))]
    assert {axis["unit"] for axis in image["axes"]} == {"micrometer"}


def test_the_finest_layer_holds_the_model_without_loss() -> None:
    shape = (100_000, 100_000)
    for scale, layer in ((0.5, 0), (1.0, 0), (1.002, 0), (1.9, 0), (1.96, 1), (2.0, 1), (2.19, 1), (8.0, 3)):
        assert finest_layer(scale, shape) == layer, scale
    assert finest_layer(8.0, (1000, 1000)) == 1  # there is none coarser


def test_chunks_that_a_power_cut_damaged_count_as_not_predicted(tmp_path: Path) -> None:
    shape = (2100, 1100)
    store, labels = PredictionStore(tmp_path / "p", shape, 1.0), model_grid(shape, 1.0)
    write_all(store, labels, step=350)
    store.finish_all([(row, column) for row in range(3) for column in range(2)])
    for name in ("labels/0/c/1/0", "labels/1/c/2/0", "confidence/c/0/1"):
        (tmp_path / "p" / name).write_bytes(b"")
    store = PredictionStore.reopened(tmp_path / "p", shape, 1.0)
    seen = whole(store, 0)
    assert (seen[512:1024, :512] == 0).all()
    seen[512:1024, :512] = labels[512:1024, :512] + 1
    np.testing.assert_array_equal(seen, labels + 1)
    whole(store, 1)
    assert not store.is_finished(0, 0)
    assert not store.is_finished(2, 0)
    assert store.is_finished(0, 1)
    store.write_tile(tile((300, 600), np.ones((100, 100), np.uint8)), (0, 0))  # into the damaged confidence
    assert not store.is_finished(0, 1)
    assert store.confidence(Region(300, 600, 100, 100)).all()


def test_a_store_that_cannot_be_read_begins_anew(tmp_path: Path) -> None:
    shape = (300, 400)
    store = PredictionStore(tmp_path / "p", shape, 1.0)
    write_all(store, model_grid(shape, 1.0), step=400)
    (tmp_path / "p" / "zarr.json").write_bytes(bytes(700))
    store = PredictionStore.reopened(tmp_path / "p", shape, 1.0)
    assert not whole(store, 0).any()
    write_all(store, model_grid(shape, 1.0), step=400)
    assert whole(store, 0).all()
