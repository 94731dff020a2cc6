"""The dock in a real napari window, with real clicks."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_genselfdiff.annotations import classes_of, encode
from napari_genselfdiff.errors import OutOfMemoryError
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.widgets.corrections import WINDOW_NAME
from napari_genselfdiff.widgets.demo import settle
from napari_genselfdiff.widgets.overlay import OVERLAY_NAME
from napari_genselfdiff.widgets.tissue import OUTLINE_NAME

pytestmark = pytest.mark.gui

Wait = Callable[..., None]


def click(qtbot: Any, button: Any) -> None:
    """Click as a user does."""
    assert button.isEnabled()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


@pytest.fixture
def ready(dock: Any, tissue: np.ndarray[Any, Any]) -> Any:
    """A dock whose slide is an RGB layer of known resolution."""
    dock.viewer.add_image(tissue, rgb=True, name="tissue", scale=(0.5, 0.5), units=("um", "um"))
    return dock


def test_an_rgb_layer_is_a_slide(ready: Any) -> None:
    assert ready.session.slide.shape == (600, 800)
    assert ready.session.slide.mpp == pytest.approx(0.5)
    assert "800 x 600 px, 0.5 µm/px" in ready.slide_section.info.text()


def test_missing_resolution_is_asked_for_never_invented(
    dock: Any, tissue: np.ndarray[Any, Any], qtbot: Any, wait_for: Wait
) -> None:
    layer = dock.viewer.add_image(tissue, rgb=True, name="tissue")
    assert dock.session.slide.mpp is None
    assert dock.slide_section.ask_mpp.isVisibleTo(dock)
    click(qtbot, dock.segment_section.segment_button)
    assert dock.job is None
    assert "resolution" in dock.status.text.text()

    dock.slide_section.mpp.setValue(0.5)
    click(qtbot, dock.slide_section.mpp_button)
    assert not dock.slide_section.ask_mpp.isVisibleTo(dock)
    assert tuple(layer.scale) == (0.5, 0.5)
    click(qtbot, dock.segment_section.segment_button)
    wait_for(lambda: dock.job is None)
    assert "Segmented" in dock.status.text.text()


def test_segmenting_shows_an_overlay_of_what_the_model_said(ready: Any, qtbot: Any, wait_for: Wait) -> None:
    click(qtbot, ready.segment_section.segment_button)
    assert ready.status.cancel_button.isEnabled()
    assert ready.status.bar.isTextVisible()
    wait_for(lambda: ready.job is None)
    assert not ready.status.bar.isTextVisible(), "no 0% beside what is done"
    overlay = ready.viewer.layers[OVERLAY_NAME]
    shown = np.asarray(overlay.data[0] if overlay.multiscale else overlay.data)
    store = ready.session.predictions()
    predicted = store.read(0, Region(0, 0, 600, 800))
    seen = predicted > 0
    assert seen.mean() > 0.3
    np.testing.assert_array_equal(shown[seen], predicted[seen] - 1)
    assert not shown[~seen].any()


@pytest.fixture
def half_glass(dock: Any, tissue: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A dock with a slide of many cells whose right half is glass."""
    for module in ("inference", "store", "streaming"):
        monkeypatch.setattr(f"napari_genselfdiff.segmentation.{module}.CELL", 128)
    image = tissue.copy()
    image[:, 400:] = 242
    dock.viewer.add_image(image, rgb=True, name="tissue", scale=(0.5, 0.5), units=("um", "um"))
    return dock


def test_a_whole_slide_is_segmented_but_its_glass_and_a_pause_loses_nothing(
    half_glass: Any, qtbot: Any, wait_for: Wait
) -> None:
    def predicted() -> np.ndarray[Any, Any]:
        store = half_glass.session.predictions()
        return np.asarray(store.read(0, Region(0, 0, 600, 800)) > 0)

    section = half_glass.segment_section
    click(qtbot, section.slide_button)
    wait_for(lambda: predicted().any())
    half_glass.status.cancel_button.click()
    wait_for(lambda: half_glass.job is None)
    before = predicted()
    click(qtbot, section.slide_button)
    wait_for(lambda: half_glass.job is None)
    assert "Segmented" in half_glass.status.text.text()
    after = predicted()
    assert after[:, :400].all()
    assert not after[:, 520:].any()
    assert after[before].all()
    click(qtbot, section.slide_button)
    wait_for(lambda: half_glass.job is None)
    np.testing.assert_array_equal(predicted(), after)


