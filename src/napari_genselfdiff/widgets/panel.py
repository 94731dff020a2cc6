"""A widget in napari's window that knows when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QApplication, QMainWindow, QWidget

if TYPE_CHECKING:
    from qtpy.QtGui import QCloseEvent


class Panel(QWidget):
    """Ends once: when it or its window is closed, it is taken out of the window, or the application quits."""

    def __init__(self) -> None:
        super().__init__()
        self._over = self._closing = False
        self._window: QMainWindow | None = None
        application = QApplication.instance()
        assert application is not None
        # napari quits without closing the docks in its window.
        application.aboutToQuit.connect(self.end)

    def end(self) -> None:
        """Finish what is to be finished; nothing the second time."""
        if self._over:
            return
        self._over = True
        application = QApplication.instance()
        assert application is not None
        application.aboutToQuit.disconnect(self.end)
        self._watch(None)
        self.finish()

    def finish(self) -> None:
        """Let everything go; called once."""
        raise NotImplementedError

    def event(self, event: QEvent | None) -> bool:
        """End when the panel is in no window any more.

        The cross of a dock closes nothing: napari only takes the widget out of its dock. Docks that float, or
        are put elsewhere, take their widget along.
        """
        if event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.end()
        elif event is not None and event.type() == QEvent.Type.Show and not self._over:
            parent = self.parentWidget()  # the dock, floating or not; the window is above it
            while parent is not None and not isinstance(parent, QMainWindow):
                parent = parent.parentWidget()
            self._watch(parent)
        return super().event(event)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """End when the window was closed: a script that closes its viewer deletes what is in it, unasked.

        It is hidden then, unless somebody was asked and wants to keep it.
        """
        if event is not None and watched is self._window:
            if event.type() == QEvent.Type.Close:
                self._closing = True
            elif event.type() == QEvent.Type.Hide and self._closing and not event.spontaneous():
                self.end()
            elif event.type() == QEvent.Type.Paint:
                self._closing = False
        return super().eventFilter(watched, event)

    def _watch(self, window: QMainWindow | None) -> None:
        before, self._window = self._window, window
        if before is not None:
            before.removeEventFilter(self)
        if window is not None:
            window.installEventFilter(self)

    def closeEvent(self, event: QCloseEvent | None) -> None:
        """End when the panel is closed."""
        self.end()
        super().closeEvent(event)
