"""Rounds of the circle, on real slides, sessions and networks; small ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from napari_genselfdiff.annotations import Annotations, encode
from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.errors import OutOfMemoryError, UserError
from napari_genselfdiff.events import CancelToken, Event, Finished, LossPoint, Progress, ScorePoint, Snapshot
from napari_genselfdiff.finetuning import rounds, scoring
from napari_genselfdiff.finetuning.corrections import Source
from napari_genselfdiff.finetuning.examples import PatchBatch
from napari_genselfdiff.finetuning.recipe import Amount, recipe_for
from napari_genselfdiff.finetuning.rounds import RoundResult, train_round
from napari_genselfdiff.finetuning.trainer import Trainer
from napari_genselfdiff.finetuning.training import blended, learning_rate
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.network import Segmenter, SegmenterSpec, build_segmenter, copy_segmenter
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


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    opened = []

    def source(seed: int = 0, *, box: Region | None = None, name: str | None = None) -> Source:
        rgb, truth = tissue(seed)
        drawing = Annotations.open(tmp_path / f"session-{seed}", shape=truth.shape, slide_id=f"s{seed}")
        opened.append(drawing)
        box = box or Region(0, 0, 320, 320)
        part = truth[box.y : box.bottom, box.x : box.right]
        drawing.stroke(0, box.y, box.x, encode(part), np.ones(part.shape, bool))
        slide = slide_from_arrays(rgb, name=f"slide {seed}", mpp=0.5)
        return Source(slide, drawing, name or f"fingerprint-{seed}")

    yield source
    for drawing in opened:
        drawing.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network wants larger steps and smaller patches than the real one."""

    def quick(amount: Amount, *, fresh: bool = False) -> Any:
        recipe = recipe_for(amount, fresh=fresh)
        settings = replace(recipe.settings, patch=32, batch=4, learning_rate=2e-2, ema=0.8)
        return replace(recipe, settings=settings)

    monkeypatch.setattr(rounds, "recipe_for", quick)


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


def test_a_new_task_is_learned_from_what_was_painted(make: Any, network: Segmenter) -> None:
    events = run([make()], network, fresh=True, steps=40)
    result = outcome(events)
    assert result.verdict.accepted
    assert result.verdict.before is None
    assert result.verdict.after is not None
    assert result.verdict.after > 0.8
    assert result.verdict.message.startswith("a first model: Dice 0.")
    assert [event.step for event in events if isinstance(event, LossPoint)][:2] == [1, 5]
    assert isinstance(events[-2], ScorePoint)
    assert result.curve[-1] == (40, result.verdict.after)
    assert result.regions > 10
    assert result.pixels < 320 * 320
    assert result.settings["fresh"]
    assert (result.settings["device"], result.settings["threads"]) == ("cpu", 1)


def test_a_better_model_passes_the_gate_and_the_parent_is_not_changed(make: Any, network: Segmenter) -> None:
    before = copy_segmenter(network)
    result = outcome(run([make()], network, steps=40))
    assert result.verdict.before is not None
    assert result.verdict.after is not None
    assert result.verdict.after > result.verdict.before + 0.2
    assert same(network, before)
    assert not same(result.segmenter, before)


def test_the_same_round_gives_the_same_weights(make: Any, network: Segmenter) -> None:
    source = make()
    first, again = (outcome(run([source], network)) for _ in range(2))
    assert same(first.segmenter, again.segmenter)
    assert first.verdict == again.verdict
    other = outcome(run([source], network, seed=1))
    assert not same(first.segmenter, other.segmenter)


def test_steps_that_the_clock_ended_give_the_same_weights_again(make: Any, network: Segmenter) -> None:
    source = make(box=Region(0, 0, 128, 128))
    timed = outcome(run([source], network, steps=None, seconds=1.5))
    again = outcome(run([source], network, steps=timed.steps))
    assert timed.steps >= 1
    assert same(timed.segmenter, again.segmenter)


