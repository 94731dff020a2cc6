"""The map of what a model is unsure of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_genselfdiff.events import CancelToken, Finished, Progress, TileDone
from napari_genselfdiff.segmentation.store import CHUNK, PredictionStore
from napari_genselfdiff.segmentation.uncertainty import BLOCK, UncertaintyMap, uncertainty_map


def written(
    folder: Path, shape: tuple[int, int], scale: float, part: np.ndarray, at: tuple[int, int]
) -> PredictionStore:
    store = PredictionStore(folder, shape, scale)
    store.write_tile(TileDone((0, 0), np.zeros(part.shape, np.uint8), part), at)
    return store


def mapped(store: PredictionStore, **options: int) -> UncertaintyMap:
    *_, last = uncertainty_map(store, **options)
    assert isinstance(last, Finished)
    assert isinstance(last.result, UncertaintyMap)
    return last.result


def test_blocks_say_how_unsure_the_model_is(tmp_path: Path) -> None:
    confidence = np.full((4 * BLOCK, 4 * BLOCK), 250, np.uint8)
    confidence[:BLOCK, BLOCK : 2 * BLOCK] = 140
    store = written(tmp_path / "p.zarr", (2000, 1500), 2.0, confidence, (0, 0))
    found = mapped(store)
    assert found.scale == 2.0 * BLOCK
    assert found.complete
    assert found.values.shape == (-(-1000 // BLOCK), -(-750 // BLOCK))
    assert found.values[0, 1] == pytest.approx(115 / 255, abs=0.02)
    assert found.values[0, 0] == pytest.approx(5 / 255, abs=0.02)
    assert np.isfinite(found.values).sum() == 16  # the rest was not predicted


def test_of_very_much_a_part_is_read_and_another_part_the_next_time(tmp_path: Path) -> None:
    confidence = np.full((3 * CHUNK, 3 * CHUNK), 200, np.uint8)
    store = written(tmp_path / "p.zarr", (3 * CHUNK, 3 * CHUNK), 1.0, confidence, (0, 0))
    first = mapped(store, most=4)
    assert not first.complete
    assert np.isfinite(first.values).sum() == 4 * (CHUNK // BLOCK) ** 2
    others = [mapped(store, most=4, sample=sample).values for sample in range(1, 4)]
    assert any((np.isfinite(first.values) != np.isfinite(other)).any() for other in others)
    assert np.array_equal(first.values, mapped(store, most=4).values, equal_nan=True)


def test_it_stops_when_asked(tmp_path: Path) -> None:
    confidence = np.full((CHUNK, CHUNK), 200, np.uint8)
    store = written(tmp_path / "p.zarr", (CHUNK, CHUNK), 1.0, confidence, (0, 0))
    cancel = CancelToken()
    cancel.cancel()
    events = list(uncertainty_map(store, cancel=cancel))
    assert isinstance(events[-1], Finished)
    assert events[-1].cancelled
    assert not any(isinstance(event, Progress) for event in events)
