"""Rounds of the circle, on real slides, sessions and networks; small ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.finetuning.conftest import CPU, SIDE, SPEC, outcome, run, same, tissue

from napari_genselfdiff.annotations import Annotations, encode
from napari_genselfdiff.errors import TrainingError, UserError
from napari_genselfdiff.events import CancelToken, Finished, LossPoint, Progress, ScorePoint, Snapshot
from napari_genselfdiff.finetuning import rounds, teacher, training
from napari_genselfdiff.finetuning.corrections import Source
from napari_genselfdiff.finetuning.gate import Verdict
from napari_genselfdiff.finetuning.holdout import held_out_mask
from napari_genselfdiff.finetuning.rounds import train_round
from napari_genselfdiff.finetuning.training import GROWN_SHARE, blended, grown_share
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.network import Segmenter, build_segmenter, copy_segmenter
from napari_genselfdiff.slides import slide_from_arrays

pytestmark = pytest.mark.usefixtures("quick")


def test_a_new_task_is_learned_from_what_was_painted(make: Any, network: Segmenter) -> None:
    events = run([make()], network, fresh=True, steps=40)
    result = outcome(events)
    assert result.verdict.accepted
    assert result.verdict.before is None
    assert result.verdict.after is not None
    assert result.verdict.after > 0.8
    assert result.verdict.message.startswith("A first model: Dice 0.")
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


def test_a_grown_model_begins_again_while_corrections_are_few(
    make: Any, network: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, start = make(), build_segmenter(SPEC, start=None, seed=3)
    further = outcome(run([source], network, steps=2))
    monkeypatch.setattr(rounds, "MANY", 10**6)
    monkeypatch.setattr(teacher, "MOST_PIXELS", 0)  # which a round that does not begin again has not
    anew = outcome(run([source], network, begin=start, grown=True, steps=2))
    assert not anew.verdict.too_far
    # It lies between the model in use and one that was trained from the start.
    elsewhere = outcome(run([source], network, begin=start, steps=2)).segmenter
    assert distance(elsewhere, start) < distance(elsewhere, network) / 2
    assert same(anew.segmenter, blended(network, elsewhere, grown_share(anew.pixels)))
    monkeypatch.setattr(rounds, "MANY", 1)
    many = outcome(run([source], network, begin=start, grown=True, steps=2))
    assert same(many.segmenter, further.segmenter)
    assert (anew.begun, many.begun, further.begun) == (True, False, False)
    # Unless nothing started from there yet.
    turn = outcome(run([source], network, begin=start, grown=True, adapted=True, steps=2))
    assert same(turn.segmenter, elsewhere)
    assert turn.begun


def test_late_rounds_go_less_far() -> None:
    assert grown_share(0) == grown_share(4_000) == GROWN_SHARE
    assert grown_share(8_000) == GROWN_SHARE / 2
    assert grown_share(19_000) > 0.1


def distance(a: Segmenter, b: Segmenter) -> float:
    pairs = zip(a.unet.parameters(), b.unet.parameters(), strict=True)
    return sum(float((x - y).detach().abs().sum()) for x, y in pairs)


def test_what_everything_contradicts_is_not_trained_on(make: Any, network: Segmenter) -> None:
    sources = [make(number, box=Region(0, 0, 128, 128)) for number in range(7)]
    network = outcome(run(sources, network, fresh=True, steps=60)).segmenter  # a witness knows a little
    right = outcome(run(sources, network))
    wrong = tissue(2)[1][:128, :128] ^ 1
    sources[2].annotations.stroke(0, 0, 0, encode(wrong), np.ones(wrong.shape, bool))
    events = run(sources, network)
    result = outcome(events)
    assert [(doubt.slide, doubt.region) for doubt in result.doubts] == [
        ("fingerprint-2", Region(0, 0, 128, 128))
    ]
    assert result.pixels < right.pixels
    assert any("comparing" in event.message for event in events if isinstance(event, Progress))
    insisted = outcome(run(sources, network, insisted=result.doubts))
    assert (insisted.pixels, insisted.doubts) == (right.pixels, [])
    # A first model has nobody to contradict anything, and a young one begins again.
    assert outcome(run(sources, network, fresh=True)).doubts == []


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


@pytest.mark.parametrize(("label", "told"), [(0, "only background was"), (1, "only nucleus was")])
def test_a_new_task_is_not_learned_from_one_class(
    tmp_path: Path, network: Segmenter, label: int, told: str
) -> None:
    slide = slide_from_arrays(tissue(0)[0], name="slide", mpp=0.5)
    with Annotations.open(tmp_path / "s", shape=(SIDE, SIDE), slide_id="s") as drawing:
        drawing.stroke(0, 9, 9, encode(np.full((300, 300), label)), np.ones((300, 300), bool))
        with pytest.raises(UserError, match=rf"^paint .*, or some background: {told}|^paint .*: {told}"):
            run([Source(slide, drawing, "s")], network, fresh=True)
        # One that knows both learns from one, too, but not anew from the start.
        further = outcome(run([Source(slide, drawing, "s")], network))
        start = build_segmenter(SPEC, start=None, seed=3)
        went_on = outcome(run([Source(slide, drawing, "s")], network, begin=start, grown=True))
        assert not went_on.begun
        assert same(went_on.segmenter, further.segmenter)


def test_a_class_that_only_what_is_held_out_shows_is_learned(tmp_path: Path, network: Segmenter) -> None:
    slide = slide_from_arrays(tissue(0)[0], name="slide", mpp=0.5)
    with Annotations.open(tmp_path / "s", shape=(SIDE, SIDE), slide_id="s") as drawing:
        whole = np.ones((SIDE, SIDE), bool)
        held = held_out_mask((SIDE, SIDE), (0, 0), "s")
        assert held.any()
        assert not held.all()
        drawing.stroke(0, 0, 0, encode(held.astype(int)), whole)
        cut = list(
            _returned(
                rounds.cut_places(
                    [Source(slide, drawing, "s")],
                    network,
                    compute=CPU,
                    fresh=True,
                    seed=0,
                    cancel=CancelToken(),
                )
            )
        )[-1]
    assert set(np.unique(cut.places[0].labels[cut.trained[0]])) == {0, 1}
    assert not cut.places[0].held.any()


@pytest.mark.parametrize("fresh", [True, False])
def test_a_step_that_is_not_finite_does_not_spoil_a_round(
    make: Any, network: Segmenter, monkeypatch: pytest.MonkeyPatch, fresh: bool
) -> None:
    source, forward, calls = make(), Segmenter.forward, []

    def spoiled(self: Segmenter, x: torch.Tensor, **options: Any) -> Any:
        calls.extend([1] if torch.is_grad_enabled() else [])
        return forward(self, x * (float("nan") if len(calls) == 1 else 1), **options)

    monkeypatch.setattr(Segmenter, "forward", spoiled)
    events = run([source], network, fresh=fresh, steps=6)
    values = outcome(events).segmenter.state_dict().values()
    assert all(bool(value.isfinite().all()) for value in values)
    assert all(np.isfinite(event.loss) for event in events if isinstance(event, LossPoint))
    calls.clear()
    with pytest.raises(TrainingError, match="came to nothing"):
        run([source], network, fresh=fresh, steps=1)


def test_a_class_that_the_model_does_not_have_is_told(make: Any, network: Segmenter) -> None:
    source = make()
    source.annotations.stroke(0, 0, 0, encode(np.full((9, 9), 5)), np.ones((9, 9), bool))
    with pytest.raises(UserError, match="class 5 was painted, and the model has 1, slide 0"):
        run([source], network)


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
    assert "Too early to tell" in result.verdict.message


@pytest.mark.parametrize("decided", [True, False])
def test_less_than_half_of_the_way_is_for_a_gain_that_is_known(
    make: Any, network: Segmenter, monkeypatch: pytest.MonkeyPatch, decided: bool
) -> None:
    tried = []

    def recorded(old: Segmenter, new: Segmenter, share: float) -> Segmenter:
        tried.append(share)
        return blended(old, new, share)

    monkeypatch.setattr(training, "blended", recorded)
    monkeypatch.setattr(rounds, "judge_round", lambda *_, **__: Verdict(False, decided, too_far=True))
    assert not outcome(run([make()], network, steps=1)).verdict.accepted
    assert tried == ([0.5, 0.25, 0.12] if decided else [0.5])


@pytest.mark.parametrize("known", [True, False])
def test_half_of_the_way_is_cross_validated_before_less_of_it_is_tried(
    make: Any, network: Segmenter, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    judged = []

    def verdict(*_: object, where: str, **__: object) -> Verdict:
        judged.append(where)
        crossed = where == rounds.CROSSED and known
        return Verdict(crossed, crossed, too_far=not crossed)

    monkeypatch.setattr(rounds, "judge_round", verdict)
    result = outcome(run([make(box=Region(0, 0, 150, 150), name="b")], network, steps=4))
    assert judged[:2] == [rounds.FIFTH, rounds.CROSSED]
    assert judged[2:] == ([] if known else [rounds.FIFTH] * 2)
    assert result.verdict.accepted == known
    assert result.settings["share"] == (0.5 if known else 0.25)


def test_weights_from_elsewhere_that_are_too_far_are_refused_and_not_lost(
    make: Any, network: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a pretext was adapted there is no half of the way that could be tried instead."""
    monkeypatch.setattr(rounds, "judge_round", lambda *_, **__: Verdict(False, False, too_far=True))
    begin = build_segmenter(SPEC, start=None, seed=3)
    result = outcome(run([make(box=Region(0, 0, 150, 150), name="b")], network, begin=begin, steps=4))
    assert not result.verdict.accepted
    assert result.settings["share"] == 1.0