def test_a_stopped_round_goes_on_as_if_it_had_not_been(make: Any, network: Segmenter, tmp_path: Path) -> None:
    source, path = make(), tmp_path / "round.safetensors"
    whole = outcome(run([source], network, steps=8))
    cancel, stopped = CancelToken(), []
    for event in train_round([source], network, compute=CPU, steps=8, checkpoint=path, cancel=cancel):
        stopped.append(event)
        if isinstance(event, Progress) and event.message == "training" and event.done == 3:
            cancel.cancel()
    end = stopped[-1]
    assert isinstance(end, Finished)
    assert end.cancelled
    assert end.result is None
    assert end.message == "stopped; the model stays as it was, and 3 steps of training are kept to go on from"
    events = run([source], network, steps=8, checkpoint=path, resume=True)
    assert "going on after 3 steps" in [e.message for e in events if isinstance(e, Progress)]
    resumed = outcome(events)
    assert resumed.steps == 8
    assert same(resumed.segmenter, whole.segmenter)
    assert not path.exists()


def test_a_checkpoint_of_another_round_is_refused(make: Any, network: Segmenter, tmp_path: Path) -> None:
    source, path = make(), tmp_path / "round.safetensors"
    cancel = CancelToken()
    for event in train_round([source], network, compute=CPU, steps=8, checkpoint=path, cancel=cancel):
        if isinstance(event, LossPoint):
            cancel.cancel()
    with pytest.raises(UserError, match=r"of another kind .settings."):
        run([source], network, seed=1, checkpoint=path, resume=True)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"round\.safetensors"):
        run([source], network, checkpoint=path, resume=True)


def test_cancel_before_anything_is_done(make: Any, network: Segmenter) -> None:
    cancel = CancelToken()
    cancel.cancel()
    events = run([make()], network, cancel=cancel)
    assert isinstance(events[-1], Finished)
    assert events[-1].cancelled
    assert events[-1].result is None


def test_strokes_that_come_while_it_trains_do_not_disturb(make: Any, network: Segmenter) -> None:
    source = make()
    quiet = outcome(run([source], network))
    position = source.annotations.position
    events = []
    for event in train_round([source], network, compute=CPU, steps=4):
        events.append(event)
        if isinstance(event, LossPoint):
            codes = encode(np.ones((50, 50), np.uint8))
            source.annotations.stroke(0, 10, 10 + event.step, codes, np.ones((50, 50), bool))
    disturbed = outcome(events)
    assert same(disturbed.segmenter, quiet.segmenter)
    assert disturbed.positions == {source.name: position}
    assert source.annotations.position > position


