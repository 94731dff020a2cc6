"""The circle without a window: tasks without a model, stopped fine-tunes, the next place, new cohorts."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.session.conftest import CPU, correct, last

from napari_genselfdiff.annotations import encode
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Finished, LossPoint, Progress
from napari_genselfdiff.finetuning.corrections import Source
from napari_genselfdiff.finetuning.recipe import Amount, recipe_for
from napari_genselfdiff.finetuning.rounds import train_round
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.network import save_segmenter
from napari_genselfdiff.session import Session, Task
from napari_genselfdiff.slides import slide_from_arrays

Pixels = np.ndarray[Any, Any]
WHOLE = Region(0, 0, 300, 400)


def cohort_slide(session: Session, seed: int) -> None:
    """Add a slide with enough tissue to adapt to, and look at it."""
    rng = np.random.default_rng(seed)
    small = rng.integers(60, 200, (24, 24, 3), dtype=np.uint8)
    rgb = np.asarray(Image.fromarray(small).resize((480, 480), Image.Resampling.BICUBIC))
    session.activate(session.add_slide(slide_from_arrays(rgb, name=f"cohort {seed}", mpp=0.5)))


def knows_a_little(session: Session, home: Path) -> None:
    """Use a model that was trained on what is corrected by now."""
    source = Source(session.slide, session.annotations, "s")
    done = last(train_round([source], session.segmenter(), compute=CPU, fresh=True, steps=60)).result
    save_segmenter(done.segmenter, home / "models" / "knows.safetensors")
    session.use_model("knows")


def weights(session: Session, name: str) -> str:
    """A hash of a version's file."""
    return hashlib.sha256(session.versions.path(name).read_bytes()).hexdigest()


def test_a_young_task_begins_again_at_the_pretext_and_is_not_frozen(
    session: Session, pretext: Path, tissue: Pixels
) -> None:
    session.start_task(Task.named(["dark"], mpp=0.5))
    assert not session.grown
    correct(session, Region(40, 0, 20, 20))
    session.adopt(last(session.fine_tune(seconds=None, steps=2)).result)
    assert session.grown
    correct(session, Region(90, 200, 20, 20))
    second = last(session.fine_tune(seconds=None, steps=60)).result
    assert second.accepted  # though it is too early to tell, and nothing like the first
    assert "Too early to tell" in second.message
    assert second.version.parent == "round-1"
    assert second.version.settings["pretext"] == "pretext"
    assert (
        second.version.settings["settings"]["learning_rate"]
        == recipe_for(Amount(1, 1, 1), fresh=True).settings.learning_rate
    )
    session.adopt(second)
    assert session.grown
    session.use_model("tiny")
    assert not session.grown


def test_a_model_learns_a_further_class(session: Session, tissue: Pixels) -> None:
    model, known = session.current, session.classes
    session.change_classes([*known[1:], "dark"])
    assert session.classes == (*known, "dark")
    assert session.versions["classes-1"].parent == model
    last(session.segment(WHOLE))
    assert session.labels(0, 0, 0, 300, 400).max() <= len(known) - 1  # it knows nothing of it yet
    rgb = session.slide.read(0, 0, 300, 200)
    session.annotations.accept(
        0, Region(0, 0, 300, 200), encode(len(known) * (rgb[..., 0] < 150).astype(np.uint8))
    )
    result = last(session.fine_tune(seconds=None, steps=3)).result
    assert result.version.parent == "classes-1"
    session.adopt(replace(result, accepted=False))
    session.change_classes([*known[1:], "pigment"])
    assert session.versions["classes-2"].parent == "classes-1"  # something came of it
    with pytest.raises(UserError, match="same name"):
        session.change_classes([*known[1:], known[1].upper()])
    with pytest.raises(UserError, match="a class that a model knows stays, pigment"):
        session.change_classes(known[1:])


def test_a_task_that_is_not_trained_yet_gets_another_class(session: Session, pretext: Path) -> None:
    session.start_task(Task.named(["dark"], mpp=0.5))
    session.change_classes(["dark", "pale"])
    assert session.classes == ("background", "dark", "pale")
    assert session.starting_segmenter().spec.classes == session.classes
    assert session.current is None


def test_a_task_without_a_model_learns_from_the_pretext(
    session: Session, pretext: Path, tissue: Pixels
) -> None:
    session.start_task(Task.named(["dark"], mpp=0.5))
    assert session.classes == ("background", "dark")
    with pytest.raises(UserError, match="no model is chosen"):
        last(session.segment(WHOLE))
    correct(session, Region(0, 0, 300, 200))
    done = last(session.fine_tune(seconds=None, steps=60)).result
    assert done.version.parent is None
    session.adopt(done)
    assert session.segmenter().spec.classes == ("background", "dark")
    last(session.segment(WHOLE))
    truth = tissue[:, 240:, 0] < 150
    predicted = session.labels(0, 0, 240, 300, 160) > 0
    assert 2 * (truth & predicted).sum() / (truth.sum() + predicted.sum()) > 0.8


def test_the_same_corrections_seed_and_steps_make_the_same_weights(session: Session) -> None:
    correct(session, Region(0, 0, 200, 200))
    first = last(session.fine_tune(seconds=None, steps=6, seed=3)).result.version
    assert first.steps == 6
    again = last(session.fine_tune(seconds=None, steps=first.steps, seed=first.seed)).result.version
    assert session.segmenter(first.name).unet.state_dict().keys()
    for (name, one), other in zip(
        session.segmenter(first.name).unet.state_dict().items(),
        session.segmenter(again.name).unet.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(one, other), name


def test_a_fine_tune_that_was_stopped_goes_on(session: Session) -> None:
    correct(session, Region(0, 0, 200, 200))
    whole = last(session.fine_tune(seconds=None, steps=6)).result.version
    token = CancelToken()
    for event in session.fine_tune(seconds=None, steps=6, cancel=token):
        if isinstance(event, Progress) and event.message == "training" and event.done >= 3:
            token.cancel()
    assert isinstance(event, Finished)
    assert event.cancelled
    assert "kept" in event.message
    session.close()
    again = Session(session.folder, session.slide, compute=CPU)
    events = list(again.fine_tune(seconds=None, steps=6))
    assert any(isinstance(event, Progress) and "going on after" in event.message for event in events)
    assert isinstance(events[-1], Finished)
    resumed = events[-1].result.version
    for one, other in zip(
        again.segmenter(whole.name).unet.state_dict().values(),
        again.segmenter(resumed.name).unet.state_dict().values(),
        strict=True,
    ):
        assert torch.equal(one, other)
    assert not list(again.folder.glob("unfinished-*"))
    again.close()


def test_a_stopped_fine_tune_that_cannot_be_read_is_begun_anew(session: Session) -> None:
    correct(session, Region(0, 0, 200, 200))
    (session.folder / "unfinished-tiny.safetensors").write_bytes(b"cut off")
    assert last(session.fine_tune(seconds=None, steps=2)).result.version.steps == 2


def test_corrections_of_all_slides_train_and_a_missing_slide_is_left_out(
    session: Session, tissue: Pixels, tmp_path: Path
) -> None:
    correct(session, Region(0, 0, 150, 200))
    path = tmp_path / "second.png"
    Image.fromarray(tissue[::-1]).save(path)
    from napari_genselfdiff.slides import open_slide

    session.activate(session.add_slide(open_slide(path, mpp=0.5)))
    correct(session, Region(0, 0, 150, 200))
    both = last(session.fine_tune(seconds=None, steps=2)).result.version
    assert sorted(both.positions.values()) == [1, 1]
    session.close()
    path.unlink()
    again = Session(session.folder, compute=CPU)
    first = next(iter(again.slides))
    first.take(slide_from_arrays(tissue, name="tissue", mpp=0.5))
    again.activate(first)
    done = last(again.fine_tune(seconds=None, steps=2))
    assert list(done.result.version.positions) == [first.fingerprint]
    assert "second.png is left out" in done.message
    again.close()


def test_a_correction_that_all_others_contradict_is_left_out_until_the_user_insists(
    session: Session, home: Path
) -> None:
    places = [Region(y, x, 70, 70) for y in (10, 110, 210) for x in (10, 110, 210)][:7]
    for region in places:
        correct(session, region)
    knows_a_little(session, home)
    odd = places[3]
    rgb = session.slide.read(odd.y, odd.x, odd.height, odd.width)
    session.annotations.accept(0, odd, encode((rgb[..., 0] >= 150).astype(np.uint8)))
    done = last(session.fine_tune(seconds=None, steps=2))
    assert "1 corrected place on tissue was left out: neither the model nor your other" in done.message
    (doubt,) = done.result.doubts
    assert (doubt.slide, doubt.region) == (session.active.fingerprint, odd)
    recorded = done.result.version.settings["left_out"]
    assert recorded == [[session.active.fingerprint, 110, 10, 70, 70]]

    session.insist(doubt)
    session.close()
    again = Session(session.folder, session.slide, compute=CPU)
    whole = last(again.fine_tune(seconds=None, steps=2))
    assert whole.result.doubts == ()
    assert "left out" not in whole.message
    assert whole.result.version.settings["left_out"] == []
    again.close()


def test_the_next_place_is_one_that_nobody_saw(session: Session) -> None:
    with pytest.raises(UserError, match="nothing is segmented"):
        session.next_place()
    last(session.segment(WHOLE))
    seen: list[Region] = []
    while (event := last(session.next_place())).result is not None:
        slide, region = event.result
        assert slide is session.active
        assert event.message
        assert all(region != other for other in seen)
        seen.append(region)
        session.visit(slide, region)
        assert len(seen) < 50
    assert seen
    session.close()
    again = Session(session.folder, session.slide, compute=CPU)
    assert last(again.next_place()).result is None  # it is remembered
    again.close()


def test_the_pretext_adapts_to_the_slides_and_the_next_fine_tune_begins_with_it(
    session: Session, pretext: Path
) -> None:
    cohort_slide(session, 0)
    events = list(session.adapt(seconds=600, steps=60))
    assert any(isinstance(event, LossPoint) for event in events)
    assert isinstance(events[-1], Finished)
    path = events[-1].result
    assert path == "models/pretext-1.safetensors", events[-1].message
    session.use_pretext(path)
    correct(session, Region(0, 0, 200, 200))
    version = last(session.fine_tune(seconds=None, steps=2)).result.version
    assert version.parent == "tiny"
    assert version.settings["pretext"] == "pretext-1.safetensors"
    session.adopt(replace(last(session.fine_tune(seconds=None, steps=2)).result, accepted=False))
    session.close()
    again = Session(session.folder, session.slide, compute=CPU)
    assert again.pretext.endswith("pretext-1.safetensors")
    assert len(again.versions) >= 2
    assert again.other_start() is None  # it had its turn
    check = last(again.check_domain())
    assert "denoising error" in check.message
    again.close()


def unfinished_adaptations(session: Session) -> list[Path]:
    return list((session.folder / "models").glob("*.adapting.checkpoint.safetensors"))


def test_what_is_left_of_an_adaptation_does_not_stand_in_the_way_of_the_next(
    session: Session, pretext: Path
) -> None:
    cohort_slide(session, 0)
    assert last(session.adapt(seconds=600, steps=1)).result is None  # one step does not gain surely
    assert unfinished_adaptations(session) == []
    token = CancelToken()
    for event in session.adapt(seconds=600, steps=60, cancel=token):
        if isinstance(event, LossPoint):
            token.cancel()
    assert isinstance(event, Finished)
    assert event.cancelled
    assert "--" not in event.message, "the window has no options"
    assert len(unfinished_adaptations(session)) == 1
    cohort_slide(session, 1)
    events = list(session.adapt(seconds=600, steps=60))  # of other slides: begun anew
    assert isinstance(events[-1], Finished)
    assert events[-1].result == "models/pretext-1.safetensors", events[-1].message
    assert [event.step for event in events if isinstance(event, LossPoint)] == [20, 40, 60]
    assert unfinished_adaptations(session) == []


def test_a_stop_within_the_label_check_of_an_adaptation_writes_nothing(
    session: Session, pretext: Path
) -> None:
    cohort_slide(session, 0)
    correct(session, Region(0, 0, 300, 300))
    token = CancelToken()
    for event in session.adapt(seconds=600, steps=60, cancel=token):
        if isinstance(event, Progress) and "few labels" in event.message:
            token.cancel()
    assert isinstance(event, Finished)
    assert (event.result, event.cancelled) == (None, True)
    assert not list((session.folder / "models").glob("pretext-1.safetensors"))


def test_corrections_of_one_class_do_not_stop_an_adaptation(session: Session, pretext: Path) -> None:
    cohort_slide(session, 0)
    session.annotations.accept(0, WHOLE, encode(np.zeros((300, 400), int)))
    done = last(session.adapt(seconds=600, steps=60))
    assert done.result == "models/pretext-1.safetensors", done.message
    assert "was not checked" in done.message
