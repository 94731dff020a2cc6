"""Tissue that a young model rehearses, so that it does not lose what nobody corrected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.finetuning.conftest import CPU, tissue

from napari_genselfdiff.events import CancelToken, Event, Progress
from napari_genselfdiff.finetuning import rehearsal
from napari_genselfdiff.finetuning.corrections import Source
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.finetuning.holdout import held_out_mask
from napari_genselfdiff.finetuning.rehearsal import SIDE, TILES, rehearsed
from napari_genselfdiff.finetuning.sampling import REHEARSED, CorrectionSampler
from napari_genselfdiff.finetuning.scoring import predict_image
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.network import Segmenter
from napari_genselfdiff.slides import slide_from_arrays


def examples(sources: list[Source], model: Segmenter, *, seed: int = 0, cancel: Any = None) -> list[Example]:
    found: list[list[Example]] = []

    def work() -> Iterator[Event]:
        found.append(
            (yield from rehearsed(sources, model, compute=CPU, seed=seed, cancel=cancel or CancelToken()))
        )

    assert all(isinstance(event, Progress) for event in work())
    return found[0]


def origin(example: Example) -> tuple[int, int]:
    y, x = example.name.rsplit(":", 1)[1].split(",")
    return int(y), int(x)


def test_it_shows_tissue_with_what_the_model_says_but_not_what_a_person_drew(
    make: Any, network: Segmenter
) -> None:
    source = make(box=Region(100, 100, 200, 200))
    found = examples([source], network)
    assert len(found) == TILES
    rgb, _ = tissue(0)
    for one in found:
        y, x = origin(one)
        there = np.s_[y : y + SIDE, x : x + SIDE]
        np.testing.assert_array_equal(one.rgb, rgb[there])
        said = predict_image(network, one.rgb, CPU, margin=32)
        np.testing.assert_array_equal(one.labels, said.labels)
        drawn = np.zeros(rgb.shape[:2], bool)
        drawn[100:300, 100:300] = True
        silent = drawn[there] | held_out_mask(one.labels.shape, (y, x), source.name)
        assert one.weight[silent].max(initial=0) == 0
        assert 0 < one.weight.max() <= 0.5
    again = [[origin(one) for one in examples([source], network, seed=seed)] for seed in range(4)]
    assert again[0] == [origin(one) for one in found]
    assert len({tuple(places) for places in again}) > 1


def test_it_comes_from_all_slides_but_those_that_are_held_out(
    make: Any, network: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [make(seed, name=f"slide{seed}") for seed in range(3)]
    monkeypatch.setattr(rehearsal, "TILES", 30)
    monkeypatch.setattr(rehearsal, "held_out_slides", lambda names: frozenset(names[:1]))
    assert {one.name.split(":")[0] for one in examples(sources, network)} == {"slide1", "slide2"}


@pytest.mark.parametrize("why", ["glass", "resolution", "file", "stopped"])
def test_where_there_is_nothing_to_rehearse_a_round_goes_on_without(
    why: str, make: Any, network: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, cancel = make(), CancelToken()
    if why == "glass":
        white = np.full((512, 512, 3), 245, np.uint8)
        source = replace(source, slide=slide_from_arrays(white, name="glass", mpp=0.5))
    elif why == "resolution":
        source = replace(source, slide=slide_from_arrays(tissue(0)[0], name="unknown"))
    elif why == "file":

        def gone(*_: Any, **__: Any) -> Any:
            raise OSError("the drive is gone")

        monkeypatch.setattr(rehearsal, "read_place", gone)
    else:
        cancel.cancel()
    assert examples([source], network, cancel=cancel) == []


def test_a_part_of_the_patches_is_rehearsed() -> None:
    labels = np.zeros((64, 64), np.uint8)
    rgb = np.zeros((64, 64, 3), np.uint8)
    drawn = Example("drawn", rgb, labels, np.ones(labels.shape, np.float32))
    quiet = Example("quiet", rgb, labels, np.full(labels.shape, np.float32(0.3)))
    nothing = Example("nothing", rgb, labels, np.zeros(labels.shape, np.float32))
    sampler = CorrectionSampler([nothing, drawn], size=32, seed=0, rehearsed=[quiet])
    names = []
    for step in range(50):
        batch = sampler.batch(step, 8)
        names += [float(one.max()) for one in batch.weight]
        sampler.tell([2.0] * 8)
    share = np.mean(np.array(names) < 0.5)
    assert REHEARSED - 0.07 < share < REHEARSED + 0.07
    assert (sampler.hardness > 0).all()
    alone = CorrectionSampler([drawn], size=32, seed=0)
    assert all((alone.batch(step, 8).weight > 0.5).all() for step in range(5))
