"""A project of several slides, a task without a model, and its versions, in a real window."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QFileDialog
from tests.widgets.conftest import TINY, paint

from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models.versions import Doubt
from napari_genselfdiff.segmentation.network import SegmenterSpec, build_segmenter, save_segmenter
from napari_genselfdiff.widgets.demo import settle
from napari_genselfdiff.widgets.gestures import SPLIT
from napari_genselfdiff.widgets.versions import REALLY
from napari_genselfdiff.widgets.view import show_region

pytestmark = pytest.mark.gui

Wait = Callable[..., None]


def rows(tree: Any) -> list[list[str]]:
    """Texts of a list."""
    return [
        [tree.topLevelItem(i).text(column) for column in range(tree.columnCount())]
        for i in range(tree.topLevelItemCount())
    ]


def test_slides_of_a_project_are_a_list_and_each_keeps_its_strokes(project: Any, wait_for: Wait) -> None:
    section = project.project_section
    assert [row[0] for row in rows(section.list)] == ["slide-0.png", "slide-1.png"]
    project.correct_here()
    paint(project, 1, 0, wait_for)
    first, second = section.list.topLevelItem(0), section.list.topLevelItem(1)
    assert second.font(0).bold()
    section.list.itemActivated.emit(first, 0)
    assert project.session.slide.name == "slide-0.png"
    assert project.session.annotations.position == 0
    shown = [layer.name for layer in project.viewer.layers if layer.visible and layer.name.endswith(".png")]
    assert shown == ["slide-0"] or shown == ["slide-0.png"]
    assert rows(section.list)[1][1] == "1 changes"
    assert project.fine_tune_section.button.isEnabled()  # the other slide is corrected


def test_another_slide_is_seen_as_a_whole_and_one_that_was_left_where_it_was_left(
    dock: Any, files: list[Path], tmp_path: Path, tissue: Any
) -> None:
    Image.fromarray(np.tile(tissue, (4, 4, 1))).save(tmp_path / "large.png")
    dock.open_slide(tmp_path / "large.png")
    dock.session.set_mpp(0.5)
    show_region(dock.viewer, dock.layers.image, Region(2000, 2500, 300, 300))
    left = dock.layers.visible_region()
    dock.open_slide(files[0])
    assert dock.layers.visible_region() == Region(0, 0, 600, 800)
    dock.open_slide(tmp_path / "large.png")
    assert dock.layers.visible_region() == left


def test_a_slide_that_is_gone_is_told_and_the_project_stays(project: Any, files: list[Path]) -> None:
    folder = project.session.folder
    project.viewer.layers.clear()
    settle()
    assert project.session is None
    files[0].unlink()  # the one that was looked at last
    project.opening.open_project(folder)
    assert project.session.slide.name == "slide-1.png"
    assert rows(project.project_section.list)[0][1] == "file is not there"
    assert not project.opening.look_at(next(iter(project.session.slides)).fingerprint)
    assert "slide-0.png" in project.status.text.text()
    assert project.session.slide.name == "slide-1.png"

    gone, here = (slide.fingerprint for slide in project.session.slides)
    left_out = project.fine_tune_section.left_out
    left_out.show_doubts([Doubt(gone, Region(0, 0, 99, 99)), Doubt(here, Region(0, 0, 99, 99))])
    left_out.look.click()
    assert "slide-0.png" in project.status.text.text(), "it is not said that one looks at it"
    left_out.look.click()
    assert project.status.text.text().startswith("Left out")


def test_without_the_layer_of_one_slide_the_other_is_looked_at(project: Any, wait_for: Wait) -> None:
    project.correct_here()
    paint(project, 1, 0, wait_for)
    project.viewer.layers.remove(project.layers.image)
    settle()
    assert project.session.slide.name == "slide-0.png"
    assert project.opening.chooser.value is project.layers.image
    assert [slide.name for slide in project.session.slides.corrected] == ["slide-1.png"]
    project.correct_here()
    paint(project, 1, 0, wait_for)
    assert project.session.annotations.position == 1

    project.viewer.layers.select_all()
    project.viewer.layers.remove_selected()
    settle()
    assert project.session is None
    assert not project.viewer.layers


def test_a_slide_opens_right_after_the_layers_have_gone(dock: Any, files: list[Path]) -> None:
    for _ in range(2):
        dock.open_slide(files[0])
        assert dock.session is not None
        assert dock.layers.image in dock.viewer.layers
        dock.shut()
        dock.viewer.layers.clear()


def test_a_folder_without_a_project_is_not_opened(project: Any, tmp_path: Path) -> None:
    project.viewer.layers.clear()
    settle()
    (tmp_path / "empty").mkdir()
    project.opening.open_project(tmp_path / "empty")
    assert "no project" in project.status.text.text()
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_new_project_begins_with_the_slide_in_view(project: Any, tmp_path: Path) -> None:
    project.opening.open_project(tmp_path / "other")
    assert project.session.folder == tmp_path / "other"
    assert [slide.name for slide in project.session.slides] == ["slide-1.png"]


def test_a_task_starts_without_a_model(
    project: Any, small_pretext: None, wait_for: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_genselfdiff.widgets.learning.FINE_TUNE_SECONDS", 5.0)
    section = project.task_section
    section.classes.show_classes(["tumour", "stroma"])
    section.start.click()
    assert project.session.current is None
    assert project.session.classes == ("background", "tumour", "stroma")
    assert not project.segment_section.segment_button.isEnabled()
    assert project.editing is not None
    for label, top in ((1, 0), (2, 40), (0, 80)):
        paint(project, label, top, wait_for)
    project.fine_tune_section.button.click()
    wait_for(lambda: project.job is None)
    assert project.session.current == "round-1"
    assert project.session.segmenter().spec.classes == ("background", "tumour", "stroma")
    assert rows(project.versions_section.tree)[-1][0] == "round-1"
    wait_for(lambda: project.job is None)


def test_versions_are_branched_renamed_and_deleted(project: Any) -> None:
    section = project.versions_section
    section.tree.topLevelItem(0).setSelected(True)
    section.branch.click()
    assert project.session.current == "branch-1"
    section.tree.topLevelItem(1).setText(0, "my way")
    assert project.session.versions["branch-1"].shown == "my way"
    assert rows(section.tree)[1][0] == "my way"
    section.tree.clearSelection()
    section.tree.topLevelItem(1).setSelected(True)
    assert not section.delete.isEnabled()  # it is in use
    section.tree.clearSelection()
    section.tree.topLevelItem(0).setSelected(True)
    section.use.click()
    assert project.session.current == "nuclei"
    section.tree.clearSelection()
    section.tree.topLevelItem(1).setSelected(True)
    section.delete.click()
    assert section.delete.text() == REALLY
    assert "branch-1" in project.session.versions
    section.delete.click()
    assert "branch-1" not in project.session.versions


def test_question_mark_shows_the_keys_and_keys_work(project: Any, qtbot: Any, wait_for: Wait) -> None:
    window = project.window()
    window.activateWindow()
    wait_for(lambda: QApplication.activeWindow() is window)
    QTest.keyClick(project, "?")
    assert project.tabs.tabText(project.tabs.currentIndex()).startswith("Keys")
    QTest.keyClick(project, "?")
    assert project.tabs.currentIndex() == 0
    QTest.keyClick(project, Qt.Key.Key_H)
    assert project.editing is not None
    QTest.keyClick(project, Qt.Key.Key_G)
    assert project.job is not None
    wait_for(lambda: project.job is None)


def test_an_answer_can_be_kept_while_there_are_answers(project: Any) -> None:
    section = project.correct_section
    project.correct_here()
    assert not section.keep_button.isEnabled()
    section.instant.click()
    assert section.keep_button.isEnabled()
    section.instant.click()
    assert not section.keep_button.isEnabled()


def test_correcting_begins_with_the_brush_and_no_gesture_is_shown(project: Any) -> None:
    buttons = project.correct_section.gestures
    project.correct_here()
    buttons[SPLIT].click()
    assert buttons[SPLIT].isChecked()
    project.correct_here()
    assert project.layers.gestures.active is None
    assert not any(button.isChecked() for button in buttons.values())


def test_before_is_seen_while_correcting_and_gone_with_its_version(
    project: Any, library_home: Path, wait_for: Wait
) -> None:
    spec = SegmenterSpec(TINY, ("background", "nucleus"), mpp=0.5, instances=True)
    save_segmenter(build_segmenter(spec, start=None, seed=3), library_home / "models" / "other.safetensors")
    session, section = project.session, project.segment_section
    session.use_model("other")
    project.viewer.reset_view()
    project.segment_view()
    wait_for(lambda: project.job is None)
    said = session.labels(0, 0, 0, 600, 800)
    session.use_model("nuclei")  # which has segmented nothing
    project.correct_here()
    editing, overlay = project.editing, project.layers.overlay.layer

    def seen() -> np.ndarray[Any, Any]:
        project.layers.finish_edits()
        return np.asarray(overlay.data[0] if overlay.multiscale else overlay.data)

    assert said.any()
    section.compare.click()
    np.testing.assert_array_equal(seen(), said)
    assert not editing.layer.visible
    section.compare.click()
    assert not seen().any()
    assert (editing.layer.visible, editing.layer.mode) == (True, "paint")
    section.compare.click()
    project.accept_view()
    assert not section.compare.isChecked(), "what is not seen is not said to be right"
    project.layers.finish_edits()
    assert session.annotations.position == 0

    section.compare.click()
    versions = project.versions_section
    versions.tree.topLevelItem(1).setSelected(True)
    versions.delete.click()
    versions.delete.click()
    assert "other" not in session.versions
    assert not section.compare.isChecked()
    assert not section.compare.isEnabled()
    assert not seen().any()
    assert editing.layer.visible


def test_a_fine_tune_goes_on_while_another_slide_is_looked_at(
    project: Any, wait_for: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_genselfdiff.widgets.learning.FINE_TUNE_SECONDS", 5.0)
    project.correct_here()
    paint(project, 1, 0, wait_for)
    wait_for(project.fine_tune_section.button.isEnabled)
    project.fine_tune_section.button.click()
    assert project.job is not None
    project.project_section.list.itemActivated.emit(project.project_section.list.topLevelItem(0), 0)
    assert project.session.slide.name == "slide-0.png"
    assert project.job is not None
    wait_for(lambda: "round-1" in project.session.versions)
    wait_for(lambda: project.job is None)
    assert project.session.versions["round-1"].positions == {
        project.session.slides.corrected[0].fingerprint: 1
    }


def test_a_slide_unlike_what_the_model_has_seen_is_noticed_without_being_asked(
    dock: Any, wait_for: Wait
) -> None:
    grainy = np.random.default_rng(0).integers(60, 220, (600, 800, 1)).astype(np.uint8).repeat(3, axis=2)
    dock.viewer.add_image(grainy, rgb=True, name="grainy", scale=(0.5, 0.5), units=("um", "um"))
    dock.segment_view()
    wait_for(lambda: dock.job is None)
    wait_for(lambda: "denoising error" in dock.cohort_section.answer.text())
    assert "unlike what the model has seen" in dock.slide_section.notice.text()
    assert "adapt" in dock.slide_section.notice.text()
    assert dock.slide_section.notice.isVisibleTo(dock)


def test_an_export_replaces_only_what_the_dialog_asked_about(
    project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = project.versions_section
    section.tree.topLevelItem(0).setSelected(True)

    def export(name: str) -> None:
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / name), ""))
        section.export.click()

    model, card = tmp_path / "case12.safetensors", tmp_path / "case12.json"
    card.write_text("mine")
    for name in ("case12", "case12.safetensors"):
        export(name)
        assert "exists" in project.status.text.text()
        assert card.read_text() == "mine"
    card.unlink()
    model.write_text("mine")
    export("case12")
    assert model.read_text() == "mine"
    export("case12.safetensors")
    assert project.status.text.text().startswith("Saved")
    assert card.exists()
