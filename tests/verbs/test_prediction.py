"""Regions of any size: neither bands nor blocks leave a trace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from napari_genselfdiff.compute import choose_compute
from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.events import CancelToken
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.instances import core_target
from napari_genselfdiff.segmentation.network import Segmenter, SegmenterSpec, build_segmenter
from napari_genselfdiff.slides.arrays import slide_from_arrays
from napari_genselfdiff.verbs import prediction
from napari_genselfdiff.verbs.prediction import number_objects, segment_region

TINY = replace(COMPACT, name="tiny", widths=(8, 16), full_width=8)


@pytest.fixture
def tissue() -> np.ndarray[Any, Any]:
    small = np.random.default_rng(7).integers(40, 250, (24, 24, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((280, 400), Image.Resampling.BICUBIC))


@pytest.fixture
def segmenter(tissue: np.ndarray[Any, Any]) -> Segmenter:
    """A random network that finds nuclei in half of the picture."""
    spec = SegmenterSpec(TINY, ("background", "nucleus"), mpp=0.5, instances=True)
    network = build_segmenter(spec, start=None, seed=1)
    with torch.inference_mode():
        logits, _ = network(to_unit_range(tissue[None, :, :]))
    with torch.no_grad():
        weight, bias = network.unet.output.parameters()
        bias[0] += (logits[0, 1] - logits[0, 0]).median()
        weight.mul_(20)
        bias.mul_(20)
    return network


def run(segmenter: Segmenter, slide: Any, region: Region, **options: Any) -> Any:
    work = segment_region(segmenter, slide, region, compute=choose_compute("cpu", threads=1), **options)
    shown = []
    while True:
        try:
            shown.append(next(work))
        except StopIteration as stop:
            assert [event.done for event in shown] == sorted(event.done for event in shown)
            return stop.value


@pytest.mark.parametrize("mpp", [0.2, 0.5, 0.8])
def test_bands_leave_no_trace(
    segmenter: Segmenter, tissue: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, mpp: float
) -> None:
    slide = slide_from_arrays(tissue, name="made", mpp=mpp)
    region = Region(33, 21, 330, 191)
    whole = run(segmenter, slide, region)
    assert whole.labels.shape == (330, 191)
    assert 0.02 < whole.labels.mean() < 0.98
    monkeypatch.setattr(prediction, "BAND_PIXELS", 1)
    monkeypatch.setattr(prediction, "LEAST_BAND", 90)
    monkeypatch.setattr(prediction, "STRIP_PIXELS", 191 * 37)
    monkeypatch.setattr(prediction, "IN_MEMORY", 1000)
    cut = run(segmenter, slide, region, scratch=tmp_path)
    assert isinstance(cut.labels, np.memmap)
    assert (cut.labels != whole.labels).mean() < 1e-3


def test_cancelling_gives_nothing(segmenter: Segmenter, tissue: Any) -> None:
    cancel = CancelToken()
    cancel.cancel()
    slide = slide_from_arrays(tissue, name="made", mpp=0.5)
    assert run(segmenter, slide, Region(0, 0, 64, 64), cancel=cancel) is None


def test_a_coarse_image_is_warned_of(
    segmenter: Segmenter, tissue: Any, caplog: pytest.LogCaptureFixture
) -> None:
    run(segmenter, slide_from_arrays(tissue, name="made", mpp=2.0), Region(0, 0, 20, 20))
    assert "4.0 times coarser" in caplog.text


def test_blocks_cut_no_object() -> None:
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[:700, :600]
    true = np.zeros((700, 600), np.int32)
    for number, (y, x) in enumerate(rng.uniform((0, 0), (700, 600), (250, 2)), start=1):
        disc = (rows - y) ** 2 + (columns - x) ** 2 < rng.uniform(4, 12) ** 2
        true[disc & (true == 0)] = number
    labels = (true > 0).astype(np.uint8)
    core = (core_target(true) * 255).astype(np.uint8)
    whole, cut = np.zeros_like(true), np.zeros_like(true)
    count = number_objects(labels, core, scale=1, out=whole)
    assert number_objects(labels, core, scale=1, out=cut, block=256) == count
    assert count == len(np.unique(whole)) - 1 == whole.max()
    pairs = np.unique(np.stack([whole.ravel(), cut.ravel()]), axis=1)
    assert pairs.shape[1] == count + 1  # each object is one object of the other map


def test_what_is_larger_than_a_block_is_covered() -> None:
    labels = np.ones((900, 300), np.uint8)
    labels[:, 140:150] = 0
    out = np.zeros(labels.shape, np.int32)
    number_objects(labels, None, scale=1, out=out, block=256)
    assert ((out > 0) == (labels > 0)).all()
