"""The instant answer in the dock: while it is seen, what the model says is not, and it is what is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.widgets.conftest import paint
from tests.widgets.user import User

from napari_genselfdiff.annotations import classes_of, is_accepted
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.network import load_segmenter, save_segmenter
from napari_genselfdiff.widgets.demo import settle

pytestmark = pytest.mark.gui

Wait = Callable[..., None]


@pytest.fixture
def answering(project: Any, library_home: Path, wait_for: Wait) -> Any:
    """A dock whose model takes everything for a nucleus, and a stroke of background that was answered."""
    models = library_home / "models"
    model = load_segmenter(models / "nuclei.safetensors")
    with torch.no_grad():
        model.unet.output.bias[1] += 30
    save_segmenter(model, models / "all.safetensors")
    project.session.use_model("all")
    project.segment_view()
    wait_for(lambda: project.job is None)
    project.correct_here()
    assert (window_middle(project) == 1).all()
    project.correct_section.instant.click()
    paint(project, project.editing.background, 0, wait_for)
    wait_for(lambda: project.answering.shown)
    return project


def window_middle(dock: Any) -> Any:
    """What the editable window shows in the middle of the view."""
    part = dock.editing.part_in_view()
    y, x = (round(side) for side in part.centre)
    return dock.editing.layer.data[y - 60 : y + 60, x - 60 : x + 60]


def test_while_the_answer_is_seen_the_window_shows_what_was_drawn(answering: Any, wait_for: Wait) -> None:
    background = answering.editing.background
    wait_for(lambda: set(np.unique(window_middle(answering))) == {0, background})
    answering.correct_section.instant.click()
    assert not answering.answering.shown
    wait_for(lambda: set(np.unique(window_middle(answering))) == {0, 1})


def test_a_view_that_is_right_is_right_as_it_is_answered(answering: Any, wait_for: Wait) -> None:
    wait_for(lambda: answering.answering.instant.answer is not None)
    answer = answering.answering.instant.answer
    answering.accept_view()
    wait_for(lambda: "answer is kept" in answering.status.text.text())
    answering.layers.finish_edits()
    grid = answer.view.grid
    drawn = answering.session.annotations.read(0, Region(grid.y, grid.x, grid.height, grid.width))
    accepted = is_accepted(drawn)
    assert accepted.mean() > 0.9
    np.testing.assert_array_equal(classes_of(drawn)[accepted], answer.labels[accepted])


def test_what_is_hidden_behind_an_answer_is_not_accepted_as_background(
    answering: Any, wait_for: Wait
) -> None:
    answering.answering.instant._look_anew()  # as when the view moves: there is no answer for it yet
    answering.accept_view()
    assert "no answer to keep yet: it is being made" in answering.status.text.text()
    answering.layers.finish_edits()
    assert not is_accepted(answering.session.annotations.read(0, Region(0, 0, 600, 800))).any()


def test_with_the_eye_of_the_answer_closed_the_segmentation_is_seen_and_accepted(
    answering: Any, wait_for: Wait
) -> None:
    layer = answering.answering.instant.layer
    layer.visible = False
    assert not answering.answering.shown
    wait_for(lambda: 1 in window_middle(answering))
    paint(answering, answering.editing.background, 40, wait_for)  # an answer that is not seen hides nothing
    wait_for(lambda: answering.answering.instant.answer is not None)
    assert not answering.answering.shown
    answering.answering.keep()
    assert "The answer is hidden" in answering.status.text.text()
    layer.visible = True
    assert answering.answering.shown
    wait_for(lambda: 1 not in window_middle(answering))


def test_after_the_answer_was_deleted_the_segmentation_is_seen_until_the_next_stroke(
    answering: Any, wait_for: Wait
) -> None:
    instant = answering.answering.instant
    answering.viewer.layers.remove(instant.layer)
    assert not answering.answering.shown
    wait_for(lambda: 1 in window_middle(answering))
    paint(answering, answering.editing.background, 40, wait_for)
    wait_for(lambda: answering.answering.shown)
    assert instant.layer in answering.viewer.layers


def test_when_the_only_stroke_is_taken_back_the_segmentation_is_seen_again(
    answering: Any, wait_for: Wait
) -> None:
    answering.layers.undo()
    wait_for(lambda: answering.answering.instant.layer is None)
    assert not answering.answering.shown
    assert "paint over what the model has wrong" in answering.status.text.text()
    wait_for(lambda: (window_middle(answering) == 1).all())


def test_the_eraser_wipes_out_what_the_answer_shows(answering: Any, wait_for: Wait) -> None:
    layer, background = answering.editing.layer, answering.editing.background
    wait_for(lambda: (window_middle(answering) != 1).all())
    layer.mode = "erase"
    wait_for(lambda: layer.mode == "paint")
    assert layer.selected_label == background
    user = User(answering)
    view = answering.editing.view
    user.drag(*((view.y + view.height / 2 - 40, view.x + view.width / 2 + step) for step in (-20, 0, 20)))
    answering.layers.finish_edits()
    y, x = (round(side) for side in view.centre)
    assert answering.session.annotations.read(0, Region(y - 40, x, 1, 1)).all()
    answering.correct_section.instant.click()
    layer.mode = "erase"
    settle()
    assert layer.mode == "erase"


def test_when_the_middle_is_answered_that_is_what_is_kept_and_said(answering: Any, wait_for: Wait) -> None:
    wait_for(lambda: answering.answering.instant.answer is not None)
    instant = answering.answering.instant
    instant.answer = replace(instant.answer, view=replace(instant.answer.view, whole=False))
    answering.accept_view()
    wait_for(lambda: "in the middle of the view, and no more" in answering.status.text.text())
