"""A widget in napari's window that knows when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QApplication, QWidget

if TYPE_CHECKING:
    from qtpy.QtGui import QCloseEvent


class Panel(QWidget):
    """Ends once: when it is closed, when it is taken out of the window, or when the application quits."""

    def __init__(self) -> None:
        super().__init__()
        self._over = False
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
        return super().event(event)

    def closeEvent(self, event: QCloseEvent | None) -> None:
        """End when the panel is closed."""
        self.end()
        super().closeEvent(event)
