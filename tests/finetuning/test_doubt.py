"""What is left out of a round: corrections that both the model in use and the other ones contradict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.finetuning.conftest import CPU, SPEC, tissue

from napari_genselfdiff.events import CancelToken, Event, Progress
from napari_genselfdiff.finetuning import doubt, looking
from napari_genselfdiff.finetuning.corrections import Place
from napari_genselfdiff.finetuning.doubt import believed, drawn_whole
from napari_genselfdiff.finetuning.preparation import Cut
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models.versions import Doubt
from napari_genselfdiff.segmentation.network import build_segmenter

MODEL = build_segmenter(SPEC, start=None).eval()
BOX = np.s_[20:100, 30:110]
SCALE = 2.0
ODD = 23
"""A place with many nuclei: that there are none is hard to say."""


@cache
def corner(number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A piece of tissue, and where its nuclei are."""
    rgb, truth = tissue(number)
    return rgb[:128, :128], truth[:128, :128]


def place(
    number: int, *, said: NDArray[np.uint8] | None = None, guess: NDArray[np.uint8] | None = None
) -> Place:
    """A place in which a window was drawn; rightly, and as the model said, by default."""
    rgb, truth = corner(number)
    drawn = np.zeros(truth.shape, bool)
    drawn[BOX] = True
    said, guess = truth if said is None else said, truth if guess is None else guess
    sure = np.where(drawn, 0, 1).astype(np.float32)
    held = np.zeros(truth.shape, bool)
    return Place(
        f"slide {number}", (64, 128), rgb, drawn, np.where(drawn, said, guess), guess, sure, None, held
    )


def truth_of(number: int) -> NDArray[np.uint8]:
    return corner(number)[1]


def outcome(
    places: list[Place], *, insisted: Sequence[Doubt] = (), cancel: CancelToken | None = None
) -> tuple[Cut, list[Doubt]]:
    """What is believed of some places; all that is told on the way is progress."""
    told: list[tuple[Cut, list[Doubt]]] = []
    cut, scales = Cut(places, {}), {place.slide: SCALE for place in places}
    cancel = cancel or CancelToken()

    def work() -> Iterator[Event]:
        told.append((yield from believed(cut, MODEL, scales, insisted=insisted, compute=CPU, cancel=cancel)))

    assert all(isinstance(event, Progress) for event in work())
    return told[0]


RIGHT = [place(number) for number in range(6)]
WRONG = place(ODD, said=1 - truth_of(ODD))
WHERE = Doubt(f"slide {ODD}", Region(round((64 + 20) * SCALE), round((128 + 30) * SCALE), 160, 160))


@pytest.mark.parametrize(
    "wrong",
    [
        1 - truth_of(ODD),
        np.zeros_like(truth_of(ODD)),
        np.ones_like(truth_of(ODD)),
        np.roll(truth_of(ODD), 20, 1),
    ],
    ids=["exchanged", "all background", "all foreground", "moved"],
)
def test_a_window_that_everything_contradicts_is_left_out_and_where_it_lies_is_told(
    wrong: NDArray[np.uint8],
) -> None:
    cut, doubts = outcome([*RIGHT, place(ODD, said=wrong)])
    assert doubts == [WHERE]
    assert [one.slide for one in cut.places] == [one.slide for one in RIGHT]


def test_what_the_model_gets_all_wrong_is_learned_where_the_other_corrections_agree() -> None:
    hard = place(ODD, guess=1 - truth_of(ODD))
    cut, doubts = outcome([*RIGHT, hard])
    assert not doubts
    np.testing.assert_array_equal(cut.places[-1].labels, hard.labels)
    # Even where it gets everything wrong, and the corrections have nobody but one another.
    places = [place(number, guess=1 - truth_of(number)) for number in range(7)]
    assert outcome(places)[1] == []


def test_what_the_model_said_is_learned_whatever_the_other_corrections_say() -> None:
    odd = 1 - truth_of(ODD)
    assert outcome([*RIGHT, place(ODD, said=odd, guess=odd)])[1] == []


def test_wiping_out_a_few_false_nuclei_is_no_contradiction() -> None:
    stroma = replace(
        place(ODD, said=np.zeros_like(truth_of(ODD))),
        rgb=np.full((128, 128, 3), (225, 175, 205), np.uint8),
    )
    false = np.zeros_like(truth_of(ODD))
    false[30:60, 40:70] = 1
    assert outcome([*RIGHT, replace(stroma, guess=false)])[1] == []
    assert outcome([*RIGHT, replace(stroma, guess=np.ones_like(false))])[1] == []


def test_the_rest_of_the_place_still_counts() -> None:
    drawn = WRONG.drawn.copy()
    drawn[110:120, :] = True
    truth = truth_of(ODD)
    core = np.ones(truth.shape, np.float32)
    labels = np.where(drawn & ~WRONG.drawn, truth, WRONG.labels)
    both = replace(WRONG, drawn=drawn, labels=labels, core=core)
    cut, doubts = outcome([*RIGHT, both])
    assert doubts == [WHERE]
    left = cut.places[-1]
    np.testing.assert_array_equal(left.drawn, drawn & ~WRONG.drawn)
    np.testing.assert_array_equal(left.labels, truth)  # what the model said
    assert left.core is not None
    np.testing.assert_array_equal(left.core, np.where(WRONG.drawn, -1, 1))
    weight = left.example(np.ones_like(drawn)).weight
    assert not weight[WRONG.drawn].any()
    assert weight[~WRONG.drawn].all()
    assert both.core is not None
    assert both.drawn is drawn, "what was read stays as it is"
    assert drawn[BOX].all()
    assert (both.core == 1).all()