def test_corrections_of_all_slides_count_and_one_that_cannot_be_read_is_left_out(
    make: Any, network: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [make(0), make(1)]
    both = outcome(run(sources, network))
    assert both.positions.keys() == {"fingerprint-0", "fingerprint-1"}
    assert both.pixels > outcome(run(sources[:1], network)).pixels

    def gone(*_: Any, **__: Any) -> NDArray[np.uint8]:
        raise OSError("the disk is gone")

    monkeypatch.setattr(type(sources[1].slide), "read_scaled", gone)
    with pytest.raises(UserError, match=r"the slide could not be read .the disk is gone., slide 0"):
        run(sources, network)
    monkeypatch.undo()
    unscaled = replace(sources[1], slide=slide_from_arrays(tissue(1)[0], name="slide 1"))
    events = run([sources[0], unscaled], network)
    assert outcome(events).positions.keys() == {"fingerprint-0"}
    told = [event.message for event in events if isinstance(event, Progress)]
    assert any(message.startswith("left out: the file does not say its resolution") for message in told)


def test_nothing_corrected_says_what_to_do(tmp_path: Path, network: Segmenter) -> None:
    slide = slide_from_arrays(tissue(0)[0], name="slide", mpp=0.5)
    with (
        Annotations.open(tmp_path / "s", shape=(SIDE, SIDE), slide_id="s") as drawing,
        pytest.raises(UserError, match="nothing is corrected yet, slide, press Correct here"),
    ):
        run([Source(slide, drawing, "s")], network)


def test_a_class_that_the_model_does_not_have_is_told(make: Any, network: Segmenter) -> None:
    source = make()
    source.annotations.stroke(0, 0, 0, encode(np.full((9, 9), 5)), np.ones((9, 9), bool))
    with pytest.raises(UserError, match="class 5 was painted, and the model has 1, slide 0"):
        run([source], network)


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


def test_a_snapshot_comes_early_and_stays_as_it_is(
    make: Any, network: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "FIRST_SNAPSHOT", 0.0)
    events = run([make()], network)
    shown = [event for event in events if isinstance(event, Snapshot)]
    assert [event.step for event in shown] == [1, 2, 3, 4]
    assert not same(shown[0].segmenter, shown[-1].segmenter)
    assert not shown[0].segmenter.training


def test_what_is_held_out_is_never_trained_on(make: Any, network: Segmenter) -> None:
    """Whatever a person drew there, the weights come out the same."""
    source = make()
    first = outcome(run([source], network, fresh=True))
    held = rounds.cut_places
    *_, cut = _returned(held([source], network, compute=CPU, fresh=True, seed=0, cancel=CancelToken()))
    assert cut is not None
    for place in cut.places:
        (y, x), mask = place.origin, place.held & place.drawn
        source.annotations.stroke(0, y, x, encode(1 - place.labels), mask)
    second = outcome(run([source], network, fresh=True))
    assert first.pixels == second.pixels
    assert same(first.segmenter, second.segmenter)


def _returned(work: Any) -> Iterator[Any]:
    yield (yield from work)


def test_few_regions_are_judged_by_cross_validation(make: Any, network: Segmenter) -> None:
    source = make(box=Region(0, 0, 150, 150), name="b")
    events = run([source], network, steps=8)
    checked = [e for e in events if isinstance(e, Progress) and e.message == "checking whether it is better"]
    verdict = outcome(events).verdict
    assert checked or not verdict.decided


def test_one_stroke_in_a_held_out_cell_is_learned_and_too_early_to_tell(
    make: Any, network: Segmenter
) -> None:
    for seed, name in enumerate("abcdefghijkl"):
        source = make(seed, box=Region(20, 20, 12, 12), name=name)
        cut = list(
            _returned(
                rounds.cut_places([source], network, compute=CPU, fresh=False, seed=0, cancel=CancelToken())
            )
        )[-1]
        if not any(place.held.any() for place in cut.places):
            break
    else:
        pytest.fail("none of twelve names holds the first cell out")
    result = outcome(run([source], network, steps=2))
    assert result.pixels == 144
    assert not result.verdict.decided
    assert "too early to tell" in result.verdict.message


def test_the_learning_rate_does_not_depend_on_how_many_steps_will_follow() -> None:
    rates = [learning_rate(step) for step in range(300)]
    assert rates[0] < 0.2
    assert max(rates) == max(rates[5:15])
    assert all(a > b for a, b in pairwise(rates[15:]))


def test_half_the_way_lies_between_two_models(make: Any, network: Segmenter) -> None:
    other = build_segmenter(SPEC, start=None, seed=1)
    assert same(blended(network, other, 1.0), other)
    assert same(blended(network, other, 0.0), network)
    half = blended(network, other, 0.5).unet.output.weight
    expected = (network.unet.output.weight + other.unet.output.weight) / 2
    torch.testing.assert_close(half, expected)


def test_the_anchor_holds_the_weights(make: Any, network: Segmenter) -> None:
    settings = recipe_for(Amount(1, 1, 1)).settings
    batch = PatchBatch(
        torch.zeros(2, 3, 32, 32), torch.ones(2, 32, 32, dtype=torch.int64), torch.ones(2, 32, 32), None
    )
    moved = []
    for pull in (0.0, 300.0):
        trainer = Trainer(network, CPU, replace(settings, pull=pull, learning_rate=1e-2))
        for _ in range(5):
            trainer.train_step(batch, 0.2)
        pairs = zip(network.parameters(), trainer.trainee.parameters(), strict=True)
        moved.append(sum(float((a - b).detach().abs().sum()) for a, b in pairs))
    assert moved[1] < 0.6 * moved[0]


def test_more_corrections_mean_more_steps() -> None:
    amounts = [Amount(150, 150, 1), Amount(5000, 1000, 5), Amount(100_000, 9000, 40)]
    for fresh in (False, True):
        steps = [recipe_for(amount, fresh=fresh).steps for amount in amounts]
        assert steps == sorted(steps)
        assert steps[0] < steps[-1]
