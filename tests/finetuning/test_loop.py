"""The fine-tune loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.errors import OutOfMemoryError, TrainingError, UserError
from napari_genselfdiff.events import CancelToken, Event, Finished, LossPoint, Progress
from napari_genselfdiff.finetuning import loop
from napari_genselfdiff.finetuning.examples import Example, split_examples
from napari_genselfdiff.finetuning.loop import FineTuneResult, FineTuneSettings, fine_tune
from napari_genselfdiff.finetuning.scoring import mean_dice
from napari_genselfdiff.segmentation.instances import core_target
from napari_genselfdiff.segmentation.network import Segmenter, SegmenterSpec, build_segmenter

TINY = replace(COMPACT, name="tiny", widths=(8, 16), full_width=8)
CPU = Compute("cpu", None, 1)
QUICK = FineTuneSettings(patch=32, batch=4, learning_rate=1e-2, ema=0.8)


def segmenter(*, instances: bool = False) -> Segmenter:
    spec = SegmenterSpec(config=TINY, classes=("background", "nucleus"), mpp=0.5, instances=instances)
    return build_segmenter(spec, start=None)


def discs(name: str, *, seed: int, side: int = 96, core: bool = False) -> Example:
    """Purple discs on pink: what a few steps can learn."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    ids = np.zeros((side, side), np.int32)
    for number in range(1, 8):
        cy, cx = rng.uniform(10, side - 10, 2)
        ids[np.hypot(y - cy, x - cx) < rng.uniform(6, 12)] = number
    noise = rng.normal(0, 8, (side, side, 3))
    rgb = np.where(ids[..., None] > 0, (110, 70, 150), (225, 175, 205)) + noise
    return Example(
        name,
        rgb.clip(0, 255).astype(np.uint8),
        (ids > 0).astype(np.uint8),
        np.ones((side, side), np.float32),
        core_target(ids) if core else None,
    )


TRAINING = [discs("a", seed=1), discs("b", seed=2)]
HELD_OUT = [discs("c", seed=3)]


def run(start: Segmenter, *, steps: int | None = 4, **options: Any) -> list[Event]:
    given: dict[str, Any] = {"training": TRAINING, "held_out": HELD_OUT, "compute": CPU, "settings": QUICK}
    return list(fine_tune(start, steps=steps, **(given | options)))


def result(events: list[Event]) -> FineTuneResult:
    last = events[-1]
    assert isinstance(last, Finished)
    assert isinstance(last.result, FineTuneResult)
    return last.result


def weights(model: Segmenter) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def statistics(model: Segmenter) -> dict[str, Tensor]:
    return {name: value for name, value in weights(model).items() if "running" in name}


@pytest.mark.parametrize("fixed", [True, False])
def test_a_model_that_knows_the_task_keeps_the_statistics_of_its_features(fixed: bool) -> None:
    start = segmenter()
    trained = result(run(start, settings=replace(QUICK, fixed_statistics=fixed))).segmenter
    assert statistics(start)
    assert same(statistics(start), statistics(trained)) == fixed
    assert not same(weights(start), weights(trained))


def test_the_body_moves_at_its_own_rate() -> None:
    start = segmenter()
    before = weights(start)
    moved = {}
    for rate in (0.0, 0.1, 1.0):
        settings = replace(QUICK, body_rate=rate, weight_decay=0)
        after = weights(result(run(start, settings=settings, held_out=[])).segmenter)
        moved[rate] = {
            part: max(
                float((after[name] - before[name]).abs().max())
                for name, _ in start.named_parameters()
                if ("output" in name) == (part == "head")
            )
            for part in ("head", "body")
        }
    assert moved[0.0]["body"] == 0
    assert 0 < moved[0.1]["body"] < 0.3 * moved[1.0]["body"]
    assert min(move["head"] for move in moved.values()) > 0


