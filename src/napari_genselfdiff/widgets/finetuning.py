"""The part of the dock in which corrections become a better model."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QGroupBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_genselfdiff.models.versions import Doubt
from napari_genselfdiff.widgets.curve import LossCurve
from napari_genselfdiff.widgets.sections import button, reveal

NOTHING_CORRECTED = "Correct a few places first."
CORRECTED = "Your corrections are ready to be learned from."


class LeftOut(QWidget):
    """Two buttons, there while the last fine-tune left something out: look at it, and insist on it."""

    look_clicked = Signal(object)
    """A `Doubt`: go there."""
    right_clicked = Signal(object)
    """A `Doubt`: it counts from now on."""

    def __init__(self) -> None:
        super().__init__()
        self._doubts: list[Doubt] = []
        self._shown: int | None = None
        self.look = button(
            "See what was left out",
            "go to a corrected place that neither the model nor your other corrections agree with; "
            "once more for the next one (Shift+N)",
        )
        self.right = button(
            "It is right", "the place that you looked at counts from the next fine-tune on (Shift+A)"
        )
        self.look.clicked.connect(self._look)
        self.right.clicked.connect(self._insist)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.look, 1)
        layout.addWidget(self.right)
        self.show_doubts(())

    def show_doubts(self, doubts: Sequence[Doubt]) -> None:
        """Show the buttons if there is anything to look at."""
        self._doubts = list(doubts)
        self._point_at(None)
        if doubts:
            reveal(self)

    def _look(self) -> None:
        self._point_at(0 if self._shown is None else (self._shown + 1) % len(self._doubts))
        assert self._shown is not None
        self.look_clicked.emit(self._doubts[self._shown])

    def _insist(self) -> None:
        assert self._shown is not None
        doubt = self._doubts.pop(self._shown)
        self._point_at(None)
        self.right_clicked.emit(doubt)

    def _point_at(self, shown: int | None) -> None:
        self._shown = shown
        self.setVisible(bool(self._doubts))
        self.look.setEnabled(bool(self._doubts))  # its key works while it is hidden, too
        self.right.setEnabled(shown is not None)


class FineTuneSection(QGroupBox):
    """Corrections become a better model."""

    fine_tune_clicked = Signal()
    next_clicked = Signal()

    def __init__(self) -> None:
        super().__init__("4  Fine-tune")
        self.button = button(
            "Fine-tune",
            "train a copy of the model on the corrections of all slides; go on correcting meanwhile (T)",
        )
        self.button.clicked.connect(self.fine_tune_clicked)
        self.next_button = button(
            "Next place", "go to where a correction is worth most: where the model is least sure (N)"
        )
        self.next_button.clicked.connect(self.next_clicked)
        self.curve = LossCurve()
        self._first: float | None = None
        self.answer = QLabel(NOTHING_CORRECTED)
        self.answer.setWordWrap(True)
        self.left_out = LeftOut()
        layout = QVBoxLayout(self)
        row = QHBoxLayout()
        row.addWidget(self.button, 1)
        row.addWidget(self.next_button)
        layout.addLayout(row)
        layout.addWidget(self.left_out)
        layout.addWidget(self.curve)
        layout.addWidget(self.answer)

    def begin(self) -> None:
        """Show that a fine-tune begins."""
        self.curve.clear()
        self.left_out.show_doubts(())
        self._first = None
        self.answer.setText("Training on your corrections; you can go on correcting.")

    def show_score(self, score: float) -> None:
        """Show the score on corrections that are held out, as it was and as it is now."""
        self._first = score if self._first is None else self._first
        self.answer.setText(
            f"Training; Dice on corrections that it does not see: {self._first:.2f} -> {score:.2f}."
        )

    def show_state(self, *, corrected: bool, ready: bool) -> None:
        """Allow the button, and follow the first corrections in words; an answer stays."""
        self.button.setEnabled(corrected and ready)
        if self.answer.text() in (NOTHING_CORRECTED, CORRECTED):
            self.answer.setText(CORRECTED if corrected else NOTHING_CORRECTED)
