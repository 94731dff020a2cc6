"""When the window goes, what was done in it is finished first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QApplication, QLabel
from tests.widgets.conftest import paint

from napari_genselfdiff.session import Session
from napari_genselfdiff.widgets.panel import Panel

pytestmark = pytest.mark.gui

Wait = Callable[..., None]


class Counted(Panel):
    """Says how often it ended, and whether its parts were there to be asked."""

    def __init__(self) -> None:
        super().__init__()
        self.label = QLabel("here", self)
        self.ended: list[str] = []

    def finish(self) -> None:
        self.ended.append(self.label.text())


@pytest.mark.parametrize("floating", [False, True])
def test_a_script_that_closes_its_viewer_ends_it_while_it_is_whole(
    make_napari_viewer: Callable[..., Any], floating: bool
) -> None:
    viewer, panel = make_napari_viewer(show=True), Counted()
    viewer.window.add_dock_widget(panel, name="panel").setFloating(floating)
    QApplication.processEvents()
    ended = panel.ended
    viewer.close()
    assert ended == ["here"]


def test_a_window_that_is_hidden_or_not_closed_after_all_does_not_end_it(
    make_napari_viewer: Callable[..., Any],
) -> None:
    class Asked(QObject):
        """Somebody who was asked and said no."""

        def eventFilter(self, _watched: object, event: Any) -> bool:  # type: ignore[override]
            if event.type() == event.Type.Close:
                event.ignore()
                return True
            return False

    viewer, panel = make_napari_viewer(show=True), Counted()
    viewer.window.add_dock_widget(panel, name="panel")
    QApplication.processEvents()
    window, asked = viewer.window._qt_window, Asked()
    window.installEventFilter(asked)
    window.close()
    assert window.isVisible()
    window.removeEventFilter(asked)
    window.hide()
    assert panel.ended == []
    window.show()


def test_the_session_of_a_viewer_that_a_script_closes_is_closed(project: Any, wait_for: Wait) -> None:
    project.correct_here()
    paint(project, 1, 0, wait_for)
    folder, slide = project.session.folder, project.session.slide
    project.correct_section.undo_button.click()  # on its way while the window goes
    project.viewer.close()
    assert project.session is None
    again = Session(folder, slide)
    try:
        assert not again.read_only
        assert not again.annotations.can_undo
        assert again.annotations.can_redo
    finally:
        again.close()
