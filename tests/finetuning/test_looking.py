"""Frozen features of parts, one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.finetuning.conftest import CPU, SPEC, tissue

from napari_genselfdiff.diffusion.frozen import Levels
from napari_genselfdiff.events import CancelToken, Progress
from napari_genselfdiff.finetuning import looking
from napari_genselfdiff.finetuning.looking import looked_at
from napari_genselfdiff.segmentation.network import build_segmenter

MODEL = build_segmenter(SPEC, start=None).eval()
RGB = tissue(0)[0]
PARTS = [RGB[:64, :80], RGB[64:128, :64], RGB[:48, 100:200]]


def shape(number: int, levels: Levels) -> tuple[int, tuple[int, int]]:
    return number, levels.shape


def look(cancel: CancelToken, *, stop_at: int | None = None) -> tuple[list[Progress], Any]:
    """What it tells, and what is kept."""
    work = looked_at(PARTS, MODEL, shape, "looking", compute=CPU, cancel=cancel)
    told: list[Progress] = []
    while True:
        try:
            event = next(work)
        except StopIteration as end:
            return told, end.value
        assert isinstance(event, Progress)
        told.append(event)
        if event.done == stop_at:
            cancel.cancel()


def test_each_part_is_looked_at_and_told() -> None:
    told, kept = look(CancelToken())
    assert [(event.done, event.total, event.message) for event in told] == [
        (number, 3, "looking") for number in range(3)
    ]
    assert [number for number, _ in kept] == [0, 1, 2]
    for part, (_, (height, width)) in zip(PARTS, kept, strict=True):
        assert height >= part.shape[0]
        assert width >= part.shape[1]


def test_it_stops_before_the_next_part() -> None:
    told, kept = look(CancelToken(), stop_at=1)
    assert len(told) == 2
    assert kept is None


def test_without_memory_nothing_is_kept_and_other_errors_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = looking.image_levels, []

    def full(network: Any, rgb: np.ndarray[Any, Any], *rest: Any, **more: Any) -> Levels:
        asked.append(rgb)
        if len(asked) == 2:
            raise error
        return real(network, rgb, *rest, **more)

    monkeypatch.setattr(looking, "image_levels", full)
    error: Exception = torch.OutOfMemoryError("CUDA out of memory")
    assert look(CancelToken())[1] is None
    assert len(asked) == 2
    asked.clear()
    error = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        look(CancelToken())
