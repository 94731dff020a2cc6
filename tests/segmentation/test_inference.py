"""Tiled inference: one grid, no seams, whatever the cut."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.config import COMPACT, PAPER, UNetConfig
from napari_genselfdiff.errors import OutOfMemoryError
from napari_genselfdiff.events import CancelToken, Event, Finished, Progress, TileDone
from napari_genselfdiff.models.library import BUNDLED, DEFAULT_SEGMENTER
from napari_genselfdiff.segmentation import inference
from napari_genselfdiff.segmentation.inference import BLEND, MARGIN, Tiling, Window, predict_region
from napari_genselfdiff.segmentation.network import (
    Segmenter,
    SegmenterSpec,
    build_segmenter,
    load_segmenter,
)
from napari_genselfdiff.segmentation.prediction import Prediction

Rgb = NDArray[np.uint8]
Box = tuple[int, int, int, int]

CPU = Compute("cpu", None, 1)
TINY = replace(COMPACT, name="tiny", widths=(8, 16), full_width=8)
SEES_TILE = replace(PAPER, name="sees-tile", widths=(8, 16, 16, 16), blocks=1, attention=False)


def decided(spec: SegmenterSpec) -> Segmenter:
    """A random segmenter whose probabilities are spread out, so that differences show."""
    segmenter = build_segmenter(spec, start=None)
    with torch.no_grad():
        segmenter.unet.output.weight.mul_(20)
    return segmenter.eval()


def texture(height: int, width: int, seed: int = 0) -> Rgb:
    """Blobs of many sizes."""
    rng, image = np.random.default_rng(seed), np.zeros((height, width, 3))
    for size in (4, 12, 40, 120):
        small = rng.integers(0, 256, (height // size + 2, width // size + 2, 3), dtype=np.uint8)
        image += np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)) / 4
    return image.astype(np.uint8)


def predict(segmenter: Segmenter, image: Rgb, region: Box, **options: Any) -> list[Event]:
    def read(y: int, x: int, height: int, width: int) -> Rgb:
        assert min(y, x) >= 0, "nothing is read outside the slide"
        assert y + height <= image.shape[0]
        assert x + width <= image.shape[1]
        return image[y : y + height, x : x + width]

    bounds = image.shape[0], image.shape[1]
    side = options.pop("side", None)
    if side is not None:
        config = segmenter.spec.config
        options["tiling"] = Tiling.of(config, cell=side - 2 * MARGIN, window=side)
    given: dict[str, Any] = {"bounds": bounds, "scale": 2.0, "compute": CPU} | options
    return list(predict_region(segmenter, read, region, **given))


def result(events: list[Event]) -> Prediction:
    last = events[-1]
    assert isinstance(last, Finished)
    assert isinstance(last.result, Prediction)
    return last.result


Floats = Callable[..., NDArray[np.float32]]


@pytest.fixture
def floats(monkeypatch: pytest.MonkeyPatch) -> Floats:
    """Class probabilities of a region before they are rounded to bytes, shape (classes, height, width)."""
    canvases: list[Any] = []

    class Recorded(inference._Canvas):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            canvases.append(self)

    monkeypatch.setattr(inference, "_Canvas", Recorded)

    def probabilities(segmenter: Segmenter, image: Rgb, region: Box, **options: Any) -> NDArray[np.float32]:
        canvases.clear()
        predict(segmenter, image, region, **options)
        (canvas,) = canvases
        mixed = canvas.sums / canvas.weights
        return cast("NDArray[np.float32]", mixed[: len(segmenter.spec.classes)].numpy())

    return probabilities


@pytest.fixture(scope="module")
def compact() -> Segmenter:
    spec = SegmenterSpec(config=COMPACT, classes=("background", "nucleus"), mpp=0.5, instances=True)
    segmenter = build_segmenter(spec, start=None).train()
    # Without statistics of its features the normalisation would leave them flat.
    for seed in range(20):
        x = torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(seed)) * 2 - 1
        segmenter(x)
    with torch.no_grad():
        segmenter.unet.output.weight.mul_(5)
    return segmenter.eval()


@pytest.fixture(scope="module")
def tiny() -> Segmenter:
    return decided(SegmenterSpec(config=TINY, classes=("background", "a", "b"), mpp=0.5, instances=True))


@pytest.fixture(scope="module")
def sees_tile() -> Segmenter:
    return decided(SegmenterSpec(config=SEES_TILE, classes=("background", "a"), mpp=0.5))


def assert_cut_does_not_matter(floats: Floats, segmenter: Segmenter, image: Rgb) -> None:
    height, width = image.shape[:2]
    whole = floats(segmenter, image, (0, 0, height, width))
    assert whole[0].std() > 0.01, "a flat prediction proves nothing"
    away = 32
    # Other regions, at odd offsets, and other windows, hence another grid.
    for region, side in (((51, 37, height - 77, width - 58), None), ((0, 0, height, width), 320)):
        y, x, h, w = region
        other = floats(segmenter, image, region, side=side)
        cut = whole[:, y : y + h, x : x + w]
        difference = np.abs(other - cut)[:, away:-away, away:-away].max()
        assert difference < 1e-3, (region, side)


def test_two_tilings_of_a_random_compact_network_agree(floats: Floats, compact: Segmenter) -> None:
    assert_cut_does_not_matter(floats, compact, texture(440, 460))


def test_two_tilings_of_the_shipped_model_agree(floats: Floats, data_dir: Path) -> None:
    path = BUNDLED / f"{DEFAULT_SEGMENTER}.safetensors"
    if not path.is_file():
        pytest.skip("this checkout has no bundled nuclei model")
    image = Image.open(sorted((data_dir / "monuseg").glob("*/Tissue Images/*.tif"))[0]).convert("RGB")
    half = np.asarray(image.resize((500, 500), Image.Resampling.BILINEAR))
    assert_cut_does_not_matter(floats, load_segmenter(path), half)


def test_a_seam_would_be_seen(floats: Floats, compact: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that the two tests above can fail."""
    monkeypatch.setattr(UNetConfig, "reach", 0)
    with pytest.raises(AssertionError, match="320"):  # of the other windows
        assert_cut_does_not_matter(floats, compact, texture(440, 460))


@pytest.mark.parametrize("config", [COMPACT, TINY, replace(TINY, blocks=2, resample_kernel=4)])
def test_nothing_beyond_the_reach_is_seen(config: UNetConfig) -> None:
    segmenter = decided(SegmenterSpec(config=config, classes=("background", "a"), mpp=0.5)).for_inference()
    reach = config.reach
    image = torch.from_numpy(texture(5 * reach, 5 * reach)).permute(2, 0, 1)[None] / 127.5 - 1
    window = image[..., reach : 4 * reach, reach : 4 * reach]
    with torch.inference_mode():
        expected = segmenter(image)[0][..., 2 * reach : 3 * reach, 2 * reach : 3 * reach]
        found = segmenter(window, margin=reach)[0]
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_networks_that_see_the_tile_get_the_same_windows_for_every_cut(sees_tile: Segmenter) -> None:
    image = texture(200, 230)
    whole = result(predict(sees_tile, image, (0, 0, 200, 230)))
    assert whole.probabilities[0].std() > 10
    for y, x, h, w in ((43, 57, 100, 111), (120, 130, 20, 30), (199, 0, 1, 230)):
        part = result(predict(sees_tile, image, (y, x, h, w)))
        cut = whole.probabilities[:, y : y + h, x : x + w].astype(int)
        assert np.abs(part.probabilities - cut).max() <= 1  # of 255: the order of the sums


