"""Who looks at a slide and draws on it, with events of the window system."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import QDeadlineTimer, QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from napari_genselfdiff.widgets.demo import wait_for


class User:
    """Looks at places of the slide and draws there, with events of the window system."""

    def __init__(self, dock: Any) -> None:
        self.dock, self.viewer = dock, dock.viewer
        self.image = dock.layers.image
        # vispy's widget, which cannot be imported before vispy has chosen a Qt.
        widgets = dock.window().findChildren(QWidget)
        (self.canvas,) = [part for part in widgets if type(part).__name__ == "CanvasBackendDesktop"]

    def look(self, centre: tuple[float, float], zoom: float) -> None:
        """Bring a level-0 pixel to the middle; ``zoom`` is in screen pixels a level-0 pixel."""
        self.viewer.scene.camera.center = tuple(self.image.data_to_world(centre))
        self.viewer.scene.camera.zoom = zoom / self.image.scale[-1]

    def press(self, place: tuple[float, float], button: Qt.MouseButton = Qt.MouseButton.LeftButton) -> None:
        """Press the mouse over a level-0 pixel."""
        self._send(QEvent.Type.MouseButtonPress, place, button, button)

    def move(self, place: tuple[float, float], *, pressed: bool = True) -> None:
        """Move the mouse to a level-0 pixel."""
        held = Qt.MouseButton.LeftButton if pressed else Qt.MouseButton.NoButton
        # vispy drops moves that follow each other within 10 ms, and Qt counts them coarsely.
        wait_for(QDeadlineTimer(20).hasExpired)
        self._send(QEvent.Type.MouseMove, place, Qt.MouseButton.NoButton, held)

    def release(self, place: tuple[float, float]) -> None:
        """Let the mouse go over a level-0 pixel."""
        none = Qt.MouseButton.NoButton
        self._send(QEvent.Type.MouseButtonRelease, place, Qt.MouseButton.LeftButton, none)

    def drag(self, *places: tuple[float, float]) -> None:
        """Draw a line."""
        self.press(places[0])
        for place in places[1:]:
            self.move(place)
        self.release(places[-1])

    def click(self, place: tuple[float, float]) -> None:
        """Click on a level-0 pixel, after the mouse came there."""
        self.move(place, pressed=False)
        self.press(place)
        self.release(place)

    def double_click(self, place: tuple[float, float]) -> None:
        """Click twice on a level-0 pixel, as the window system says it."""
        self.click(place)
        left = Qt.MouseButton.LeftButton
        self._send(QEvent.Type.MouseButtonDblClick, place, left, left)
        self.release(place)

    def type(self, key: Qt.Key) -> None:
        """Press a key over the slide."""
        self.canvas.setFocus()
        QTest.keyClick(self.canvas, key)

    def _send(
        self, kind: QEvent.Type, place: tuple[float, float], button: Qt.MouseButton, held: Qt.MouseButton
    ) -> None:
        camera = self.viewer.scene.camera
        offset = np.array(self.image.data_to_world(place)) - np.array(camera.center[-2:])
        y, x = np.array([self.canvas.height(), self.canvas.width()]) / 2 + offset * camera.zoom
        local = QPointF(float(x), float(y))
        QApplication.sendEvent(
            self.canvas,
            QMouseEvent(
                kind,
                local,
                QPointF(self.canvas.mapToGlobal(local)),
                button,
                held,
                Qt.KeyboardModifier.NoModifier,
            ),
        )
