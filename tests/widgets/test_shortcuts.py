"""Keys of the dock beside those of napari, with real events."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication
from tests.widgets.user import User

from napari_genselfdiff.widgets.demo import wait_for

pytestmark = pytest.mark.gui


@pytest.fixture
def user(dock: Any, tissue: np.ndarray[Any, Any]) -> User:
    """Who presses keys over a slide that is corrected."""
    dock.viewer.add_image(tissue, rgb=True, name="tissue", scale=(0.5, 0.5), units=("um", "um"))
    dock.correct_here()
    activate(dock.window())
    return User(dock)


def activate(window: Any) -> None:
    """Bring a window to the front."""
    window.activateWindow()
    wait_for(lambda: QApplication.activeWindow() is window, 60)


def test_on_a_layer_of_the_users_own_napari_has_its_keys(user: User) -> None:
    dock, layers = user.dock, user.viewer.layers
    points = user.viewer.add_points([[10.0, 10.0], [20.0, 20.0]], scale=(0.5, 0.5), units=("um", "um"))
    user.type(Qt.Key.Key_A)
    dock.layers.finish_edits()
    assert set(points.selected_data) == {0, 1}
    assert dock.session.annotations.position == 0
    user.type(Qt.Key.Key_Question)
    assert dock.tabs.tabText(dock.tabs.currentIndex()).startswith("Keys"), "this one acts always"
    user.type(Qt.Key.Key_Question)

    instant = dock.correct_section.instant
    for chosen in (dock.editing.layer, dock.layers.overlay.layer, user.image, None):
        layers.selection.active = chosen
        before = instant.isChecked()
        user.type(Qt.Key.Key_I)
        assert instant.isChecked() is not before


def test_keys_work_over_the_slide_while_the_dock_floats_and_end_with_it(user: User) -> None:
    dock, instant, window = user.dock, user.dock.correct_section.instant, user.dock.window()
    dock.parent().setFloating(True)
    activate(window)
    user.type(Qt.Key.Key_I)
    assert instant.isChecked()
    user.type(Qt.Key.Key_I)
    assert not instant.isChecked()
    dock.close()
    user.type(Qt.Key.Key_I)
    assert not instant.isChecked()
