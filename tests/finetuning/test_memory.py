"""A device with little memory: rounds go on in smaller parts, and say so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.finetuning.conftest import CPU, outcome, run, tissue

from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.errors import OutOfMemoryError
from napari_genselfdiff.events import Progress
from napari_genselfdiff.finetuning import scoring
from napari_genselfdiff.finetuning.examples import PatchBatch
from napari_genselfdiff.finetuning.recipe import Amount, recipe_for
from napari_genselfdiff.finetuning.trainer import Trainer
from napari_genselfdiff.segmentation.network import Segmenter, SegmenterSpec, build_segmenter

pytestmark = pytest.mark.usefixtures("quick")


def test_with_little_memory_it_goes_on_with_a_smaller_batch_and_says_so(
    make: Any, network: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make()
    forward = Segmenter.forward

    def small(self: Segmenter, x: torch.Tensor, **options: Any) -> Any:
        if len(x) > 2 and torch.is_grad_enabled():
            raise torch.OutOfMemoryError
        return forward(self, x, **options)

    plenty = outcome(run([source], network))
    monkeypatch.setattr(Segmenter, "forward", small)
    events = run([source], network)
    told = [event.message for event in events if isinstance(event, Progress)]
    assert (
        told.count("the device has little memory: going on with 2 patches at a time, which takes longer") == 1
    )
    short = outcome(events)
    assert short.settings["micro"] == 2
    assert short.steps == plenty.steps == 4


def test_with_little_memory_it_scores_in_smaller_tiles(
    network: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgb = tissue(3)[0]
    plenty = scoring.predict_image(network, rgb, CPU)
    forward = Segmenter.forward

    def small(self: Segmenter, x: torch.Tensor, **options: Any) -> Any:
        if x.numel() > 3 * 220 * 220:
            raise torch.OutOfMemoryError
        return forward(self, x, **options)

    monkeypatch.setattr(Segmenter, "forward", small)
    notes: list[str] = []
    short = scoring.predict_image(network, rgb, CPU, notes=notes)
    assert notes
    assert set(notes) == {scoring.SMALLER_TILES}
    assert np.abs(short.probabilities.astype(int) - plenty.probabilities).max() <= 1


@pytest.mark.parametrize("shape", [(428, 448), (300, 260)])
@pytest.mark.parametrize("margin", [None, 32])
def test_smaller_tiles_are_whole_strides_whatever_the_size_of_the_place(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], margin: int | None
) -> None:
    config = replace(COMPACT, name="tiny", widths=(8, 8, 8, 8), full_width=8)  # the stride of the real one
    network = build_segmenter(SegmenterSpec(config, ("background", "a"), 0.5), start=None).eval()
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    plenty = scoring.predict_image(network, rgb, CPU, margin=margin)
    forward, refused = Segmenter.forward, []

    def small(self: Segmenter, x: torch.Tensor, **options: Any) -> Any:
        if len(refused) < 2:
            refused.append(x.shape)
            raise torch.OutOfMemoryError
        return forward(self, x, **options)

    monkeypatch.setattr(Segmenter, "forward", small)
    short = scoring.predict_image(network, rgb, CPU, margin=margin)
    assert len(refused) == 2
    # A margin that is less than all that a pixel depends on leaves a seam.
    if margin is None:
        assert np.abs(short.probabilities.astype(int) - plenty.probabilities).max() <= 1


def test_a_batch_in_parts_has_the_gradient_of_the_whole(make: Any, network: Segmenter) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 32, 32, generator=generator) * 2 - 1
    labels = (torch.rand(4, 32, 32, generator=generator) > 0.5).long()
    weight = torch.rand(4, 32, 32, generator=generator) * torch.tensor([1.0, 0.1, 3, 0.5])[:, None, None]
    settings = replace(recipe_for(Amount(1, 1, 1)).settings, batch=4)
    gradients = []
    for micro in (4, 1):
        trainer = Trainer(network, CPU, settings)
        trainer.micro = micro
        trainer.train_step(PatchBatch(images, labels, weight, None), 0.0)
        gradients.append(
            torch.cat([p.grad.flatten() for p in trainer.trainee.parameters() if p.grad is not None])
        )
    # Cross-entropy is the same; soft Dice is that of each part.
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.9


def test_out_of_memory_with_a_single_patch_is_told(
    make: Any, network: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError

    source = make()
    monkeypatch.setattr(Segmenter, "forward", full)
    with pytest.raises(OutOfMemoryError, match="out of memory"):
        run([source], network, fresh=True)
