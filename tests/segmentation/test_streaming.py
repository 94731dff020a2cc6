"""Segmentation that streams into a store: order, pausing and going on, seams."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.errors import OutOfMemoryError
from napari_genselfdiff.events import CancelToken, Event, Finished, Progress, TileDone
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation import inference, pace, store, streaming
from napari_genselfdiff.segmentation.inference import predict_region
from napari_genselfdiff.segmentation.network import Segmenter, SegmenterSpec, build_segmenter
from napari_genselfdiff.segmentation.store import PredictionStore
from napari_genselfdiff.segmentation.streaming import segment_cells

Rgb = NDArray[np.uint8]
CPU = Compute("cpu", None, 1)
TINY = replace(COMPACT, name="tiny", widths=(8, 16), full_width=8)
SIDE = 128
SHAPE = (500, 420)
WHOLE = Region(0, 0, *SHAPE)


@pytest.fixture(autouse=True)
def small_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (inference, store, streaming):
        monkeypatch.setattr(module, "CELL", SIDE)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    made = build_segmenter(SegmenterSpec(TINY, ("background", "a"), 0.5, instances=True), start=None)
    with torch.no_grad():
        made.unet.output.weight.mul_(20)
    return made.eval()


@pytest.fixture(scope="module")
def image() -> Rgb:
    small = np.random.default_rng(0).integers(0, 256, (63, 53, 3), dtype=np.uint8)
    return np.kron(small, np.ones((8, 8, 1), np.uint8))[: SHAPE[0], : SHAPE[1]]


@pytest.fixture
def run(
    segmenter: Segmenter, image: Rgb, tmp_path: Path
) -> Callable[..., tuple[list[Event], PredictionStore]]:
    def segmented(region: Region = WHOLE, name: str = "p", **options: Any) -> Any:
        kept = PredictionStore(tmp_path / name, SHAPE, 1.0)

        def read(y: int, x: int, height: int, width: int) -> Rgb:
            assert min(y, x) >= 0
            return image[y : y + height, x : x + width]

        given = {"read": read} | options
        events = segment_cells(segmenter, given.pop("read"), region, kept, compute=CPU, **given)
        return list(events), kept

    return segmented


def tiles(events: list[Event]) -> list[TileDone]:
    return [event for event in events if isinstance(event, TileDone)]


def test_what_streams_is_what_one_pass_says(
    run: Callable[..., Any], segmenter: Segmenter, image: Rgb, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, kept = run()
    assert len(tiles(events)) == 4 * 4
    monkeypatch.setattr(inference, "CELL", 1024)
    *_, last = predict_region(
        segmenter,
        lambda y, x, h, w: image[y : y + h, x : x + w],
        (0, 0, *SHAPE),
        bounds=SHAPE,
        scale=1.0,
        compute=CPU,
    )
    assert isinstance(last, Finished)
    labels = last.result.labels
    assert 0.05 < labels.mean() < 0.95
    # To pixels whose two probabilities are equal to rounding.
    assert (kept.read(0, WHOLE) != labels + 1).mean() < 1e-4
    assert kept.core(WHOLE).max() > 0
    assert kept.confidence(WHOLE).min() > 0


def test_the_nearest_to_where_one_looks_comes_next_wherever_that_is_by_then(run: Callable[..., Any]) -> None:
    looks = iter([(10.0, 10.0)] * 2 + [(490.0, 410.0)] * 100)
    events, _ = run(centre=lambda: next(looks))
    origins = [tile.origin for tile in tiles(events)]
    assert origins[0] == (0, 0)
    # One cell is read ahead already.
    assert (384, 384) in origins[1:4]
    assert len(set(origins)) == 16


def test_pausing_keeps_what_is_done_and_going_on_computes_the_rest(run: Callable[..., Any]) -> None:
    cancel, calls = CancelToken(), []

    def centre() -> None:
        calls.append(1)
        if len(calls) == 6:
            cancel.cancel()

    first, kept = run(centre=centre, cancel=cancel)
    assert isinstance(first[-1], Finished)
    assert first[-1].cancelled
    assert first[-1].message == "6 of 16 tiles"
    finished = (kept.read(0, WHOLE) > 0).sum()
    second, again = run()
    assert len(tiles(second)) == 16 - 6
    assert not second[-1].cancelled
    assert (again.read(0, WHOLE) > 0).all()
    assert 0 < finished < again.read(0, WHOLE).size
    third, _ = run()
    assert tiles(third) == []
    whole, once = run(name="once")
    np.testing.assert_array_equal(again.read(0, WHOLE), once.read(0, WHOLE))
    assert [e.done for e in whole if isinstance(e, Progress)] == list(range(17))


def test_a_view_predicts_its_part_and_the_rest_of_its_cells_later(run: Callable[..., Any]) -> None:
    view = Region(70, 30, 200, 250)
    events, kept = run(view)
    seen = kept.read(0, WHOLE) > 0
    assert seen[70:270, 30:280].all()
    assert seen.sum() == 200 * 250
    assert len(tiles(events)) == 2 * 2  # as few as can be, rather than the 3 x 3 cells
    for tile in tiles(events):
        assert tile.origin[0] + tile.labels.shape[0] <= 200
        assert tile.origin[1] + tile.labels.shape[1] <= 250
    rest, _ = run()
    assert len(tiles(rest)) == 15  # one cell lay in the view as a whole
    once = run(name="once")[1].read(0, WHOLE)
    assert (kept.read(0, WHOLE) != once).mean() < 1e-4


def test_glass_is_left_out_and_may_be_asked_for_later(run: Callable[..., Any]) -> None:
    events, kept = run(wanted=lambda part: part.x < 256)
    assert len(tiles(events)) == 8
    assert not kept.read(0, WHOLE)[:, 256:].any()
    assert len(tiles(run()[0])) == 8


def test_the_next_tile_is_read_while_the_network_computes(run: Callable[..., Any], image: Rgb) -> None:
    threads = []

    def read(y: int, x: int, height: int, width: int) -> Rgb:
        threads.append(threading.current_thread().name)
        return image[y : y + height, x : x + width]

    run(read=read)
    assert len(threads) == 16
    assert sum(name.startswith("genselfdiff-read-ahead") for name in threads) == 15
    assert not any(t.name.startswith("genselfdiff-read-ahead") for t in threading.enumerate())


def test_a_damaged_tile_is_an_error_and_what_is_done_is_kept(run: Callable[..., Any], image: Rgb) -> None:
    reads = []

    def read(y: int, x: int, height: int, width: int) -> Rgb:
        reads.append(1)
        if len(reads) == 5:
            raise OSError("damaged")
        return image[y : y + height, x : x + width]

    with pytest.raises(OSError, match="damaged"):
        run(read=read)
    assert len(tiles(run()[0])) == 16 - 4


def test_running_out_of_memory_makes_smaller_tiles_of_the_same_prediction(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plenty = run(name="plenty")
    forward, most = Segmenter.forward, (64 + 2 * TINY.reach) ** 2

    def limited(self: Segmenter, images: torch.Tensor, **options: Any) -> Any:
        if images[0, 0].numel() > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return forward(self, images, **options)

    monkeypatch.setattr(Segmenter, "forward", limited)
    monkeypatch.setattr(pace, "CELL", SIDE)
    monkeypatch.setattr(pace, "LEAST_SIDE", 32)
    events, scarce = run(name="scarce")
    messages = [event.message for event in events if isinstance(event, Progress)]
    assert messages.count("out of memory; going on with smaller tiles") == 1
    assert isinstance(events[-1], Finished)
    assert not events[-1].cancelled
    # To pixels whose two probabilities are equal to rounding.
    assert (scarce.labels(WHOLE) != plenty.labels(WHOLE)).mean() < 1e-4


def test_too_little_memory_for_any_tile_is_told(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Segmenter, "forward", full)
    with pytest.raises(OutOfMemoryError, match="close other programs"):
        run()
