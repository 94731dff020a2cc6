"""A small live curve."""

from __future__ import annotations

from qtpy.QtCore import QPointF, QSize, Qt
from qtpy.QtGui import QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget


class LossCurve(QWidget):
    """Training loss over time, drawn as it arrives."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._points: list[tuple[float, float]] = []
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip("training loss against seconds; lower is better")

    @property
    def points(self) -> list[tuple[float, float]]:
        """``(seconds, loss)`` drawn so far."""
        return list(self._points)

    def clear(self) -> None:
        """Begin anew."""
        self._points = []
        self.update()

    def add(self, seconds: float, loss: float) -> None:
        """Add a point."""
        self._points.append((seconds, loss))
        self.update()

    def sizeHint(self) -> QSize:
        """Preferred size."""
        return QSize(200, 70)

    def paintEvent(self, _event: QPaintEvent | None) -> None:
        """Draw the curve over a frame, with the last value."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        color = self.palette().text().color()
        faint = self.palette().mid().color()
        painter.setPen(QPen(faint, 1))
        painter.drawRect(self.rect().adjusted(0, 0, -1, -1))
        if len(self._points) < 2:
            return
        times, losses = zip(*self._points, strict=True)
        low, high = min(losses), max(losses)
        width, height = self.width() - 8, self.height() - 8

        def place(time: float, loss: float) -> QPointF:
            across = (time - times[0]) / max(times[-1] - times[0], 1e-9)
            up = (loss - low) / max(high - low, 1e-9)
            return QPointF(4 + across * width, 4 + (1 - up) * height)

        painter.setPen(QPen(color, 1.5))
        painter.drawPolyline(QPolygonF([place(*point) for point in self._points]))
        corner = Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignRight
        painter.drawText(self.rect().adjusted(6, 4, -6, -4), corner, f"loss {losses[-1]:.3f}")