def test_a_large_window_is_known_by_its_middle_and_one_in_several_places_is_told_as_one() -> None:
    rgb, truth = (part[:400, :400] for part in tissue(3))
    box = np.s_[20:390, 10:380]
    drawn = np.zeros(truth.shape, bool)
    drawn[box] = True
    large = replace(
        WRONG, rgb=rgb, drawn=drawn, labels=truth ^ drawn, guess=truth, sure=drawn * 0.0, held=drawn & False
    )
    (window,) = drawn_whole(0, drawn)
    assert window.seen == Region(205 - 64 - 16, 195 - 64 - 16, 161, 161)
    halves = [
        replace(
            large,
            rgb=rgb[:, part],
            drawn=drawn[:, part],
            labels=large.labels[:, part],
            guess=truth[:, part],
            sure=large.sure[:, part],
            held=large.held[:, part],
            origin=(64, 128 + (part.start or 0)),
        )
        for part in (np.s_[:192], np.s_[192:])
    ]
    whole = Doubt(f"slide {ODD}", Region((64 + 20) * 2, (128 + 10) * 2, 740, 740))
    assert outcome([*RIGHT, large])[1] == outcome([*RIGHT, *halves])[1] == [whole]
    assert outcome([*RIGHT, *halves], insisted=[whole])[1] == []


def test_strokes_are_never_left_out() -> None:
    strokes = np.zeros_like(WRONG.drawn)
    strokes[2:126, 2:126] = (np.arange(2, 126) % 8 < 3)[:, None]
    strokes[2:126, 2:5] = True  # which hang together
    hanging = replace(WRONG, drawn=strokes, labels=1 - truth_of(ODD))
    assert strokes.sum() > doubt.SMALLEST
    assert outcome([*RIGHT, hanging])[1] == []
    (window,) = drawn_whole(7, WRONG.drawn)
    assert (window.place, window.box) == (7, Region(20, 30, 80, 80))
    assert drawn_whole(0, strokes) == []
    assert drawn_whole(0, np.zeros((9, 9), bool)) == []


def test_few_corrections_contradict_nobody() -> None:
    assert outcome([*RIGHT[:4], WRONG])[1] == []
    assert outcome([*RIGHT[:5], WRONG])[1] == [WHERE]


def test_the_user_may_insist() -> None:
    around = Region(WHERE.region.y + 20, WHERE.region.x + 20, 400, 400)
    assert outcome([*RIGHT, WRONG], insisted=[WHERE])[1] == []
    assert outcome([*RIGHT, WRONG], insisted=[Doubt(f"slide {ODD}", around)])[1] == []
    beside = Doubt(f"slide {ODD}", Region(WHERE.region.y + 100, WHERE.region.x, 400, 400))
    assert outcome([*RIGHT, WRONG], insisted=[beside])[1] == [WHERE]
    assert outcome([*RIGHT, WRONG], insisted=[replace(WHERE, slide="slide 1")])[1] == [WHERE]


def test_a_witness_that_is_mostly_wrong_is_not_heard() -> None:
    knows_nothing = [place(number, guess=1 - truth_of(number)) for number in range(6)]
    assert outcome([*knows_nothing, WRONG])[1] == []
    assert outcome([*knows_nothing[:2], *RIGHT[2:], WRONG])[1] == [WHERE]
    # Corrections that contradict one another teach the second witness nothing.
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 2, (128, 128)).astype(np.uint8) for _ in range(6)]
    odd = [place(number, said=said, guess=said) for number, said in enumerate(noise)]
    assert outcome([*odd, WRONG])[1] == []


def test_what_was_contradicted_at_first_does_not_teach_the_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[list[bool]] = []

    def crossed(features: Any, classes: Any, teach: list[bool]) -> Any:
        taught.append(teach)
        return real(features, classes, teach)

    real = doubt._crossed
    monkeypatch.setattr(doubt, "_crossed", crossed)
    assert outcome([*RIGHT, WRONG])[1] == [WHERE]
    assert taught == [[True] * 7, [True] * 6 + [False]]


def test_a_class_that_nobody_else_drew_is_believed() -> None:
    vessel = np.where(truth_of(ODD) > 0, 2, 0).astype(np.uint8)
    other = place(ODD, said=vessel)
    assert outcome([*RIGHT, other])[1] == []


def test_of_many_windows_some_are_compared_the_suspects_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubt, "MOST_PIXELS", 6 * 112 * 112)
    many = [*RIGHT, *(place(number) for number in range(10, 20))]
    assert outcome([*many, WRONG])[1] == [WHERE]
    monkeypatch.setattr(doubt, "MOST_PIXELS", 112 * 112)
    assert outcome([*many, WRONG])[1] == []  # one alone is contradicted by nobody


def test_without_memory_or_when_cancelled_everything_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    cancel = CancelToken()
    cancel.cancel()
    assert outcome([*RIGHT, WRONG], cancel=cancel)[1] == []

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(looking, "image_levels", full)
    cut, doubts = outcome([*RIGHT, WRONG])
    assert not doubts
    assert len(cut.places) == 7
