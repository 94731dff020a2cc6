"""Gestures on single objects in a real window: keys, drags and clicks, one step of the history each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from tests.widgets.user import User

from napari_genselfdiff.geometry import Region
from napari_genselfdiff.widgets.demo import settle, wait_for
from napari_genselfdiff.widgets.export import export_view
from napari_genselfdiff.widgets.gestures import DELETE, MERGE, REDRAW, SPLIT, Gestures
from napari_genselfdiff.widgets.objects import LINE, PREVIEW, ObjectReader, Outlines

pytestmark = pytest.mark.gui

LEFT, RIGHT = (300.0, 380.0), (300.0, 423.0)
RADIUS = 20


class Scene:
    """Two painted discs in an editable window, and what is said of them."""

    def __init__(self, dock: Any, tissue: np.ndarray) -> None:
        dock.viewer.add_image(tissue, rgb=True, name="tissue", scale=(0.5, 0.5), units=("um", "um"))
        dock.window().resize(1200, 800)
        settle()
        self.user = User(dock)
        self.user.look((300, 400), 2.0)
        dock.correct_here()
        self.dock, self.window, session = dock, dock.editing, dock.session
        self.reader = ObjectReader(session, session.predictions)
        self.outlines = Outlines(dock.viewer, self.window, self.reader)
        self.gestures = Gestures(dock.viewer, self.window, self.reader, self.outlines)
        self.said: list[str] = []
        self.gestures.said.connect(self.said.append)
        place = self.window.place
        y, x = np.mgrid[place.y : place.y + place.height, place.x : place.x + place.width]
        for centre in (LEFT, RIGHT):
            disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= RADIUS**2
            self.window.layer.data_setitem(np.nonzero(disc), 1)
            self.window.commit()
        self.until(2)

    def until(self, records: int) -> None:
        """Wait until the journal has so many records, and what was drawn is shown."""
        wait_for(lambda: self.dock.session.annotations.position == records, 60)
        self.dock.layers.finish_edits()
        settle()

    def ids(self) -> np.ndarray:
        """Objects of the window, as they are stored."""
        self.dock.layers.finish_edits()
        self.reader.prepare()
        place = self.window.place
        there = self.reader.read(place.layer, Region(place.y, place.x, place.height, place.width))
        return np.asarray(there.cells.spread(there.ids))

    def at(self, place: tuple[float, float]) -> tuple[int, int]:
        """A level-0 pixel in the window."""
        return int(place[0]) - self.window.place.y, int(place[1]) - self.window.place.x


@pytest.fixture
def scene(dock: Any, tissue: np.ndarray) -> Iterator[Scene]:
    scene = Scene(dock, tissue)
    yield scene
    scene.gestures.close()
    scene.outlines.close()


def test_each_gesture_is_one_drag_or_click_and_one_undo(scene: Scene) -> None:
    user, annotations = scene.user, scene.dock.session.annotations
    assert scene.ids().max() == 2
    label = scene.window.layer.selected_label

    user.type(Qt.Key.Key_M)
    assert scene.gestures.active is MERGE
    user.drag(LEFT, (300, 400), RIGHT)
    scene.until(3)
    assert scene.ids().max() == 1
    assert scene.window.layer.data[scene.at((300, 401))] == 1  # and it is shown

    user.type(Qt.Key.Key_S)
    user.drag((270, 375), (300, 375), (330, 375))
    scene.until(4)
    ids = scene.ids()
    assert ids.max() == 2
    assert ids[scene.at(LEFT)] == ids[scene.at(RIGHT)] != 0

    user.type(Qt.Key.Key_D)
    user.click(RIGHT)
    scene.until(5)
    assert scene.ids().max() == 1
    assert not scene.window.layer.data[scene.at(RIGHT)]

    user.type(Qt.Key.Key_R)
    user.drag((270, 400), (270, 450), (330, 450), (330, 400))
    scene.until(6)
    assert scene.ids().max() == 2
    assert scene.window.layer.data[scene.at((275, 445))] == 1
    assert scene.said == ["2 objects are one.", "Split into 2.", "Deleted.", "Drawn."]
    assert scene.window.layer.selected_label == label

    for _ in range(4):
        annotations.undo()
    assert scene.ids().max() == 2
    assert annotations.can_undo


def test_a_file_for_qupath_holds_the_objects_as_they_are_told_apart(scene: Scene, tmp_path: Path) -> None:
    session, place = scene.dock.session, scene.window.place
    assert place.layer == 0
    region = Region(place.y, place.x, place.height, place.width)

    def exported() -> int:
        export_view(session, region, tmp_path / "objects.geojson")
        return len(json.loads((tmp_path / "objects.geojson").read_text())["features"])

    assert exported() == scene.ids().max() == 2
    scene.user.type(Qt.Key.Key_M)
    scene.user.drag(LEFT, (300, 400), RIGHT)
    scene.until(3)
    assert exported() == scene.ids().max() == 1


def test_a_gesture_that_means_nothing_says_so_and_draws_nothing(scene: Scene) -> None:
    position = scene.dock.session.annotations.position
    for key in (Qt.Key.Key_S, Qt.Key.Key_M, Qt.Key.Key_D, Qt.Key.Key_R):
        scene.user.type(key)
        scene.user.click((200, 300))
        scene.dock.layers.finish_edits()
    assert scene.said == [gesture.nothing for gesture in (SPLIT, MERGE, DELETE, REDRAW)]
    assert scene.dock.session.annotations.position == position


def test_delete_takes_what_is_under_the_mouse_whatever_the_tool(scene: Scene) -> None:
    assert scene.window.layer.mode == "paint"
    scene.user.move(LEFT, pressed=False)
    scene.user.type(Qt.Key.Key_Delete)
    scene.until(3)
    ids = scene.ids()
    assert ids.max() == 1
    assert ids[scene.at(RIGHT)] == 1
    assert scene.window.layer.mode == "paint"


def test_the_mode_says_what_it_does_and_escape_returns_to_the_brush(scene: Scene) -> None:
    layer, chosen = scene.window.layer, []
    scene.gestures.chosen.connect(chosen.append)
    scene.user.type(Qt.Key.Key_S)
    assert "across an object" in scene.dock.viewer.help
    assert not layer.mouse_pan
    QTest.keyPress(scene.user.canvas, Qt.Key.Key_Space)  # moves the camera meanwhile
    assert scene.gestures.active is None
    assert layer.mouse_pan
    QTest.keyRelease(scene.user.canvas, Qt.Key.Key_Space)
    assert scene.gestures.active is SPLIT
    scene.user.type(Qt.Key.Key_Escape)
    assert (scene.gestures.active, layer.mode) == (None, "paint")
    assert "across an object" not in layer.help
    assert chosen == [SPLIT, None, SPLIT, None]
    scene.user.type(Qt.Key.Key_R)
    scene.user.type(Qt.Key.Key_F)
    assert layer.mode == "fill"
    scene.user.type(Qt.Key.Key_L)  # picking is picking again
    assert scene.gestures.active is None


def test_the_brush_goes_on_working_between_gestures(scene: Scene) -> None:
    scene.user.type(Qt.Key.Key_M)
    scene.user.drag(LEFT, (300, 400), RIGHT)
    scene.user.type(Qt.Key.Key_Escape)
    scene.user.drag((250, 380), (250, 420))  # at once, while the other is still worked out
    scene.until(4)
    ids = scene.ids()
    assert ids[scene.at(LEFT)] == ids[scene.at(RIGHT)]
    assert ids[scene.at((250, 400))] not in {0, ids[scene.at(LEFT)]}
    shown = scene.window.layer.data
    stored = scene.dock.session.labels(0, scene.window.place.y, scene.window.place.x, *shown.shape)
    np.testing.assert_array_equal(shown, stored)


def test_outlines_show_objects_and_follow_what_is_drawn(scene: Scene) -> None:
    layer = scene.outlines.layer
    assert layer is not None
    between = scene.at((300, 401))
    row = np.s_[between[0], between[1] - 30 : between[1] + 30]

    def lines() -> int:
        return int((layer.data[row] == LINE).sum())

    wait_for(lambda: lines() >= 2, 60)  # the end of the one, the beginning of the other
    scene.user.type(Qt.Key.Key_M)
    scene.user.press(LEFT)
    scene.user.move((300, 400))
    assert (layer.data == PREVIEW).sum() >= 15
    scene.user.move(RIGHT)
    scene.user.release(RIGHT)
    scene.until(3)
    wait_for(lambda: lines() == 0, 60)
    assert not (layer.data == PREVIEW).any()
    assert scene.dock.viewer.layers.selection.active is scene.window.layer

    scene.dock.viewer.layers.remove(layer)  # the gestures work without it
    scene.user.drag(LEFT, (300, 400), RIGHT)
    scene.dock.layers.finish_edits()
    assert scene.said[-1] == MERGE.nothing
