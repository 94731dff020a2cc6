"""The second teacher of a young model: the first gear, where nobody drew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.finetuning.conftest import CPU, SPEC, tissue

from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.events import CancelToken, Event, Progress
from napari_genselfdiff.finetuning import looking, teacher
from napari_genselfdiff.finetuning.corrections import Place
from napari_genselfdiff.finetuning.preparation import Cut
from napari_genselfdiff.finetuning.teacher import taught, trust
from napari_genselfdiff.segmentation.network import Segmenter, build_segmenter

START = build_segmenter(SPEC, start=None).eval()


def place(seed: int = 0, *, core: bool = False) -> tuple[Place, NDArray[np.uint8]]:
    """A place with a few strokes of each class, and what is true there."""
    rgb, truth = (part[:200, :210] for part in tissue(seed))
    drawn = np.zeros(truth.shape, bool)
    drawn[20:24, :], drawn[:, 60:64], drawn[120:124, :] = True, True, True
    nothing = np.zeros(truth.shape, np.float32)
    held = np.zeros(truth.shape, bool)
    held[:, 128:] = True
    labels = np.where(drawn, truth, 0).astype(np.uint8)
    guess = np.zeros(truth.shape, np.uint8)
    found = Place("s", (0, 0), rgb, drawn, labels, guess, nothing, nothing if core else None, held)
    return found, truth


def result_of(cut: Cut, *, fresh: bool = True, start: Segmenter = START, cancel: Any = None) -> Cut:
    """What it makes of a cut; all that it tells on the way is progress."""
    told: list[Cut] = []

    def work() -> Iterator[Event]:
        told.append((yield from taught(cut, start, compute=CPU, fresh=fresh, cancel=cancel or CancelToken())))

    assert all(isinstance(event, Progress) for event in work())
    return told[0]


def test_a_model_without_a_parent_hears_what_a_few_strokes_say_of_the_rest() -> None:
    one, truth = place()
    (after,) = result_of(Cut([one], {"s": 3})).places
    free = ~one.drawn
    assert (after.labels[free] == truth[free]).mean() > 0.9
    assert after.sure[free].min() > 0
    assert after.sure[~free].max() == 0
    np.testing.assert_array_equal(after.labels[~free], truth[~free])
    np.testing.assert_array_equal(after.guess, one.guess)  # what the gate compares with is the model's
    weight = after.example().weight
    assert 0 < weight[free & ~one.held].max() <= 0.5 < weight[~free & ~one.held].min()
    assert weight[one.held].max() == 0


def test_what_was_drawn_for_another_place_is_not_taught_here() -> None:
    one, _ = place(core=True)
    elsewhere = np.zeros_like(one.drawn)
    elsewhere[150:] = True
    elsewhere &= ~one.drawn
    (after,) = result_of(Cut([replace(one, elsewhere=elsewhere)], {})).places
    assert not after.sure[elsewhere].any()
    assert not after.example().weight[elsewhere].any()
    assert after.sure[after.free].min() > 0


def test_what_is_held_out_is_not_learned_from() -> None:
    one, _ = place()
    wrong = replace(one, labels=np.where(one.held, 1 - one.labels, one.labels).astype(np.uint8))
    (a,), (b,) = (result_of(Cut([each], {})).places for each in (one, wrong))
    np.testing.assert_array_equal(a.sure, b.sure)


def test_the_model_in_use_is_believed_the_more_the_more_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trust(5, fresh=True) == 1
    assert trust(2_000, fresh=False) == 0.5
    assert trust(18_000, fresh=False) == pytest.approx(0.1)
    one, truth = place()
    sure = np.where(one.drawn, 0, 0.9).astype(np.float32)
    model = replace(one, guess=np.ones_like(truth), sure=sure, labels=np.where(one.drawn, truth, 1))
    free = ~one.drawn
    monkeypatch.setattr(teacher, "TRUST", 1)
    (steady,) = result_of(Cut([model], {}), fresh=False).places
    assert (steady.labels[free] == 1).all()
    np.testing.assert_allclose(steady.sure[free], 0.9, atol=0.01)
    monkeypatch.setattr(teacher, "TRUST", 10**9)
    (turned,) = result_of(Cut([model], {}), fresh=False).places
    assert (turned.labels[free] == truth[free]).mean() > 0.9


def test_a_class_that_was_not_painted_is_left_to_the_model_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "TRUST", 10**9)
    spec = replace(SPEC, classes=("background", "nucleus", "vessel"))
    start = build_segmenter(spec, start=None).eval()
    one, truth = place()
    vessel = np.zeros(truth.shape, bool)
    vessel[150:190, 10:50] = True
    guess = np.where(vessel, 2, 0).astype(np.uint8)
    sure = np.where(one.drawn, 0, 0.8).astype(np.float32)
    labels = np.where(one.drawn, truth, guess).astype(np.uint8)
    model = replace(one, guess=guess, sure=sure, labels=labels)
    (after,) = result_of(Cut([model], {}), fresh=False, start=start).places
    assert (after.labels[vessel] == 2).all()
    np.testing.assert_allclose(after.sure[vessel], 0.8, atol=0.01)
    free = ~one.drawn & ~vessel
    assert (after.labels[free] == truth[free]).mean() > 0.9


def test_the_first_gear_says_nothing_of_where_objects_end() -> None:
    one, _ = place(core=True)
    (after,) = result_of(Cut([one], {})).places
    assert after.core is not None
    assert (after.core[~one.drawn] == -1).all()
    assert (after.core[one.drawn] == 0).all()


def _out_of_memory(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("why", ["one class", "stopped", "no memory", "too large", "whole tiles", "nothing"])
def test_otherwise_all_stays_as_it_is(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = place()
    start, cancel = START, CancelToken()
    if why == "one class":
        one = replace(one, labels=np.zeros_like(one.labels))
    elif why == "stopped":
        cancel.cancel()
    elif why == "no memory":
        monkeypatch.setattr(looking, "image_levels", _out_of_memory)
    elif why == "too large":
        monkeypatch.setattr(teacher, "MOST_PIXELS", one.drawn.size - 1)
    elif why == "nothing":
        one = replace(one, drawn=np.zeros_like(one.drawn))
    else:
        config = replace(COMPACT, name="whole", widths=(8, 16), full_width=8, attention=True, norm="group")
        start = build_segmenter(replace(SPEC, config=config), start=None).eval()
        assert not config.tile_independent
    cut = Cut([one], {})
    assert result_of(cut, start=start, cancel=cancel) is cut


def test_of_many_places_some_are_looked_at_and_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [place(seed)[0] for seed in range(3)]
    monkeypatch.setattr(teacher, "MOST_PIXELS", 2 * places[0].drawn.size)
    first, second = (result_of(Cut(places, {})).places for _ in range(2))
    changed = [after is not before for after, before in zip(first, places, strict=True)]
    assert sum(changed) == 2
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.sure, b.sure)


def test_where_an_earlier_model_teaches_the_first_gear_counts_less() -> None:
    one, truth = place()
    share = trust(int((one.drawn & ~one.held).sum()), fresh=False)
    seen = np.zeros(one.drawn.shape, bool)
    seen[:100] = True
    wrong = np.where(one.drawn, one.labels, 1 - truth).astype(np.uint8)
    sure = np.where(one.drawn, np.float32(0), np.float32(1))

    def mixed(earlier: NDArray[np.bool_] | None) -> Place:
        given = replace(one, labels=wrong, guess=wrong, sure=sure, earlier=earlier)
        return result_of(Cut([given], {"s": 3}), fresh=False).places[0]

    def told(found: Place) -> NDArray[np.float64]:
        """Probability of what the model said, which was wrong."""
        same = found.labels == wrong
        return np.where(same, 1 + found.sure, 1 - found.sure) / 2

    alone, known = told(mixed(None)), told(mixed(seen))
    at = one.free
    assert alone[at].mean() < 1 - 0.5 * share, "the first gear contradicts it"
    np.testing.assert_allclose(known[at & seen], 1 - share * (1 - alone[at & seen]), atol=1e-5)
    np.testing.assert_allclose(known[at & ~seen], alone[at & ~seen], atol=1e-6)
