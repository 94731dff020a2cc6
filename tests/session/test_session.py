"""A session without a window: segment, correct, fine-tune, reopen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_genselfdiff.annotations import encode, is_accepted
from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.errors import MissingScaleError, UserError
from napari_genselfdiff.events import CancelToken, Event, Finished, TileDone
from napari_genselfdiff.finetuning.corrections import Source
from napari_genselfdiff.finetuning.rounds import RoundResult, train_round
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models.versions import Round
from napari_genselfdiff.segmentation.network import SegmenterSpec, build_segmenter, save_segmenter
from napari_genselfdiff.session import Session, Task
from napari_genselfdiff.slides import slide_from_arrays
from napari_genselfdiff.slides.tissue import Tissue

CPU = Compute(device="cpu", autocast=None, threads=1)
TINY = replace(COMPACT, name="tiny", widths=(8, 16), full_width=8)
WHOLE = Region(0, 0, 300, 400)
SOME_STEPS = 15


def last(events: Iterator[Event]) -> Finished:
    """The last event."""
    *_, end = events
    assert isinstance(end, Finished)
    return end


def accept_truth(session: Session, tissue: np.ndarray[Any, Any], region: Region) -> None:
    """Correct a region completely."""
    part = tissue[region.y : region.bottom, region.x : region.right, 0] < 150
    session.annotations.accept(0, region, encode(part.astype(np.uint8)))


def test_what_a_person_drew_wins_whatever_is_segmented(session: Session) -> None:
    drawn = np.array([[0, 1], [1, 0]], np.uint8)
    session.annotations.stroke(0, 50, 60, encode(drawn), np.ones((2, 2), bool))
    for _ in range(2):
        last(session.segment(WHOLE))
        np.testing.assert_array_equal(session.labels(0, 50, 60, 2, 2), drawn)


def test_segmenting_in_two_parts_is_segmenting_once(session: Session, tmp_path: Path) -> None:
    last(session.segment(WHOLE))
    whole = session.labels(0, 0, 0, 300, 400)
    other = Session(tmp_path / "other", session.slide, compute=CPU)
    other.use_model("tiny")
    last(other.segment(Region(0, 0, 300, 200)))
    last(other.segment(Region(0, 200, 300, 200)))
    parts = other.labels(0, 0, 0, 300, 400)
    other.close()
    # The cut itself is a region's border, where fewer tiles are mixed.
    assert (whole != parts).mean() < 0.002


def test_of_a_view_that_is_segmented_in_part_tissue_that_is_not_is_left_out(session: Session) -> None:
    glass = np.ones((300, 400), bool)
    glass[:, :300] = False  # the slide ends in glass, which is not segmented either
    session.tissue._found = {session.tissue.sensitivity: Tissue(~glass, 1.0)}
    seen = session.labels(0, 0, 0, 300, 400)
    last(session.segment(Region(0, 0, 300, 100)))
    said = session.labels(0, 0, 0, 300, 400)
    came_since = said != seen
    assert came_since[:, :100].any(), "the model of the test finds something"
    session.annotations.stroke(0, 10, 200, encode(np.ones((4, 4))), np.ones((4, 4), bool))

    now = session.labels(0, 0, 0, 300, 400)
    left_out = session.accept(0, WHOLE, now)
    accepted = is_accepted(session.annotations.read(0, WHOLE))
    segmented = session.predictions().read(0, WHOLE) > 0
    drawn = np.zeros_like(segmented)
    drawn[10:14, 200:204] = True
    np.testing.assert_array_equal(accepted, (segmented | glass) & ~drawn)
    assert left_out == pytest.approx((~segmented & ~glass & ~drawn).mean())
    np.testing.assert_array_equal(session.labels(0, 0, 0, 300, 400), now)

    # Looked at before the model had spoken: what it says now was not seen.
    session.annotations.undo()
    now[came_since] = 0
    session.accept(0, WHOLE, now)
    assert not is_accepted(session.annotations.read(0, WHOLE))[came_since].any()
    np.testing.assert_array_equal(session.labels(0, 0, 0, 300, 400)[came_since], said[came_since])


def test_where_nothing_is_segmented_all_of_a_view_is_accepted(session: Session) -> None:
    last(session.segment(Region(0, 0, 300, 100)))
    box = Region(150, 200, 140, 160)  # beyond what was segmented
    assert session.accept(0, box, np.zeros((140, 160), np.uint8)) == 0
    assert is_accepted(session.annotations.read(0, box)).all()


def test_cancel_keeps_the_tiles_that_are_done(session: Session) -> None:
    token = CancelToken()
    done = []
    for event in session.segment(WHOLE, cancel=token):
        if isinstance(event, TileDone):
            done.append(event)
            token.cancel()
        end = event
    assert len(done) == 1
    assert isinstance(end, Finished)


def test_fine_tuning_learns_and_the_parent_stays(
    session: Session, tissue: np.ndarray[Any, Any], home: Path
) -> None:
    accept_truth(session, tissue, WHOLE)
    # Half of the way from random weights is nowhere: the model in use knows a little.
    source = Source(session.slide, session.annotations, "tissue")
    first = last(train_round([source], session.segmenter(), compute=CPU, fresh=True, steps=SOME_STEPS)).result
    assert isinstance(first, RoundResult)
    save_segmenter(first.segmenter, home / "models" / "some.safetensors")
    session.use_model("some")
    end = last(session.fine_tune(seconds=600, steps=150))
    assert isinstance(end.result, Round)
    version = end.result.version
    assert version.after is not None
    assert version.before is not None
    assert version.after > version.before
    assert end.result.accepted
    assert session.current == "some"
    session.adopt(end.result)
    assert (session.current, session.previous) == ("round-1", "some")
    last(session.segment(WHOLE))
    truth = tissue[:, 240:, 0] < 150
    predicted = session.labels(0, 0, 240, 300, 160) > 0
    assert 2 * (truth & predicted).sum() / (truth.sum() + predicted.sum()) > 0.8
    session.use_model("tiny")
    assert session.previous == "round-1"


def test_a_cancelled_fine_tune_leaves_the_model_as_it_was(
    session: Session, tissue: np.ndarray[Any, Any]
) -> None:
    accept_truth(session, tissue, Region(0, 0, 300, 200))
    token = CancelToken()
    token.cancel()
    end = last(session.fine_tune(seconds=60, cancel=token))
    assert end.cancelled
    assert end.result is None
    assert [version.name for version in session.versions] == ["tiny"]


def test_fine_tuning_without_corrections_says_what_to_do(session: Session) -> None:
    with pytest.raises(UserError, match="Correct here"):
        last(session.fine_tune(seconds=1))


def test_reopening_goes_on(session: Session, tissue: np.ndarray[Any, Any], tmp_path: Path) -> None:
    last(session.segment(WHOLE))
    accept_truth(session, tissue, Region(10, 10, 50, 50))
    outcome = last(session.fine_tune(seconds=60, steps=2)).result
    assert isinstance(outcome, Round)
    session.adopt(Round(outcome.version, True, ""))
    last(session.segment(WHOLE))
    labels = session.labels(0, 0, 0, 300, 400)
    session.view = {"center": [0.0, 1.0, 2.0], "zoom": 3.0}
    session.close()

    again = Session(session.folder, slide_from_arrays(tissue, name="tissue"), compute=CPU)
    assert again.slide.mpp == 0.5
    assert again.current == outcome.version.name
    assert again.view == session.view
    np.testing.assert_array_equal(again.labels(0, 0, 0, 300, 400), labels)
    again.close()


def test_a_damaged_session_file_is_named(session: Session, tissue: np.ndarray[Any, Any]) -> None:
    session.close()
    (session.folder / "session.json").write_text("{")
    with pytest.raises(UserError, match=r"session\.json"):
        Session(session.folder, slide_from_arrays(tissue, name="tissue", mpp=0.5))


def test_a_missing_resolution_is_asked_for(home: Path, tissue: np.ndarray[Any, Any], tmp_path: Path) -> None:
    made = Session(tmp_path / "s", slide_from_arrays(tissue, name="tissue"), compute=CPU)
    made.use_model("tiny")
    with pytest.raises(MissingScaleError, match="--mpp"):
        last(made.segment(WHOLE))
    made.set_mpp(0.5)
    assert not last(made.segment(WHOLE)).cancelled
    made.close()
    saved = json.loads((tmp_path / "s" / "session.json").read_text())
    assert saved["slides"][0]["mpp"] == 0.5


def test_a_slide_of_glass_alone_is_said(session: Session) -> None:
    session.tissue._found = {session.tissue.sensitivity: Tissue(np.zeros((30, 40), bool), 10.0)}
    with pytest.raises(UserError, match="no tissue"):
        last(session.segment(WHOLE, slide_wide=True))


def test_a_whole_slide_is_segmented_and_its_objects_are_counted_once(session: Session, home: Path) -> None:
    spec = SegmenterSpec(TINY, ("background", "nucleus"), mpp=0.5, instances=True)
    save_segmenter(build_segmenter(spec, start=None, seed=3), home / "models" / "objects.safetensors")
    session.use_model("objects")
    done = last(session.segment(WHOLE, slide_wide=True))
    assert not done.cancelled
    store = session.predictions()
    numbers = store.objects(Region(0, 0, *store.grid))
    found = store.labels(Region(0, 0, *store.grid)) > 1
    assert (numbers[~found] == 0).all()
    assert done.message.endswith(f"{len(np.unique(numbers[numbers > 0])):,} objects")
    again = last(session.segment(WHOLE, slide_wide=True))
    assert again.result == 0  # nothing is computed again
    assert again.message == done.message


@pytest.mark.parametrize("names", [("Tumour", "tumour"), ("stroma", "stroma"), ("stroma", "Background")])
def test_of_two_classes_of_one_name_the_right_one_is_named(names: tuple[str, str]) -> None:
    with pytest.raises(UserError, match=rf"same name, (?i:{names[1]}),"):
        Task.named(names, mpp=None)