def test_an_easy_task_is_learned_in_30_steps() -> None:
    events = run(segmenter(), steps=30)
    losses = [event.loss for event in events if isinstance(event, LossPoint)]
    assert losses[-1] < 0.6 * losses[0]
    outcome = result(events)
    assert outcome.before is not None
    assert outcome.after is not None
    assert outcome.before < 0.6
    assert outcome.after > 0.85
    assert outcome.steps == 30


def test_the_core_is_learned_too() -> None:
    training = [discs("a", seed=1, core=True)]
    start = segmenter(instances=True)
    outcome = result(run(start, steps=30, training=training, held_out=[]))
    x = torch.from_numpy(training[0].rgb).permute(2, 0, 1)[None].float() / 127.5 - 1
    target = torch.from_numpy(training[0].core)
    errors = []
    for model in (start, outcome.segmenter):
        with torch.inference_mode():
            core = model(x)[1]
        assert core is not None
        errors.append((core.sigmoid()[0] - target).square().mean().item())
    assert errors[1] < 0.5 * errors[0]


def test_cores_count_by_their_weight() -> None:
    def first_loss(weight: float) -> float:
        settings = replace(QUICK, core_weight=weight)
        events = run(
            segmenter(instances=True),
            steps=1,
            training=[discs("a", seed=1, core=True)],
            held_out=[],
            settings=settings,
        )
        return next(event.loss for event in events if isinstance(event, LossPoint))

    without, half, whole = first_loss(0), first_loss(0.5), first_loss(1)
    assert whole - without > 0.5  # the cross-entropy of a coin alone is 0.69
    assert half == pytest.approx((without + whole) / 2)


def test_the_model_that_was_given_is_not_changed() -> None:
    start = segmenter()
    before = weights(start)
    outcome = result(run(start))
    assert same(weights(start), before)
    assert not same(weights(outcome.segmenter), before)
    assert outcome.segmenter.spec == start.spec
    assert all(parameter.requires_grad for parameter in start.parameters())


def test_the_same_seed_gives_the_same_model() -> None:
    outcomes = []
    for seed in (0, 0, 1):
        torch.rand(seed + 3)
        outcomes.append(result(run(segmenter(), settings=replace(QUICK, seed=seed))))
    first, again, other = (weights(outcome.segmenter) for outcome in outcomes)
    assert same(first, again)
    assert not same(first, other)
    assert outcomes[0].after == outcomes[1].after


def test_a_model_can_be_fine_tuned_again() -> None:
    first = result(run(segmenter(), steps=20))
    second = result(run(first.segmenter, steps=20))
    assert second.before == pytest.approx(first.after)
    assert not same(weights(first.segmenter), weights(second.segmenter))


def test_cancel_is_honoured_within_a_step() -> None:
    cancel, events = CancelToken(), []
    for event in fine_tune(
        segmenter(), TRAINING, HELD_OUT, compute=CPU, settings=QUICK, steps=50, cancel=cancel
    ):
        events.append(event)
        trained = [e for e in events if isinstance(e, Progress) and e.message == "training"]
        if len(trained) == 3:
            cancel.cancel()
    outcome = result(events)
    assert isinstance(events[-1], Finished)
    assert events[-1].cancelled
    assert outcome.steps == 3
    assert outcome.after is None
    assert not same(weights(outcome.segmenter), weights(segmenter()))


def test_cancel_is_honoured_while_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    cancel, scored = CancelToken(), []

    def recorded(model: Segmenter, examples: Any, compute: Compute) -> float:
        scored.append(len(examples))
        cancel.cancel()
        return mean_dice(model, examples, compute)

    monkeypatch.setattr(loop, "mean_dice", recorded)
    held_out = [discs(f"{index}", seed=index) for index in range(5)]
    outcome = result(run(segmenter(), held_out=held_out, cancel=cancel))
    assert scored == [1]
    assert (outcome.before, outcome.after, outcome.steps) == (None, None, 0)