def test_networks_that_see_the_tile_get_windows_of_one_size(
    sees_tile: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = set()
    forward = Segmenter.forward

    def recorded(self: Segmenter, x: torch.Tensor, *, margin: int) -> Any:
        sizes.add(tuple(x.shape))
        return forward(self, x, margin=margin)

    monkeypatch.setattr(Segmenter, "forward", recorded)
    predict(sees_tile, texture(140, 40), (10, 5, 130, 30))
    assert sizes == {(1, 3, 256, 256)}


@pytest.mark.parametrize("kind", ["tiny", "sees_tile"])
def test_a_region_of_many_blocks_equals_one_of_one(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter, image = request.getfixturevalue(kind), texture(230, 190)
    region = (7, 3, 220, 185)
    whole = result(predict(segmenter, image, region, side=256))
    monkeypatch.setattr(inference, "BLOCK", 90)
    events = predict(segmenter, image, region, side=256)
    blocks = result(events)
    assert np.abs(blocks.probabilities.astype(int) - whole.probabilities).max() <= 1
    assert (blocks.confidence > 0).all()
    if whole.core is not None:
        assert blocks.core is not None
        assert np.abs(blocks.core.astype(int) - whole.core).max() <= 1
    tiles, total = [e for e in events if isinstance(e, TileDone)], events[0]
    assert isinstance(total, Progress)
    assert len(tiles) == total.total > 6


def test_windows_of_networks_that_see_the_tile_lie_on_one_grid() -> None:
    bounds, tiling = (5000, 5000), Tiling.of(PAPER, window=512)
    whole = tiling.windows(0, 0, 5000, 5000, bounds)
    assert all(w.height == w.width == 512 for w in whole)
    assert len({w.y for w in whole}) == math.ceil(5000 / (512 - 2 * MARGIN - BLEND))
    assert whole == sorted(whole, key=lambda w: (w.y, w.x))
    for region in ((777, 1234, 900, 300), (384, 383, 1, 1), (4999, 0, 1, 5000)):
        assert set(tiling.windows(*region, bounds)) <= set(whole)


def test_other_windows_lie_in_those_of_the_slide_and_see_no_more_than_they_must() -> None:
    bounds, tiling, reach = (5000, 5000), Tiling.of(COMPACT, cell=352), COMPACT.reach
    whole = tiling.windows(0, 0, 5000, 5000, bounds)
    assert len({w.y for w in whole}) == math.ceil(5000 / 352)
    for region in ((777, 1234, 900, 300), (384, 383, 1, 1), (4999, 0, 1, 5000)):
        y, x, h, w = region
        for window in tiling.windows(*region, bounds):
            assert [side % 16 for side in (window.y, window.x, window.height, window.width)] == [0] * 4
            assert any(
                outer.y <= window.y
                and outer.x <= window.x
                and window.y + window.height <= outer.y + outer.height
                and window.x + window.width <= outer.x + outer.width
                for outer in whole
            )
            assert window.y >= y - reach - 16
            assert window.x >= x - reach - 16
            assert window.y + window.height <= y + h + reach + 16
            assert window.x + window.width <= x + w + reach + 16
    assert len(tiling.windows(100, 100, 200, 200, bounds)) == 1
    assert tiling.windows(0, 0, 100, 100, bounds) == [Window(-160, -160, 432, 432)]


def test_weights_of_neighbours_add_up_to_1() -> None:
    side, step = 352, 352 - BLEND
    total = np.zeros(3 * step + side)
    for index in range(4):
        total[index * step : index * step + side] += inference._ramp(side, BLEND).numpy()
    np.testing.assert_allclose(total[BLEND:-BLEND], 1, atol=1e-6)
    ramp = inference._ramp(side, BLEND).numpy()
    assert (ramp > 0).all()
    assert (ramp[BLEND:-BLEND] == 1).all()
    np.testing.assert_allclose(np.diff(ramp[:BLEND]), 1 / BLEND, atol=1e-6)
    assert (inference._ramp(side, 0).numpy() == 1).all()


def test_tile_events_compose_the_result(tiny: Segmenter) -> None:
    image, (y, x, h, w) = texture(300, 310), (11, 23, 250, 270)
    events = predict(tiny, image, (y, x, h, w), side=256)
    labels, confidence = np.zeros((h, w), np.uint8), np.zeros((h, w), np.uint8)
    for event in events:
        if isinstance(event, TileDone):
            assert event.labels.dtype == event.confidence.dtype == np.uint8
            top, left = event.origin
            rows, columns = event.labels.shape
            assert top >= 0
            assert left >= 0
            labels[top : top + rows, left : left + columns] = event.labels
            confidence[top : top + rows, left : left + columns] = event.confidence
    prediction = result(events)
    assert prediction.origin == (y, x)
    assert prediction.scale == 2
    assert (labels == prediction.labels).all()
    assert (confidence == prediction.confidence).all()
    assert len(np.unique(labels)) > 1
    assert np.abs(prediction.probabilities.sum(axis=0, dtype=int) - 255).max() <= 2
    assert prediction.core is not None
    assert prediction.core.std() > 0


def test_a_single_window_is_the_network_itself(tiny: Segmenter) -> None:
    image = texture(64, 80)
    padded = np.pad(image, ((64, 64), (64, 64), (0, 0)), mode="symmetric")
    x = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        logits, core = tiny(x)
    expected = logits.softmax(dim=1)[0, :, 64:-64, 64 : -80 + 16].numpy()
    prediction = result(predict(tiny, image, (0, 0, 64, 80)))
    np.testing.assert_allclose(prediction.probabilities / 255, expected, atol=0.5 / 255 + 1e-4)
    assert core is not None
    shown = core.sigmoid()[0, 64:-64, 64:-64].numpy()
    np.testing.assert_allclose(cast("Rgb", prediction.core) / 255, shown, atol=0.5 / 255 + 1e-4)


@pytest.mark.parametrize("region", [(0, 0, 1, 1), (0, 0, 5, 7), (3, 2, 2, 5), (4, 6, 1, 1)])
def test_slides_smaller_than_a_window(tiny: Segmenter, region: Box) -> None:
    prediction = result(predict(tiny, texture(5, 7), region))
    assert prediction.labels.shape == region[2:]
    assert (prediction.confidence > 0).all()


def test_the_centre_of_the_view_comes_first(tiny: Segmenter) -> None:
    image, centre = texture(400, 400), (330.0, 90.0)
    events = predict(tiny, image, (0, 0, 400, 400), centre=centre, side=256)
    tiles = [event for event in events if isinstance(event, TileDone)]
    assert len(tiles) > 9
    (top, left), (h, w) = tiles[0].origin, tiles[0].labels.shape
    assert top <= centre[0] < top + h
    assert left <= centre[1] < left + w
    distances = [
        math.hypot(t.origin[0] + t.labels.shape[0] / 2 - 330, t.origin[1] + t.labels.shape[1] / 2 - 90)
        for t in tiles
    ]
    # To the few pixels by which margins are cut at the border of the region.
    assert all(later > earlier - 2 * MARGIN for earlier, later in pairwise(distances))
    assert distances[-1] > 250

    middle = [e for e in predict(tiny, image, (0, 0, 400, 400), side=256) if isinstance(e, TileDone)]
    assert math.hypot(middle[0].origin[0] - 168, middle[0].origin[1] - 168) < 80


def test_cancel_keeps_what_is_done(tiny: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "BLOCK", 200)
    cancel, image, done = CancelToken(), texture(400, 400), []
    tiling = Tiling.of(tiny.spec.config, cell=96)
    options: dict[str, Any] = {"bounds": (400, 400), "scale": 1.0, "compute": CPU, "tiling": tiling}

    def read(y: int, x: int, height: int, width: int) -> Rgb:
        assert not cancel.cancelled, "nothing is read any more"
        return image[y : y + height, x : x + width]

    last: Event | None = None
    for event in predict_region(tiny, read, (0, 0, 400, 400), cancel=cancel, **options):
        last = event
        if isinstance(event, TileDone):
            done.append(event)
            if len(done) == 2:
                cancel.cancel()
    assert isinstance(last, Finished)
    assert last.cancelled
    assert last.message.startswith("2 of ")
    assert len(done) == 2
    predicted = np.zeros((400, 400), bool)
    for tile in done:
        (top, left), (h, w) = tile.origin, tile.labels.shape
        predicted[top : top + h, left : left + w] = True
    assert ((last.result.confidence > 0) == predicted).all()
    assert (last.result.probabilities[:, ~predicted] == 0).all()
    assert (last.result.labels[~predicted] == 0).all()


def test_cancelled_before_the_start(tiny: Segmenter) -> None:
    cancel = CancelToken()
    cancel.cancel()
    events = predict(tiny, texture(50, 50), (0, 0, 50, 50), cancel=cancel)
    assert isinstance(events[-1], Finished)
    assert events[-1].cancelled
    assert not result(events).confidence.any()


def test_progress_counts_tiles_and_tells_the_time_left(tiny: Segmenter) -> None:
    events = predict(tiny, texture(300, 300), (0, 0, 300, 300), side=256)
    progress = [event for event in events if isinstance(event, Progress)]
    total = progress[0].total
    assert [event.done for event in progress] == list(range(int(total) + 1))
    assert progress[0].seconds_left is None
    assert progress[1].seconds_left is not None
    assert progress[-1].seconds_left == 0
    assert isinstance(events[-1], Finished)
    assert not events[-1].cancelled


def test_a_full_device_is_told(tiny: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Segmenter, "forward", full)
    with pytest.raises(OutOfMemoryError, match="ran out of memory"):
        predict(tiny, texture(50, 50), (0, 0, 50, 50))
