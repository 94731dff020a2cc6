"""Models that were refused are asked again by what was corrected since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.finetuning.conftest import CPU, SPEC, corrected_slide, outcome, run, small_recipe, tissue

from napari_genselfdiff.annotations import encode
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Event, Finished, Progress
from napari_genselfdiff.finetuning import rounds
from napari_genselfdiff.finetuning.again import Refused, drawn_since, hearings
from napari_genselfdiff.finetuning.corrections import Place, Source, outline_corrections, read_place
from napari_genselfdiff.finetuning.gate import Verdict
from napari_genselfdiff.finetuning.holdout import CELL, GUARD, held_out_slides
from napari_genselfdiff.finetuning.preparation import Cut
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.network import Segmenter, build_segmenter

POOR, GOOD = 8, 60
"""Steps of training."""
FIRST, SINCE = Region(0, 0, 192, 512), Region(192, 0, 320, 512)

OTHERS = ["g", "b", "c", "d"]
"""Names of slides; the first is one that is held out whole where there are five."""


@pytest.fixture
def corrected(make: Any, quick: None) -> Source:
    source: Source = make(box=FIRST)
    return source


@pytest.fixture(scope="module")
def models(network: Segmenter, tmp_path_factory: pytest.TempPathFactory) -> tuple[Segmenter, Segmenter]:
    """One that was trained a little, and one that was trained well, on what is drawn first."""
    source = corrected_slide(tmp_path_factory.mktemp("models"), box=FIRST)
    with source.annotations, pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "recipe_for", small_recipe)
        both = [outcome(run([source], network, fresh=True, steps=steps)) for steps in (POOR, GOOD)]
    return both[0].segmenter, both[1].segmenter


def draw(source: Source, *, every: int = 1) -> None:
    """Draw the truth, or strokes of it."""
    truth = tissue(0)[1][SINCE.y : SINCE.bottom, SINCE.x : SINCE.right]
    mask = np.arange(len(truth)) % (3 * every) < 3
    source.annotations.stroke(
        0, SINCE.y, SINCE.x, encode(truth), np.broadcast_to(mask[:, None], truth.shape).copy()
    )


def refused(source: Source, model: Segmenter, name: str = "round-1") -> Refused:
    return Refused(name, name.title(), lambda: model, {source.name: source.annotations.position})


def asked(
    sources: Source | list[Source], parent: Segmenter, models: Sequence[Refused], **options: Any
) -> list[Event]:
    """A round of which nothing comes, after which they are asked again."""
    sources = sources if isinstance(sources, list) else [sources]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "judge_round", lambda *_, **__: Verdict(False, True, message="Not better"))
        return run(sources, parent, steps=1, refused=models, **options)


def test_what_was_corrected_since_shows_that_a_refused_model_is_better(
    corrected: Source, models: tuple[Segmenter, Segmenter]
) -> None:
    poor, good = models
    before = refused(corrected, good)
    draw(corrected)
    events = asked(corrected, poor, [before])
    result = outcome(events)
    assert not result.verdict.accepted
    assert result.again is not None
    assert result.again.model is before
    verdict = result.again.verdict
    assert verdict.accepted
    assert verdict.before is not None
    assert verdict.after is not None
    assert verdict.after > verdict.before + 0.05
    assert "on what you corrected since" in verdict.message
    told = [event.message for event in events if isinstance(event, Progress)]
    assert "checking whether Round-1 is better after all" in told


def again(events: Any) -> Any:
    return outcome(events).again


def test_where_nothing_was_corrected_since_nobody_is_asked(
    corrected: Source, models: tuple[Segmenter, Segmenter]
) -> None:
    poor, good = models
    draw(corrected)
    assert again(asked(corrected, poor, [refused(corrected, good)])) is None


def test_strokes_speak_for_nobody(corrected: Source, models: tuple[Segmenter, Segmenter]) -> None:
    """They lie where the model in use is wrong: any other one is better there."""
    poor, good = models
    before = refused(corrected, good)
    draw(corrected, every=3)
    assert again(asked(corrected, poor, [before])) is None


def test_the_last_one_that_is_better_is_taken_and_no_more_than_two_are_asked(
    corrected: Source, models: tuple[Segmenter, Segmenter], network: Segmenter
) -> None:
    poor, good = models
    better, worse = refused(corrected, good, "better"), refused(corrected, network, "worse")
    draw(corrected)
    assert again(asked(corrected, poor, [worse, better])).model is better
    assert again(asked(corrected, poor, [worse, worse, better])) is None
    assert again(asked(corrected, good, [refused(corrected, poor)])) is None


def test_one_that_is_damaged_or_of_another_task_is_passed_over(
    corrected: Source, models: tuple[Segmenter, Segmenter]
) -> None:
    def damaged() -> Segmenter:
        raise UserError("the weights cannot be read", "round-2", "delete it")

    poor, good = models
    better = refused(corrected, good)
    lost = replace(better, load=damaged)
    spec = replace(poor.spec, classes=("background", "gland", "vessel"))
    other = replace(better, load=lambda: build_segmenter(spec, start=None))
    draw(corrected)
    assert again(asked(corrected, poor, [lost, better])).model is better
    assert again(asked(corrected, poor, [other, better])).model is better


def test_a_window_counts_as_one_however_many_cells_it_has(
    corrected: Source, models: tuple[Segmenter, Segmenter], monkeypatch: pytest.MonkeyPatch
) -> None:
    poor, good = models
    before = refused(corrected, good)
    draw(corrected)
    monkeypatch.setattr("napari_genselfdiff.finetuning.again.FEWEST", 30)
    assert (SINCE.height // CELL) * (SINCE.width // CELL) > 30
    assert again(asked(corrected, poor, [before])) is None


def test_one_that_was_trained_on_what_is_held_out_now_is_not_asked(
    make: Any, models: tuple[Segmenter, Segmenter], corrected: Source
) -> None:
    """From five slides on, whole ones are held out."""
    others = [make(seed, box=FIRST, name=name) for seed, name in enumerate(OTHERS, 1)]
    assert held_out_slides([corrected.name, *OTHERS]) == {OTHERS[0]}
    poor, good = models
    now = {source.name: source.annotations.position for source in (corrected, *others)}
    better = replace(refused(corrected, good), positions=now)
    few = {name: position for name, position in now.items() if name != OTHERS[-1]}
    draw(corrected)
    sources = [corrected, *others]
    assert again(asked(sources, poor, [better])).model is better
    assert again(asked(sources, poor, [replace(better, positions=few)])) is None


def test_one_that_can_only_have_learned_from_what_is_held_out_is_not_asked(
    corrected: Source, network: Segmenter
) -> None:
    """Where all that is drawn would be held out, a round learns from it all the same."""
    before = refused(corrected, network)
    position = before.positions[corrected.name]
    draw(corrected)
    found = places(corrected)
    assert hearings([before], Cut(found, {}), classes=2)
    first = [p.drawn & (p.first <= position) for p in found if p.first is not None]
    found = [replace(p, held=p.held | drawn) for p, drawn in zip(found, first, strict=True)]
    assert hearings([before], Cut(found, {}), classes=2) == []


def test_nobody_is_asked_again_when_the_new_one_is_better(
    corrected: Source, models: tuple[Segmenter, Segmenter]
) -> None:
    def never() -> Segmenter:
        raise AssertionError

    poor, good = models
    before = replace(refused(corrected, good), load=never)
    draw(corrected)
    result = outcome(run([corrected], poor, steps=60, refused=[before]))
    assert result.verdict.accepted
    assert result.again is None


def test_a_stop_while_they_are_asked_takes_nobody(
    corrected: Source, models: tuple[Segmenter, Segmenter]
) -> None:
    token = CancelToken()

    def stopped() -> Segmenter:
        token.cancel()
        return models[1]

    before = replace(refused(corrected, models[1]), load=stopped)
    draw(corrected)
    last = asked(corrected, models[0], [before], cancel=token)[-1]
    assert isinstance(last, Finished)
    assert (last.result, last.cancelled) == (None, True)


def test_what_was_drawn_since_keeps_away_from_what_was_drawn_before(corrected: Source) -> None:
    position = corrected.annotations.position
    draw(corrected)
    for place in places(corrected):
        y, _ = place.origin
        rows = y + np.flatnonzero(drawn_since(place, position).any(axis=1))
        assert rows.min() == FIRST.bottom + GUARD
        assert not (drawn_since(place, position) & place.held).any()
        assert not drawn_since(place, corrected.annotations.position).any()
        everything = drawn_since(place, 0)
        np.testing.assert_array_equal(everything, place.drawn & ~place.held)
        assert not drawn_since(replace(place, first=None), 0).any(), "nobody knows when that was drawn"


def places(source: Source) -> list[Place]:
    """What a round reads of a slide."""
    model = build_segmenter(SPEC, start=None)
    return [read_place(one, model, compute=CPU) for one in outline_corrections(source, model)[0]]