def test_held_out_pixels_are_never_trained_on() -> None:
    """Whatever their labels and cores are, the weights come out the same."""
    outcomes = []
    for change in (False, True):
        example = discs("one", seed=5, core=True)
        mask = split_examples([example])[1][0].weight > 0
        assert example.core is not None
        if change:
            labels = np.where(mask, 1 - example.labels, example.labels).astype(np.uint8)
            core = np.where(mask, np.float32(0.7), example.core)
            example = replace(example, labels=labels, core=core)
        training, held_out = split_examples([example])
        assert ((held_out[0].weight > 0) == mask).all()
        outcomes.append(result(run(segmenter(instances=True), training=training, held_out=held_out)))
    assert same(weights(outcomes[0].segmenter), weights(outcomes[1].segmenter))
    assert outcomes[0].before != outcomes[1].before  # but the score sees them

    other = replace(TRAINING[0], labels=(1 - TRAINING[0].labels).astype(np.uint8))
    flipped = result(run(segmenter(), training=[other, TRAINING[1]]))
    assert not same(weights(flipped.segmenter), weights(result(run(segmenter())).segmenter))


def test_events_come_in_order() -> None:
    events = run(segmenter(), steps=10)
    messages = [event.message for event in events if isinstance(event, Progress)]
    assert messages == ["scoring the model as it is", *["training"] * 10, "scoring the new model"]
    shares = [event.done / event.total for event in events if isinstance(event, Progress)][1:-1]
    np.testing.assert_allclose(shares, np.arange(1, 11) / 10)
    assert [event.step for event in events if isinstance(event, LossPoint)] == [1, 5, 10]
    assert isinstance(events[-1], Finished)
    assert not events[-1].cancelled
    assert events[-1].message.startswith("10 steps")


def test_time_ends_the_training() -> None:
    outcome = result(run(segmenter(), steps=None, seconds=1.0))
    assert outcome.steps >= 1
    assert outcome.seconds < 30


@pytest.mark.parametrize("limit", [{"steps": 0}, {"steps": None, "seconds": 0.0}])
def test_no_time_at_all_ends_too(limit: dict[str, Any]) -> None:
    outcome = result(run(segmenter(), **limit))
    assert outcome.steps == 0
    assert outcome.before == outcome.after


def test_without_anything_held_out_there_is_no_score() -> None:
    empty = replace(HELD_OUT[0], weight=np.zeros((96, 96), np.float32))
    for held_out in ([], [empty]):
        outcome = result(run(segmenter(), held_out=held_out, steps=1))
        assert (outcome.before, outcome.after) == (None, None)
    outcome = result(run(segmenter(), steps=1, score_before=False))
    assert outcome.before is None
    assert outcome.after is not None


def test_nothing_to_train_on_is_told() -> None:
    empty = replace(TRAINING[0], weight=np.zeros((96, 96), np.float32))
    for training in ([], [empty]):
        with pytest.raises(UserError, match="nothing to train on"):
            run(segmenter(), training=training)
    with pytest.raises(UserError, match="give --seconds or --steps"):
        run(segmenter(), steps=None)


def test_a_step_that_is_not_finite_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    forward, calls = Segmenter.forward, []

    def spoiled(self: Segmenter, x: Tensor, **options: Any) -> Any:
        calls.extend([1] if torch.is_grad_enabled() else [])
        return forward(self, x * (float("nan") if 1 <= len(calls) <= spoiling else 1), **options)

    monkeypatch.setattr(Segmenter, "forward", spoiled)
    spoiling = 1
    result = run(segmenter())[-1]
    assert isinstance(result, Finished)
    assert all(bool(value.isfinite().all()) for value in result.result.segmenter.state_dict().values())
    spoiling = 100
    with pytest.raises(TrainingError, match="came to nothing"):
        run(segmenter(), steps=20)


def test_a_full_device_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Segmenter, "forward", full)
    with pytest.raises(OutOfMemoryError, match="smaller batch"):
        run(segmenter(), held_out=[])