def test_the_tissue_has_an_outline_that_can_be_adjusted_and_is_remembered(
    half_glass: Any, wait_for: Wait
) -> None:
    section, layers = half_glass.slide_section, half_glass.viewer.layers
    section.tissue.setChecked(True)
    wait_for(lambda: OUTLINE_NAME in layers)
    outline = layers[OUTLINE_NAME]
    found = outline.data > 0
    assert outline.contour == 1
    share = found.mean()
    assert 0.45 < share < 0.55
    # It lies on the slide: the right border of the tissue is in its middle, 200 micrometres from the left.
    last = np.flatnonzero(found.any(axis=0)).max()
    assert outline.data_to_world((0, last))[1] == pytest.approx(200, abs=12)
    section.sensitivity.setValue(100)
    wait_for(lambda: (outline.data > 0).mean() != share)
    assert half_glass.session.tissue.sensitivity == 1
    section.tissue.setChecked(False)
    assert OUTLINE_NAME not in layers


@pytest.fixture
def small_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of which a view holds many."""
    for module in ("store", "streaming", "pace"):
        monkeypatch.setattr(f"napari_genselfdiff.segmentation.{module}.CELL", 96)


def test_cancel_stops_and_keeps_what_is_done(
    small_cells: None, ready: Any, qtbot: Any, wait_for: Wait
) -> None:
    click(qtbot, ready.segment_section.segment_button)
    ready.status.cancel_button.click()
    wait_for(lambda: ready.job is None)
    assert "Stopped" in ready.status.text.text()
    assert ready.segment_section.segment_button.isEnabled()


def test_a_stroke_is_kept_and_segmenting_again_does_not_overwrite_it(
    ready: Any, qtbot: Any, wait_for: Wait
) -> None:
    click(qtbot, ready.segment_section.segment_button)
    wait_for(lambda: ready.job is None)
    click(qtbot, ready.correct_section.correct_button)
    window = ready.editing
    assert window.layer.name == WINDOW_NAME
    assert window.layer.editable
    assert "Correct a few places first" in ready.fine_tune_section.answer.text()
    place = (window.layer.data.shape[0] // 2, window.layer.data.shape[1] // 2)
    wanted = 1 - int(window.layer.data[place])
    window.layer.brush_size = 9
    window.layer.paint(place, wanted)
    wait_for(lambda: ready.session.annotations.position == 1)
    wait_for(lambda: "ready to be learned from" in ready.fine_tune_section.answer.text())

    click(qtbot, ready.segment_section.segment_button)
    wait_for(lambda: ready.job is None)
    assert window.layer.data[place] == wanted
    y, x = window.place.y + place[0], window.place.x + place[1]
    layer = window.place.layer
    assert ready.session.labels(layer, y, x, 1, 1)[0, 0] == wanted
    drawn = ready.session.annotations.read(layer, Region(y, x, 1, 1))
    assert classes_of(drawn)[0, 0] == wanted


def test_the_window_lies_on_the_slide_to_the_pixel(ready: Any) -> None:
    ready.viewer.scene.camera.zoom = 4.0
    ready.correct_here()
    window = ready.editing
    image = ready.viewer.layers["tissue"]
    first = image.world_to_data(window.layer.data_to_world((0, 0)))
    width = 2**window.place.layer
    np.testing.assert_allclose(
        first, np.array([window.place.y, window.place.x]) * width + (width - 1) / 2, atol=1e-6
    )


def test_undo_reaches_the_stroke(ready: Any, wait_for: Wait) -> None:
    ready.correct_here()
    window = ready.editing
    before = window.layer.data.copy()
    window.layer.paint((30, 30), 1)
    assert (window.layer.data != before).any()
    wait_for(ready.correct_section.undo_button.isEnabled)
    ready.correct_section.undo_button.click()
    wait_for(lambda: (window.layer.data == before).all())
    wait_for(ready.correct_section.redo_button.isEnabled)
    ready.correct_section.redo_button.click()
    wait_for(lambda: window.layer.data[30, 30] == 1)


def test_number_keys_choose_the_class(ready: Any) -> None:
    ready.correct_here()
    layer = ready.editing.layer
    keys = {str(binding): function for binding, function in layer.keymap.items()}
    keys["0"](layer)
    assert layer.selected_label == 0
    keys["1"](layer)
    assert layer.selected_label == 1


def test_fine_tune_answers_in_plain_words_and_adds_a_version(
    ready: Any, qtbot: Any, wait_for: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_genselfdiff.widgets.learning.FINE_TUNE_SECONDS", 4.0)
    click(qtbot, ready.segment_section.segment_button)
    wait_for(lambda: ready.job is None)
    ready.correct_here()
    window = ready.editing
    dark = ready.session.slide.read_scaled(
        window.place.y, window.place.x, *window.layer.data.shape, scale=2**window.place.layer
    )
    nuclei = dark[..., 0] < 150
    window.layer.data_setitem(np.nonzero(nuclei), 1)
    window.layer.data_setitem(np.nonzero(~nuclei), 0)
    window.accept()
    wait_for(ready.fine_tune_section.button.isEnabled)
    click(qtbot, ready.fine_tune_section.button)
    wait_for(lambda: ready.job is None)
    assert ready.fine_tune_section.curve.points
    answer = ready.fine_tune_section.answer.text()
    assert "better" in answer.lower() or "Too early" in answer
    assert [version.name for version in ready.session.versions] == ["nuclei", "round-1"]
    if ready.session.current == "round-1":
        assert ready.segment_section.previous_button.isEnabled()
        click(qtbot, ready.segment_section.previous_button)
        assert ready.session.current == "nuclei"


def test_what_was_left_out_can_be_seen_and_insisted_on(
    ready: Any, qtbot: Any, wait_for: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_genselfdiff.widgets.learning.FINE_TUNE_SECONDS", 4.0)
    section, session = ready.fine_tune_section, ready.session
    # The tiny model knows nothing, and is no witness.
    monkeypatch.setattr("napari_genselfdiff.finetuning.doubt.RELIABLE", -1)
    session.use_model("nuclei")
    places = [Region(y, x, 100, 100) for y in (20, 220, 420) for x in (20, 220, 420)]
    odd = places[4]
    for region in places:
        dark = session.slide.read(region.y, region.x, 100, 100)[..., 0] < 150
        session.annotations.accept(0, region, encode((dark != (region == odd)).astype(np.uint8)))
    ready.opening.follow()  # which the window does when it is drawn in it
    assert not section.left_out.isVisibleTo(ready)
    section.left_out.look.click()  # as its key does, while there is nothing to see
    click(qtbot, section.button)
    wait_for(lambda: ready.job is None)
    assert "1 corrected place on tissue was left out" in section.answer.text()
    assert section.left_out.isVisibleTo(ready)
    assert not section.left_out.right.isEnabled()

    click(qtbot, section.left_out.look)
    region = ready.layers.visible_region()
    assert region is not None
    assert region.intersection(odd) == odd
    assert ready.editing is not None, "it can be corrected at once"
    click(qtbot, section.left_out.right)
    assert "counts from the next" in ready.status.text.text()
    assert not section.left_out.isVisibleTo(ready)
    click(qtbot, section.button)
    wait_for(lambda: ready.job is None)
    assert "left out" not in section.answer.text()
    assert not section.left_out.isVisibleTo(ready)


def test_running_out_of_memory_is_said(
    ready: Any, qtbot: Any, wait_for: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: Any, **_options: Any) -> Any:
        raise OutOfMemoryError("the device ran out of memory: choose the CPU")
        yield

    monkeypatch.setattr("napari_genselfdiff.segmentation.streaming.predict_region", fail)
    click(qtbot, ready.segment_section.segment_button)
    wait_for(lambda: ready.job is None)
    assert "ran out of memory" in ready.status.text.text()
    assert ready.segment_section.segment_button.isEnabled()


def test_a_runtime_error_of_torch_is_shown_and_does_not_hang(
    ready: Any, qtbot: Any, wait_for: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: Any, **_options: Any) -> Any:
        raise RuntimeError("shapes do not match")
        yield

    monkeypatch.setattr("napari_genselfdiff.segmentation.streaming.predict_region", fail)
    click(qtbot, ready.segment_section.segment_button)
    wait_for(lambda: ready.job is None)
    assert "shapes do not match" in ready.status.text.text()


def test_a_damaged_file_is_named(dock: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.svs"
    broken.write_bytes(b"not a slide")
    dock.open_slide(broken)
    assert "broken.svs" in dock.status.text.text()


def test_a_second_window_on_the_session_is_read_only(
    ready: Any, make_napari_viewer: Callable[..., Any], tmp_path: Path, tissue: np.ndarray[Any, Any]
) -> None:
    from napari_genselfdiff.widgets.dock import GenSelfDiffDock

    viewer = make_napari_viewer()
    viewer.add_image(tissue, rgb=True, name="tissue", scale=(0.5, 0.5), units=("um", "um"))
    second = GenSelfDiffDock(viewer, tmp_path / "session")
    try:
        assert "another window" in second.status.text.text()
        second.correct_here()
        assert not second.editing.layer.editable
    finally:
        second.shut()
        second.close()


def test_removing_the_layer_closes_the_session(ready: Any) -> None:
    ready.viewer.layers.remove("tissue")
    settle()
    assert ready.session is None
    assert OVERLAY_NAME not in ready.viewer.layers


def test_a_session_that_cannot_be_kept_as_it_is_closed_is_told_and_gone(
    ready: Any, tmp_path: Path, refusing: Callable[[Path, int], AbstractContextManager[None]]
) -> None:
    with refusing(tmp_path / "session", errno.ENOSPC):
        ready.viewer.layers.remove("tissue")
        settle()
    assert ready.session is None
    assert ready.versions_section.session is None
    assert "free some space" in ready.status.text.text()


def test_what_cannot_be_kept_is_told_and_holds_in_this_window(
    ready: Any, tmp_path: Path, refusing: Callable[[Path, int], AbstractContextManager[None]]
) -> None:
    with refusing(tmp_path / "session", errno.ENOSPC):
        ready.slide_section.mpp_given.emit(0.25)
        assert "free some space" in ready.status.text.text()
        assert tuple(ready.layers.image.scale) == (0.25, 0.25)
        ready.status.show_idle("")
        ready.slide_section.sensitivity_chosen.emit(0.7)
        assert "free some space" in ready.status.text.text()
    assert ready.session.slide.mpp == 0.25


def test_the_cross_of_the_dock_closes_the_session_and_the_dock_follows_no_more(
    ready: Any, tmp_path: Path, tissue: np.ndarray[Any, Any]
) -> None:
    from napari_genselfdiff.widgets.dock import GenSelfDiffDock

    viewer = ready.viewer
    ready.correct_here()
    ready.parent().setFloating(True)
    settle()
    assert ready.session is not None, "a dock that floats stays"
    ready.parent().titleBarWidget().close_button.click()
    assert ready.session is None
    assert [layer.name for layer in viewer.layers] == ["tissue"]

    again = GenSelfDiffDock(viewer, tmp_path / "session")
    viewer.window.add_dock_widget(again, name="GenSelfDiff")
    assert not again.session.read_only
    again.close()
    viewer.layers.remove("tissue")
    viewer.add_image(tissue, rgb=True, name="other", scale=(0.5, 0.5), units=("um", "um"))
    settle()
    assert (ready.session, again.session) == (None, None)
    assert [layer.name for layer in viewer.layers] == ["other"]
