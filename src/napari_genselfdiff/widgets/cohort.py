"""A new cohort: whether a slide looks like what the model has seen, and adapting to it."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QGroupBox, QHBoxLayout, QLabel, QSpinBox, QVBoxLayout

from napari_genselfdiff.widgets.sections import button

DEFAULT_MINUTES = 5
UNKNOWN = "Whether this slide looks like what the model has seen is not known yet."


class CohortSection(QGroupBox):
    """Shows how familiar a slide is, and offers to adapt the pretext to the project's slides."""

    check_clicked = Signal()
    adapt_clicked = Signal(float)
    """Seconds to adapt for."""

    def __init__(self) -> None:
        super().__init__("Cohort")
        self.answer = QLabel(UNKNOWN)
        self.answer.setWordWrap(True)
        self.check = button(
            "Check slide", "compare the slide's tissue with what the diffusion network was trained on"
        )
        self.check.clicked.connect(self.check_clicked)
        self.minutes = QSpinBox()
        self.minutes.setRange(1, 600)
        self.minutes.setValue(DEFAULT_MINUTES)
        self.minutes.setSuffix(" min")
        self.minutes.setToolTip("how long to go on training on unlabelled tissue of this project's slides")
        self.adapt = button(
            "Adapt to this cohort",
            "go on with the diffusion pretext on unlabelled tissue of the project's slides; kept only if it"
            " helps. No annotation is needed",
        )
        self.adapt.clicked.connect(lambda: self.adapt_clicked.emit(60.0 * self.minutes.value()))
        layout = QVBoxLayout(self)
        layout.addWidget(self.answer)
        row = QHBoxLayout()
        row.addWidget(self.check)
        row.addWidget(self.adapt, 1)
        row.addWidget(self.minutes)
        layout.addLayout(row)

    def forget(self) -> None:
        """Show that nothing is known of another slide."""
        self.answer.setText(UNKNOWN)

    def show_state(self, *, ready: bool, editable: bool) -> None:
        """Allow the buttons."""
        self.check.setEnabled(ready)
        self.adapt.setEnabled(ready and editable)
