"""Classes of a project, of its models and of a new task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from tests.widgets.conftest import TINY, paint

from napari_genselfdiff.annotations import classes_of
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.network import SegmenterSpec, build_segmenter, save_segmenter

pytestmark = pytest.mark.gui

Wait = Callable[..., None]


def test_a_change_of_colour_is_seen_at_once_and_kept(project: Any) -> None:
    project.correct_here()
    project.correct_section.classes.set_color(1, "#0000FF")
    np.testing.assert_allclose(project.editing.layer.get_color(1)[:3], (0, 0, 1), atol=0.01)
    assert project.session.colours == ["#0000FF"]


def test_classes_of_another_model_and_of_a_new_task_are_seen(project: Any, library_home: Path) -> None:
    spec = SegmenterSpec(TINY, ("background", "a", "b", "c"), mpp=0.5)
    save_segmenter(build_segmenter(spec, start=None, seed=2), library_home / "models" / "three.safetensors")
    project.correct_here()

    def seen() -> list[bool]:
        shown = project.layers.overlay.layer, project.editing.layer
        return [layer.get_color(label)[3] > 0 for layer in shown for label in (1, 2, 3)]

    project.session.use_model("three")
    assert all(seen())
    project.session.use_model("nuclei")
    assert not all(seen())
    project.task_section.classes.show_classes(["tumour", "stroma", "fat"])
    project.task_section.start.click()
    assert all(seen())


def test_a_class_is_added_to_the_model_in_use(project: Any, wait_for: Wait) -> None:
    project.correct_here()
    before, classes = project.session.classes, project.correct_section.classes
    model = project.session.current
    QTest.mouseClick(classes.add_button, Qt.MouseButton.LeftButton)
    assert project.session.classes == (*before, "class 1")
    wait_for(lambda: project.job is None)  # the view is segmented again
    classes.tree.topLevelItem(2).setText(1, "stroma")
    assert project.session.classes == (*before, "stroma")
    made = [version for version in project.session.versions if version.kind == "classes"]
    assert [(version.name, version.parent) for version in made] == [(project.session.current, model)]
    wait_for(lambda: project.job is None)
    assert classes.current == 2
    paint(project, 2, 0, wait_for)
    assert (classes_of(project.session.annotations.read(0, Region(0, 0, 600, 800))) == 2).any()
    QTest.mouseClick(classes.remove_button, Qt.MouseButton.LeftButton)
    assert "stays" in project.status.text.text()
    assert len(classes.classes) == 2
    project.session.use_model(model)
    assert [name for name, _ in classes.classes] == list(before[1:])


def test_while_work_runs_a_view_is_marked_and_no_class_is_added_and_both_is_said(
    project: Any, wait_for: Wait
) -> None:
    project.correct_here()
    notification_manager.records.clear()
    project.segment_view()
    assert project.job is not None
    project.accept_view()
    wait_for(lambda: any("counts as right" in str(notice.message) for notice in notification_manager.records))
    QTest.mouseClick(project.correct_section.classes.add_button, Qt.MouseButton.LeftButton)
    said = [str(notice.message) for notice in notification_manager.records]
    assert any("when what is running has ended" in message for message in said)
    assert project.status.cancel_button.isEnabled(), "the status line goes on showing what runs"
    assert project.session.classes == ("background", "nucleus")
    assert project.editing.layer.selected_label == 1
    wait_for(lambda: project.job is None)


def test_two_classes_of_one_name_are_told_and_no_task_begins(project: Any) -> None:
    project.task_section.classes.show_classes(["Gland", "gland"])
    project.task_section.start.click()
    assert "same name" in project.status.text.text()
    assert project.session.task is None
