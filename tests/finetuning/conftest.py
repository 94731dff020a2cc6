"""Slides with drawings, and a small network, for rounds of the circle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from napari_genselfdiff.annotations import Annotations, encode
from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.events import Event, Finished
from napari_genselfdiff.finetuning import rounds
from napari_genselfdiff.finetuning.corrections import Source
from napari_genselfdiff.finetuning.recipe import Amount, recipe_for
from napari_genselfdiff.finetuning.rounds import RoundResult, train_round
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.network import Segmenter, SegmenterSpec, build_segmenter
from napari_genselfdiff.slides import slide_from_arrays

CPU = Compute("cpu", None, 1)
TINY = replace(COMPACT, name="tiny", widths=(8, 16), full_width=8)
SPEC = SegmenterSpec(config=TINY, classes=("background", "nucleus"), mpp=0.5)
SIDE = 512


def tissue(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Purple discs on pink, and where they are."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    truth = np.zeros((SIDE, SIDE), np.uint8)
    for _ in range(90):
        cy, cx = rng.uniform(0, SIDE, 2)
        truth[np.hypot(y - cy, x - cx) < rng.uniform(8, 16)] = 1
    rgb = np.where(truth[..., None] > 0, (110, 70, 150), (225, 175, 205)) + rng.normal(0, 8, (SIDE, SIDE, 3))
    return rgb.clip(0, 255).astype(np.uint8), truth


@pytest.fixture(scope="module")
def network() -> Segmenter:
    return build_segmenter(SPEC, start=None).eval()


def corrected_slide(
    folder: Path, seed: int = 0, *, box: Region | None = None, name: str | None = None
) -> Source:
    """A slide on which a part of the truth was drawn."""
    rgb, truth = tissue(seed)
    drawing = Annotations.open(folder / f"session-{seed}", shape=truth.shape, slide_id=f"s{seed}")
    box = box or Region(0, 0, 320, 320)
    part = truth[box.y : box.bottom, box.x : box.right]
    drawing.stroke(0, box.y, box.x, encode(part), np.ones(part.shape, bool))
    slide = slide_from_arrays(rgb, name=f"slide {seed}", mpp=0.5)
    return Source(slide, drawing, name or f"fingerprint-{seed}")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    opened: list[Source] = []

    def source(seed: int = 0, *, box: Region | None = None, name: str | None = None) -> Source:
        opened.append(corrected_slide(tmp_path, seed, box=box, name=name))
        return opened[-1]

    yield source
    for one in opened:
        one.annotations.close()


def small_recipe(amount: Amount, *, fresh: bool = False) -> Any:
    """A small network wants larger steps and smaller patches than the real one."""
    recipe = recipe_for(amount, fresh=fresh)
    settings = replace(recipe.settings, patch=32, batch=4, learning_rate=2e-2, ema=0.8)
    return replace(recipe, settings=settings)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "recipe_for", small_recipe)


def run(sources: Any, model: Segmenter, **options: Any) -> list[Event]:
    options = {"compute": CPU, "steps": 4} | options
    return list(train_round(sources, model, **options))


def outcome(events: list[Event]) -> RoundResult:
    last = events[-1]
    assert isinstance(last, Finished)
    assert isinstance(last.result, RoundResult)
    return last.result


def same(a: Segmenter, b: Segmenter) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )
