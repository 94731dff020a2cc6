"""Versions of the model: back, branched, renamed, deleted, exported, imported, damaged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_genselfdiff.annotations import encode
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import Event, Finished
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models.versions import EARLY, Round, Version
from napari_genselfdiff.segmentation.network import build_segmenter, save_segmenter
from napari_genselfdiff.session import Session

Pixels = np.ndarray[Any, Any]


def last(events: Iterator[Event]) -> Any:
    """Result of long work."""
    *_, end = events
    assert isinstance(end, Finished)
    return end.result


@pytest.fixture
def tuned(session: Session, tissue: Pixels) -> Session:
    """A session with one fine-tuned version, which the gate refused and the user chose."""
    part = tissue[10:90, 10:90, 0] < 150
    session.annotations.accept(0, Region(10, 10, 80, 80), encode(part.astype(np.uint8)))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("napari_genselfdiff.finetuning.gate.KEPT_EARLY", 1.1)
        outcome = last(session.fine_tune(seconds=60, steps=2))
    session.adopt(Round(outcome.version, True, ""))
    return session


def test_a_version_says_what_it_was_made_from(tuned: Session) -> None:
    version = tuned.versions["round-1"]
    assert version.parent == "tiny"
    assert version.positions == {tuned.active.fingerprint: 1}
    assert version.steps == 2
    assert version.made
    assert tuned.model is version


def test_back_and_forth(tuned: Session) -> None:
    tuned.use_model("tiny")
    assert (tuned.current, tuned.previous) == ("tiny", "round-1")
    tuned.use_model("round-1")
    assert (tuned.current, tuned.previous) == ("round-1", "tiny")


def test_a_branch_goes_on_from_an_older_version(tuned: Session) -> None:
    branch = tuned.versions.branch("tiny", "other way")
    tuned.use_model(branch.name)
    outcome = last(tuned.fine_tune(seconds=60, steps=2))
    assert outcome.version.parent == branch.name
    assert tuned.versions[branch.name].parent == "tiny"
    assert "other way" in tuned.versions[branch.name].description


def test_a_new_name_is_remembered_and_no_two_are_the_same(tuned: Session) -> None:
    tuned.versions.rename("round-1", "  after   the first slide ")
    tuned.save()
    with pytest.raises(UserError, match="another version"):
        tuned.versions.rename("tiny", "after the first slide")
    tuned.close()
    again = Session(tuned.folder, tuned.slide)
    assert again.versions["round-1"].shown == "after the first slide"
    again.close()


def test_a_version_in_use_is_not_deleted(tuned: Session) -> None:
    with pytest.raises(UserError, match="in use"):
        tuned.delete_version("round-1")
    tuned.use_model("tiny")
    tuned.delete_version("round-1")
    assert [version.name for version in tuned.versions] == ["tiny"]
    assert tuned.previous is None
    assert not (tuned.folder / "models" / "round-1.safetensors").exists()


def test_deleting_a_version_deletes_what_it_said_and_nothing_else(tuned: Session) -> None:
    whole = Region(0, 0, 300, 400)
    branch = tuned.versions.branch("round-1")
    for name in ("round-1", branch.name):
        tuned.use_model(name)
        last(tuned.segment(whole))
    tuned.delete_version("round-1")
    folders = [path.name for path in (tuned.active.folder / "predictions").iterdir()]
    assert [name.split(".")[0] for name in folders] == [f"{branch.name}-1"]


def test_a_colleague_takes_it_over(tuned: Session, tissue: Pixels, tmp_path: Path) -> None:
    target = tuned.versions.export("round-1", tmp_path / "for-ann")
    card = json.loads(target.with_suffix(".json").read_text())
    assert card["version"]["parent"] == "tiny"
    assert card["classes"] == ["background", "nucleus"]
    assert str(tuned.folder) not in target.with_suffix(".json").read_text()
    with pytest.raises(UserError, match="exists"):
        tuned.versions.export("round-1", target)
    other = Session(tmp_path / "other", tuned.slide, compute=tuned.compute)
    taken = other.versions.take_file(target)
    other.use_model(taken.name)
    whole = Region(0, 0, 300, 400)
    last(other.segment(whole))
    last(tuned.segment(whole))
    np.testing.assert_array_equal(other.predictions().read(0, whole), tuned.predictions().read(0, whole))
    other.close()


def test_a_file_that_is_no_model_is_refused(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="weights file"):
        session.versions.take_file(path)
    assert len(session.versions) == 1


@pytest.mark.parametrize("harm", ["missing", "cut off"])
def test_damaged_weights_fall_back_to_what_they_were_trained_from(tuned: Session, harm: str) -> None:
    tuned.close()
    path = tuned.folder / "models" / "round-1.safetensors"
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-100])
    again = Session(tuned.folder, tuned.slide)
    assert again.current == "tiny"
    assert "round-1" in again.versions  # what it was stays in the history
    assert any("round-1" in notice and "tiny is in use" in notice for notice in again.notices)
    with pytest.raises(UserError):
        again.use_model("round-1")
    assert again.current == "tiny"
    again.close()


def test_weights_that_the_session_file_does_not_know_are_found_again(tuned: Session) -> None:
    last(tuned.fine_tune(seconds=60, steps=2))  # killed before it was adopted
    tuned.close()
    again = Session(tuned.folder, tuned.slide)
    assert again.current == "round-1"
    found = again.versions["round-2"]
    assert found.parent == "round-1"
    assert found.steps == 2
    again.close()


def test_the_name_of_a_deleted_version_is_not_given_again(tuned: Session) -> None:
    from napari_genselfdiff.verbs.auditing import check_session

    tuned.annotations.stroke(0, 5, 5, encode(np.ones((9, 9), int)), np.ones((9, 9), bool))  # names round-1
    tuned.use_model("tiny")
    tuned.delete_version("round-1")
    tuned.close()
    again = Session(tuned.folder, tuned.slide, compute=tuned.compute)
    outcome = last(again.fine_tune(seconds=60, steps=2))
    assert outcome.version.name == "round-2"
    again.adopt(outcome)
    again.versions.rename("tiny", "round-3")  # nor is what the user calls another one
    assert again.versions.new_name() == "round-4"
    again.close()
    assert check_session(again.folder).problems == ()


def test_a_name_that_is_written_somewhere_is_not_given_again(tuned: Session) -> None:
    """As in sessions of a time when deleted names were not kept."""
    tuned.annotations.stroke(0, 5, 5, encode(np.ones((9, 9), int)), np.ones((9, 9), bool))
    folder, journal = tuned.active.folder, tuned.annotations.folder / "journal.ndjson"
    tuned.close()
    path = tuned.folder / "session.json"

    def name_after(**versions: str | None) -> str:
        """What the next version is called where these, each with its parent, are all."""
        values = json.loads(path.read_text())
        values |= {"current": None, "previous": None}
        values["versions"] = [
            {"name": name, "path": f"models/{name}.safetensors", "parent": parent}
            for name, parent in versions.items()
        ]
        path.write_text(json.dumps(values))
        again = Session(tuned.folder, compute=tuned.compute)
        again.close()
        return again.versions.new_name()

    (tuned.folder / "models" / "round-1.safetensors").unlink()
    assert name_after() == "round-2"  # round-1 is in the journal
    journal.unlink()
    assert name_after() == "round-1"
    assert name_after(other="round-1") == "round-2"
    (folder / "predictions" / "round-1-1.0000.zarr").mkdir(parents=True)
    assert name_after() == "round-2"


def test_versions_that_come_of_one_another_in_a_circle_end(tuned: Session) -> None:
    tuned._state.versions = [replace(tuned.versions["round-1"], parent="a"), Version("a", "", "round-1")]
    assert not tuned.grown


def test_a_version_that_segments_is_not_deleted(tuned: Session) -> None:
    events = tuned.segment(Region(0, 0, 300, 400))
    next(events)
    tuned.use_model("tiny")
    with pytest.raises(UserError, match="segments a slide just now"):
        tuned.delete_version("round-1")
    assert (tuned.folder / "models" / "round-1.safetensors").exists()
    last(events)
    tuned.delete_version("round-1")
    assert not tuned.active.has_predictions("round-1")


def test_a_version_whose_classes_are_named_anew_leaves_nothing_behind(tuned: Session) -> None:
    tuned.change_classes(["cell"])
    first = tuned.current
    assert first is not None
    events = tuned.segment(Region(0, 0, 300, 400))
    next(events)
    tuned.change_classes(["cells"])
    assert first in tuned.versions, "it segments"
    last(events)
    tuned.use_model(first)
    tuned.delete_version("classes-2")
    tuned.change_classes(["Cells"])
    assert tuned.current == "classes-3"
    assert first not in tuned.versions
    assert not tuned.active.has_predictions(first)


def test_an_export_replaces_nothing_that_it_was_not_told_to(session: Session, tmp_path: Path) -> None:
    own = tmp_path / "case12.json"
    own.write_text("mine")
    with pytest.raises(UserError, match=r"case12\.json"):
        session.versions.export("tiny", tmp_path / "case12")
    assert own.read_text() == "mine"
    assert not (tmp_path / "case12.safetensors").exists()
    session.versions.export("tiny", tmp_path / "case12", overwrite=True)
    assert "tiny" in own.read_text()


def test_copies_that_the_session_file_does_not_know_are_found_by_their_own_names(
    tuned: Session, tmp_path: Path
) -> None:
    sent = tuned.versions.export("round-1", tmp_path / "sent")
    tuned.save()
    tuned.versions.branch("round-1")
    tuned.versions.take_file(sent)
    written = (tuned.folder / "session.json").read_text()
    tuned.close()
    (tuned.folder / "session.json").write_text(written)  # killed before it was written again
    again = Session(tuned.folder, tuned.slide)
    found = {version.name: (version.kind, version.parent) for version in again.versions}
    assert found == {
        "tiny": ("library", None),
        "round-1": ("round", "tiny"),
        "branch-1": ("branch", "round-1"),
        "sent": ("imported", None),
    }
    again.delete_version("branch-1")
    assert again.versions.path("round-1").exists()
    again.close()


def test_an_import_replaces_no_file_of_the_session(tuned: Session, tmp_path: Path) -> None:
    adapted = tuned.folder / "models" / "pretext-1.safetensors"
    adapted.write_text("an adapted pretext")
    taken = tuned.versions.take_file(tuned.versions.export("round-1", tmp_path / "pretext-1"))
    assert taken.name == "pretext-1-1"
    assert adapted.read_text() == "an adapted pretext"


def test_another_file_of_a_known_name_is_another_model(session: Session, tmp_path: Path) -> None:
    spec = session.segmenter().spec
    other = tmp_path / "mine" / "tiny.safetensors"
    other.parent.mkdir()
    save_segmenter(build_segmenter(spec, start=None, seed=4), other)
    session.use_model(str(other))
    assert session.current == "tiny-1"
    assert session.versions.path("tiny-1") == other
    session.use_model("tiny")
    session.use_model(str(session.versions.path("tiny")))
    assert session.current == "tiny"


def test_a_model_of_the_library_is_found_where_the_library_is_now(
    session: Session, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_genselfdiff.verbs.auditing import check_session

    session.annotations.stroke(0, 5, 5, encode(np.ones((9, 9), int)), np.ones((9, 9), bool))
    session.close()
    elsewhere = home.rename(home.with_name("elsewhere"))
    monkeypatch.setenv("GENSELFDIFF_HOME", str(elsewhere))
    again = Session(session.folder, session.slide)
    assert again.current == "tiny"
    assert again.notices == []
    assert again.segmenter().spec.classes == ("background", "nucleus")
    again.close()
    assert check_session(session.folder).problems == ()

    path = elsewhere / "models" / "tiny.safetensors"
    spec = again.segmenter().spec
    save_segmenter(build_segmenter(spec, start=None, seed=4), path)
    other = Session(session.folder, session.slide)
    assert other.current == "tiny"
    assert any("another file" in notice for notice in other.notices)
    other.close()


def test_what_a_model_said_is_found_whatever_its_file_is_called(session: Session, home: Path) -> None:
    odd = (home / "models" / "tiny.safetensors").rename(home / "models" / "best [2].safetensors")
    session.use_model(str(odd))
    last(session.segment(Region(0, 0, 300, 400)))
    assert session.active.has_predictions("best [2]")


def test_beside_a_stroke_the_first_version_teaches_that_was_trained_on_it(tuned: Session) -> None:
    stroke = encode(np.ones((4, 4), np.uint8)), np.ones((4, 4), bool)
    versions = tuned.versions
    tuned.annotations.stroke(0, 100, 100, *stroke)
    first, second = (tag for _, tag, _ in tuned.annotations.looks())
    assert versions.heir(first, "round-1") is versions.segmenter("round-1")
    assert versions.heir(second, "round-1") is versions.segmenter("round-1"), "nothing came of it yet"
    assert versions.heir("", "round-1") is None
    outcome = last(tuned.fine_tune(seconds=60, steps=2))
    tuned.adopt(Round(outcome.version, True, ""))
    assert versions.heir(first, "round-2") is versions.segmenter("round-1")
    assert versions.heir(second, "round-2") is versions.segmenter("round-2")
    tuned.use_model(versions.branch("round-2", "same").name)
    assert versions.heir(second, tuned.current) is versions.segmenter("round-2"), "a copy was not trained"

    assert versions.heir(second, "tiny") is None, "what is in use did not come of it"
    assert versions.heir(first, "tiny") is versions.segmenter("tiny")
    tuned.delete_version("round-1")
    assert versions.heir(second, "round-2") is versions.segmenter("round-2"), "its own model is not needed"
    assert versions.heir(first, "round-2") is None, "nobody knows any more what came of it"
    versions.path("round-2").unlink()
    again = Session(tuned.folder, tuned.slide)
    assert again.versions.heir(second, "round-2") is None, "its weights are lost"
    again.close()


def test_a_round_knows_which_models_teach_beside_what_was_drawn(
    tuned: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def caught(sources: Any, *_: Any, **__: Any) -> Iterator[Event]:
        given.extend(sources)
        yield Finished(None, "")

    monkeypatch.setattr("napari_genselfdiff.finetuning.rounds.train_round", caught)
    last(tuned.fine_tune())
    ((_, tag, _),) = tuned.annotations.looks()
    assert given[0].models(tag) is tuned.versions.segmenter("round-1")


def test_small_changes_that_nobody_can_judge_yet_do_not_add_up(
    session: Session, tissue: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each begins again at the model of which more is known."""
    monkeypatch.setattr("napari_genselfdiff.finetuning.gate.KEPT_EARLY", 0.0)
    for number in (1, 2):
        box = Region(10, 100 * number, 80, 80)
        part = tissue[box.y : box.bottom, box.x : box.right, 0] < 150
        session.annotations.accept(0, box, encode(part.astype(np.uint8)))
        outcome = last(session.fine_tune(seconds=60, steps=2))
        assert outcome.accepted
        assert "Too early to tell" in outcome.message
        session.adopt(outcome)
        assert session.current == f"round-{number}"
        assert session.model is not None
        assert session.model.parent == "tiny"
    versions = session.versions
    assert versions.proven("round-2") == "tiny"
    first, second = (tag for _, tag, _ in session.annotations.looks())
    assert versions.heir(first, "round-2") is versions.segmenter("round-1")
    assert versions.heir(second, "round-2") is versions.segmenter("round-2")


def test_what_the_user_chose_is_built_on(tuned: Session) -> None:
    """A round that the gate did not take over, or a branch, is a choice."""
    first = tuned.versions["round-1"]
    assert EARLY not in first.settings
    assert tuned.versions.proven("round-1") == "round-1"
    early = replace(first, name="round-2", parent="round-1", settings=first.settings | {EARLY: True})
    tuned.versions.add(early)
    assert tuned.versions.proven("round-2") == "round-1"
    branch = tuned.versions.branch("round-2", "other way")
    assert tuned.versions.proven(branch.name) == branch.name
    tuned.versions.exchanged.append("round-1")
    assert tuned.versions.proven("round-2") == "round-2"
