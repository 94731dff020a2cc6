"""The editable window follows the view: real camera moves and mouse events, strokes that are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication
from tests.widgets.user import User

from napari_genselfdiff.annotations import classes_of, is_accepted
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.labels import read_labels
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.widgets.demo import settle, wait_for
from napari_genselfdiff.widgets.view import show_region

pytestmark = pytest.mark.gui

SHAPE = (20_000, 24_000)
HERE = (6_000.0, 9_000.0)


@pytest.fixture
def large(dock: Any) -> Any:
    """A dock with a large slide, of which a place is editable at full resolution."""
    pink = np.array([235, 190, 215], np.uint8)
    levels = [np.broadcast_to(pink, (SHAPE[0] // step, SHAPE[1] // step, 3)) for step in (1, 4, 16, 64)]
    dock.viewer.add_image(
        levels, rgb=True, multiscale=True, name="large", scale=(0.5, 0.5), units=("um", "um")
    )
    dock.window().resize(1200, 800)
    settle()
    User(dock).look(HERE, 1.0)
    dock.correct_here()
    settle()
    return dock


@pytest.fixture
def user(large: Any) -> User:
    """Who draws on it."""
    return User(large)


def labels(dock: Any, y: float, x: float, layer: int = 0) -> int:
    """Stored label of a level-0 pixel."""
    return int(dock.session.labels(layer, int(y) >> layer, int(x) >> layer, 1, 1)[0, 0])


def stored(dock: Any, records: int) -> None:
    """Wait until the journal has so many records, and the pixels of the last are in the store, too."""
    wait_for(lambda: dock.session.annotations.position == records)
    dock.layers.finish_edits()


def shown(dock: Any, y: float, x: float) -> int:
    """The label that is on the screen at a level-0 pixel: the editable window's, else the overlay's."""
    world = dock.layers.image.data_to_world((y, x))
    for layer in (dock.editing.layer, dock.layers.overlay.layer):
        value = layer.get_value(world, world=True)
        value = value[1] if isinstance(value, tuple) else value
        if value:
            return int(value)
    return 0


def test_small_moves_leave_the_window_and_larger_ones_take_it_along(large: Any, user: User) -> None:
    window = large.editing
    window.layer.mode, window.layer.selected_label, window.layer.brush_size = "erase", 0, 33
    layer, first = window.layer, window.place
    user.look((HERE[0] + 60, HERE[1] - 60), 1.0)
    wait_for(lambda: not window._still.isActive())
    large.layers.finish_edits()
    assert window.place is first

    user.look((HERE[0] + 5_000, HERE[1] + 100), 1.0)
    wait_for(lambda: window.place is not first)
    assert window.layer is layer
    assert window.place.layer == 0
    assert window.region.intersection(window.view) == window.view
    assert (layer.mode, layer.selected_label, layer.brush_size) == ("erase", 0, 33)
    image = large.layers.image
    corner = image.world_to_data(layer.data_to_world((0, 0)))
    np.testing.assert_allclose(corner, (window.place.y, window.place.x), atol=1e-6)


def test_the_magnification_follows_and_the_brush_keeps_its_size_on_the_screen(large: Any, user: User) -> None:
    window = large.editing
    window.layer.brush_size = 24
    for zoom, layer, brush in ((1 / 16, 4, 24), (1 / 14, 4, 21), (4.0, 0, 6), (1 / 2, 1, 24)):
        user.look(HERE, zoom)
        wait_for(lambda layer=layer: window.place.layer == layer and not window._still.isActive())
        large.layers.finish_edits()
        assert window.layer.brush_size == brush
        assert window.layer.mode == "paint"


def test_a_nucleus_at_full_zoom_and_a_tumour_on_the_overview_are_the_same_gesture(
    large: Any, user: User
) -> None:
    large.editing.layer.brush_size = 20
    user.drag((HERE[0], HERE[1] - 40), (HERE[0], HERE[1] + 40))
    stored(large, 1)
    user.look((SHAPE[0] / 2, SHAPE[1] / 2), 1 / 40)
    # At once, before the window has followed.
    assert shown(large, *HERE) == 1
    wait_for(lambda: large.editing.place.layer == 5)
    assert shown(large, *HERE) == 1

    large.editing.layer.mode = "polygon"
    for corner in ((2_000, 12_000), (2_000, 20_000), (9_000, 20_000)):
        user.click(corner)
    user.double_click((9_000, 12_000))
    stored(large, 2)
    assert labels(large, 5_000, 16_000) == 1
    assert labels(large, 5_000, 11_000) == 0
    # Stored at its own level: nothing was drawn at finer ones but the stroke.
    keys = large.session.annotations.store.chunks.keys
    assert len(keys("own/0")) <= 2
    assert keys("own/5")

    # The later edit wins, pixel by pixel, at any magnification.
    user.look((5_000, 16_000), 1.0)
    wait_for(lambda: large.editing.place.layer == 0)
    large.editing.layer.mode = "erase"
    large.editing.layer.brush_size = 20
    user.drag((5_000, 15_950), (5_000, 16_050))
    stored(large, 3)
    assert [labels(large, 5_000, x) for x in (15_900, 16_000, 16_100)] == [1, 0, 1]


def test_a_stroke_is_never_cut_and_the_window_follows_it(large: Any, user: User) -> None:
    window, first = large.editing, large.editing.place
    window.layer.brush_size = 12
    user.press(HERE)
    user.move((HERE[0], HERE[1] + 50))
    # The wheel is turned while the button is held.
    user.look(HERE, 1 / 3)
    window._follow()  # the view has stood still
    large.layers.refresh()  # and predictions have come
    large.layers.edits.wait()
    assert window.place is first
    user.move((HERE[0], HERE[1] + 400))
    user.release((HERE[0], HERE[1] + 400))
    wait_for(lambda: window.place is not first)
    assert large.session.annotations.position == 1
    row = large.session.labels(0, int(HERE[0]), int(HERE[1]), 1, 400)
    assert row.all()
    assert shown(large, HERE[0], HERE[1] + 380) == 1


def test_a_stroke_that_begins_right_after_a_move_is_not_lost(large: Any, user: User) -> None:
    there = (15_000.0, 3_000.0)
    user.look(there, 1.0)
    user.drag(there, (there[0], there[1] + 60))
    stored(large, 1)
    assert large.session.labels(0, int(there[0]), int(there[1]), 1, 60).all()


def test_strokes_made_while_the_window_is_on_its_way_stay(large: Any, user: User) -> None:
    first = large.editing.place
    user.look((HERE[0] + 700, HERE[1]), 1.0)
    large.editing._follow()  # reading begins
    wait_for(lambda: large.editing.place is not first)
    first = large.editing.place
    user.look((HERE[0] + 1_400, HERE[1]), 1.0)
    large.editing._follow()
    user.drag((HERE[0] + 1_400, HERE[1]), (HERE[0] + 1_400, HERE[1] + 40))
    stored(large, 1)
    large.layers.finish_edits()
    assert shown(large, HERE[0] + 1_400, HERE[1] + 20) == 1


def test_a_polygon_goes_on_over_several_views_and_is_one_step(large: Any, user: User) -> None:
    window, first = large.editing, large.editing.place
    window.layer.mode = "polygon"
    y, x = HERE
    user.click((y - 100, x - 100))
    user.click((y - 100, x + 100))
    user.look((y + 1_500, x), 1.0)
    wait_for(lambda: window.place is not first)
    user.click((y + 1_600, x + 100))
    user.double_click((y + 1_600, x - 100))
    stored(large, 1)
    column = large.session.labels(0, int(y) - 150, int(x), 1_900, 1)[:, 0]
    np.testing.assert_allclose(np.flatnonzero(column)[[0, -1]], (50, 1_750), atol=4)
    assert column[60:1_740].all()


def test_fill_and_eraser_are_one_step_each_and_in_the_journal(large: Any, user: User) -> None:
    annotations, layer = large.session.annotations, large.editing.layer
    y, x = HERE
    layer.brush_size = 6
    user.drag((y - 50, x - 50), (y - 50, x + 50), (y + 50, x + 50), (y + 50, x - 50), (y - 50, x - 50))
    stored(large, 1)
    layer.mode = "fill"
    user.click((y, x))
    stored(large, 2)
    assert large.session.labels(0, int(y) - 45, int(x) - 45, 90, 90).all()
    assert not labels(large, y, x + 200)
    layer.mode = "erase"
    user.drag((y, x - 80), (y, x + 80))
    stored(large, 3)
    assert not large.session.labels(0, int(y), int(x) - 75, 1, 150).any()
    for expected in (1, 0):
        large.layers.undo()
        large.layers.finish_edits()
        assert labels(large, y, x) == expected
    assert annotations.verify().ok


def test_undo_reaches_strokes_of_other_windows_and_says_where(large: Any, user: User) -> None:
    annotations = large.session.annotations
    user.drag(HERE, (HERE[0], HERE[1] + 40))
    stored(large, 1)
    first = large.editing.place
    user.look((15_000, 3_000), 1.0)
    wait_for(lambda: large.editing.place is not first)
    keys = {str(binding): function for binding, function in large.editing.layer.keymap.items()}
    (undo,) = [function for name, function in keys.items() if name in ("Ctrl+Z", "Control-Z")]
    (redo,) = [function for name, function in keys.items() if "Shift" in name]
    undo(large.editing.layer)
    wait_for(lambda: annotations.can_redo)
    wait_for(lambda: "outside of the view" in large.status.text.text())
    assert "around x 9,0" in large.status.text.text()
    assert labels(large, *HERE) == 0
    redo(large.editing.layer)
    stored(large, 3)
    assert labels(large, *HERE) == 1

    user.look(HERE, 1.0)
    wait_for(lambda: shown(large, *HERE) == 1)
    undo(large.editing.layer)
    wait_for(lambda: shown(large, *HERE) == 0)


def test_the_overview_shows_edits_at_once_without_a_window(large: Any, user: User) -> None:
    user.look((SHAPE[0] / 2, SHAPE[1] / 2), 1 / 100)
    QApplication.processEvents()
    overlay = large.layers.overlay.layer
    user.look(HERE, 1.0)
    wait_for(lambda: not large.editing._still.isActive())
    codes = np.full((600, 600), 2, np.uint8)
    large.editing.layer.data[100:700, 100:700] = 1
    large.editing.commit()
    y, x = large.editing.place.y + 400, large.editing.place.x + 400
    large.layers.stop_editing()
    user.look((SHAPE[0] / 2, SHAPE[1] / 2), 1 / 100)
    QApplication.processEvents()
    level, value = overlay.get_value(large.layers.image.data_to_world((y, x)), world=True)
    assert level == len(overlay.data) - 1
    assert value == 1
    # Also what is changed while the overview is looked at.
    large.session.annotations.stroke(0, 2_000, 2_000, codes, codes > 0)
    large.layers.refresh()
    large.layers.finish_edits()
    assert overlay.get_value(large.layers.image.data_to_world((2_300, 2_300)), world=True)[1] == 1


def test_a_stroke_that_cannot_be_kept_is_said_and_not_shown(
    large: Any, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: Any) -> None:
        raise UserError("the annotations could not be written (no space left)", "edits", "free some space")

    monkeypatch.setattr(large.session.annotations, "stroke", full)
    user.drag(HERE, (HERE[0], HERE[1] + 40))
    assert shown(large, *HERE) == 1
    wait_for(lambda: shown(large, *HERE) == 0)
    assert "no space left" in large.status.text.text()


def test_the_brush_paints_only_what_there_is(large: Any, user: User) -> None:
    layer = large.editing.layer
    layer.selected_label = 40  # in napari's own controls
    assert layer.selected_label == 1
    layer.selected_label = 0
    layer.selected_label = 7
    assert layer.selected_label == 0
    large.session.change_classes(["nucleus", "stroma"])
    layer.selected_label = 2
    large.session.use_model("nuclei")
    assert (layer.selected_label, large.correct_section.classes.current) == (1, 1)


def test_strokes_are_stored_when_the_session_is_shut(large: Any, user: User) -> None:
    session = large.session
    user.drag(HERE, (HERE[0], HERE[1] + 40))
    large.shut()
    assert session.annotations.position == 1
    assert classes_of(session.annotations.read(0, Region(int(HERE[0]), int(HERE[1]), 1, 1)))[0, 0] == 1


def test_labels_of_the_view_are_saved_beside_what_is_done_unless_it_is_too_large(
    large: Any, user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, button = tmp_path / "labels.png", large.status.export_button
    monkeypatch.setattr(
        "napari_genselfdiff.widgets.export.QFileDialog.getSaveFileName", lambda *_args: (str(path), "")
    )
    user.look((SHAPE[0] / 2, SHAPE[1] / 2), 1 / 40)
    button.click()
    assert large.job is None
    assert "too large" in large.status.text.text()
    assert not path.exists()

    user.look(HERE, 1.0)
    user.drag(HERE, (HERE[0], HERE[1] + 40))
    view = large.editing.view
    button.click()
    assert large.job is not None, "the window goes on meanwhile"
    large.opening.leaving.emit()  # another slide would be looked at
    assert large.session.annotations.position == 1
    wait_for(lambda: large.job is None)
    assert "Saved" in large.status.text.text()
    saved, _ = read_labels(path)
    assert saved.shape == (view.height, view.width)
    assert saved[int(HERE[0]) - view.y, int(HERE[1]) + 20 - view.x]


def test_this_view_is_right_takes_what_is_in_view_only(large: Any) -> None:
    window = large.editing
    view = window.view
    large.correct_section.accept_button.click()
    stored(large, 1)
    accepted = large.session.annotations.read(0, window.region) > 0
    inside = np.zeros_like(accepted)
    y, x = view.y - window.place.y, view.x - window.place.x
    inside[y : y + view.height, x : x + view.width] = True
    np.testing.assert_array_equal(accepted, inside)


def test_this_view_is_right_right_after_a_move_takes_all_of_the_view(large: Any, user: User) -> None:
    window = large.editing
    for records, (place, zoom) in enumerate((((15_000, 3_000), 1.0), ((15_000, 3_000), 0.4)), start=1):
        user.look(place, zoom)
        large.accept_view()
        stored(large, records)
        view, pixel = window.view, 2**window.place.layer
        box = Region(view.y // pixel, view.x // pixel, view.height // pixel, view.width // pixel)
        assert (large.session.annotations.read(window.place.layer, box) > 0).all()
    assert "counts as right" in large.status.text.text()

    user.look((-90_000.0, 0.0), 1.0)
    large.accept_view()
    assert "not in view" in large.status.text.text()
    large.layers.finish_edits()
    assert large.session.annotations.position == records


def test_of_a_view_that_is_segmented_in_part_the_rest_is_left_out_and_that_is_said(
    dock: Any, tissue: np.ndarray[Any, Any]
) -> None:
    image = dock.viewer.add_image(tissue, rgb=True, name="tissue", scale=(0.5, 0.5), units=("um", "um"))
    session = dock.session
    for _ in session.segment(Region(0, 0, 600, 300)):
        pass
    show_region(dock.viewer, image, Region(0, 0, 600, 800))
    dock.accept_view()
    wait_for(lambda: "left out" in dock.status.text.text())
    whole = Region(0, 0, 600, 800)
    accepted = is_accepted(session.annotations.read(0, whole))
    segmented = session.predictions().read(0, whole) > 0
    assert 0.3 < segmented.mean() < 0.7
    glass = ~session.tissue.find().read(0, whole)
    np.testing.assert_array_equal(accepted, segmented | glass)
    assert f"{1 - accepted.mean():.0%} of this view was not segmented yet" in dock.status.text.text()


def test_the_window_stays_where_the_slide_has_left_the_view(large: Any, user: User) -> None:
    first = large.editing.place
    user.look((-90_000.0, 0.0), 1.0)
    wait_for(lambda: not large.editing._still.isActive())
    assert large.editing.place is first
    show_region(large.viewer, large.layers.image, Region(0, 0, 500, 500))
    wait_for(lambda: large.editing.place is not first)
