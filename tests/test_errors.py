"""Errors that are shown to a person."""

from __future__ import annotations

import pickle
from pathlib import Path

from napari_genselfdiff.errors import MissingScaleError, UserError


def test_one_line_says_what_which_and_what_to_do() -> None:
    error = UserError("the file is damaged", Path("folder") / "a.svs", "copy it anew")
    assert str(error) == f"the file is damaged, {Path('folder') / 'a.svs'}, copy it anew"
    assert (error.what, error.todo) == ("the file is damaged", "copy it anew")


def test_parts_can_be_missing() -> None:
    assert str(UserError("nothing is selected")) == "nothing is selected"
    assert (
        str(UserError("nothing is selected", None, "select a layer")) == "nothing is selected, select a layer"
    )
    assert str(UserError("it is empty", "layer 1")) == "it is empty, layer 1"


def test_a_missing_resolution_names_the_option_that_gives_it() -> None:
    error = MissingScaleError("a.png")
    assert isinstance(error, UserError)
    assert "a.png" in str(error)
    assert "--mpp" in str(error)
    assert "\n" not in str(error)


def test_workers_do_not_swallow_it() -> None:
    """superqt's generator workers swallow every RuntimeError."""
    assert not issubclass(UserError, RuntimeError)


def test_an_error_of_another_process_reads_the_same() -> None:
    for error in (UserError("it is damaged", Path("a.svs"), "copy it"), MissingScaleError("a.png")):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert (again.what, again.which, again.todo) == (error.what, error.which, error.todo)
