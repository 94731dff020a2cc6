"""The parts of the dock, one a step of the session: they show values and emit what was clicked."""

from __future__ import annotations

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFrame,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_genselfdiff.widgets.classes import ClassList
from napari_genselfdiff.widgets.gestures import GESTURES, Gesture

SETTLED = 100
"""Milliseconds until what was shown has its place."""
PRIMARY = "QPushButton:enabled { font-weight: bold; background: #0072B2; color: white; }"


def button(text: str, tooltip: str) -> QPushButton:
    """A button with a tooltip."""
    made = QPushButton(text)
    made.setToolTip(tooltip)
    return made


def scrolled(*parts: QWidget) -> QScrollArea:
    """Parts below each other, which scroll when the window is small."""
    inner = QWidget()
    column = QVBoxLayout(inner)
    column.setContentsMargins(4, 4, 4, 4)
    for part in parts:
        column.addWidget(part)
    column.addStretch(1)
    scroll = QScrollArea()
    scroll.setWidgetResizable(True)
    scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    scroll.setFrameShape(QFrame.Shape.NoFrame)
    scroll.setWidget(inner)
    return scroll


def reveal(part: QWidget) -> None:
    """Scroll to a part that was hidden, when it has its place: layouts above it settle one after another."""

    def scroll() -> None:
        outer = part.parentWidget()
        while outer is not None and not isinstance(outer, QScrollArea):
            outer = outer.parentWidget()
        if outer is not None:
            outer.ensureWidgetVisible(part)

    timer = QTimer(part)  # which ends with it
    timer.setSingleShot(True)
    timer.timeout.connect(scroll)
    timer.start(SETTLED)


class SlideSection(QGroupBox):
    """Which slide, its resolution, and its tissue."""

    open_clicked = Signal()
    mpp_given = Signal(float)
    tissue_toggled = Signal(bool)
    sensitivity_chosen = Signal(float)

    def __init__(self, layers: QWidget) -> None:
        super().__init__("1  Slide")
        self.open_button = button("Open slide...", "open a whole-slide image or any RGB image from disk")
        self.open_button.clicked.connect(self.open_clicked)
        self.info = QLabel("Drag a slide into the window, or open one.")
        self.info.setWordWrap(True)
        self.warning = QLabel()
        self.warning.setWordWrap(True)
        self.warning.setVisible(False)
        self.mpp = QDoubleSpinBox()
        self.mpp.setRange(0.05, 20)
        self.mpp.setDecimals(4)
        self.mpp.setValue(0.25)
        self.mpp.setSuffix(" µm/px")
        self.mpp.setToolTip("micrometres per pixel: about 0.25 for a 40x scan, 0.5 for 20x, 1.0 for 10x")
        self.mpp_button = button("Use", "say that the slide has this resolution")
        self.mpp_button.clicked.connect(lambda: self.mpp_given.emit(self.mpp.value()))
        self.notice = QLabel()
        self.notice.setWordWrap(True)
        self.notice.setVisible(False)
        self.ask_mpp = QWidget()
        row = QHBoxLayout(self.ask_mpp)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(QLabel("Resolution:"))
        row.addWidget(self.mpp, 1)
        row.addWidget(self.mpp_button)
        self.ask_mpp.setVisible(False)
        layout = QVBoxLayout(self)
        top = QHBoxLayout()
        top.addWidget(layers, 1)
        top.addWidget(self.open_button)
        layout.addLayout(top)
        layout.addWidget(self.info)
        layout.addWidget(self.ask_mpp)
        layout.addWidget(self.warning)
        layout.addWidget(self.notice)
        self.tissue = QCheckBox("Tissue outline")
        self.tissue.setToolTip(
            "show where tissue was found; glass, pen marks and empty tiles are left out of a whole slide"
        )
        self.tissue.toggled.connect(self.tissue_toggled)
        self.sensitivity = QSlider(Qt.Orientation.Horizontal)
        self.sensitivity.setRange(0, 100)
        self.sensitivity.setValue(50)
        self.sensitivity.setTracking(False)
        self.sensitivity.setToolTip("further right takes paler tissue in")
        self.sensitivity.valueChanged.connect(lambda value: self.sensitivity_chosen.emit(value / 100))
        row = QHBoxLayout()
        row.addWidget(self.tissue)
        row.addWidget(self.sensitivity, 1)
        layout.addLayout(row)

    def show_sensitivity(self, sensitivity: float) -> None:
        """Show how pale tissue may be, 0 to 1."""
        self.sensitivity.blockSignals(True)
        self.sensitivity.setValue(round(100 * sensitivity))
        self.sensitivity.blockSignals(False)

    def show_notice(self, text: str) -> None:
        """Show what the user should know of the slide; nothing for an empty text."""
        self.notice.setText(text)
        self.notice.setVisible(bool(text))

    def show_slide(self, info: str, *, ask_mpp: bool, warning: str = "") -> None:
        """Show what is known of the slide."""
        self.info.setText(info)
        self.ask_mpp.setVisible(ask_mpp)
        self.warning.setText(warning)
        self.warning.setVisible(bool(warning))


class SegmentSection(QGroupBox):
    """Which model, and the one click."""

    segment_clicked = Signal()
    slide_clicked = Signal()
    model_chosen = Signal(str)
    previous_clicked = Signal()
    compare_toggled = Signal(bool)

    def __init__(self) -> None:
        super().__init__("2  Segment")
        self.models = QComboBox()
        self.models.setToolTip("the model that segments; every fine-tune adds a version to this list")
        self.models.textActivated.connect(self.model_chosen)
        self.segment_button = button(
            "Segment view", "segment what is on the screen, the middle of the view first (G)"
        )
        self.segment_button.setDefault(True)
        self.segment_button.setStyleSheet(PRIMARY)
        self.segment_button.clicked.connect(self.segment_clicked)
        self.slide_button = button(
            "Segment slide",
            "segment all of the tissue, beginning where you look; Cancel pauses, this goes on (Shift+G)",
        )
        self.slide_button.clicked.connect(self.slide_clicked)
        self.previous_button = button("Previous model", "go back to the model that was used before")
        self.previous_button.clicked.connect(self.previous_clicked)
        self.compare = QCheckBox("Show before")
        self.compare.setToolTip("show what the previous model said, to compare (O)")
        self.compare.toggled.connect(self.compare_toggled)
        layout = QVBoxLayout(self)
        layout.addWidget(self.models)
        row = QHBoxLayout()
        row.addWidget(self.segment_button, 1)
        row.addWidget(self.slide_button)
        layout.addLayout(row)
        row = QHBoxLayout()
        row.addWidget(self.previous_button)
        row.addWidget(self.compare)
        layout.addLayout(row)

    def show_models(self, models: dict[str, str], current: str | None) -> None:
        """Fill the list with names; their descriptions become tooltips."""
        self.models.blockSignals(True)
        self.models.clear()
        for index, (name, detail) in enumerate(models.items()):
            self.models.addItem(name)
            self.models.setItemData(index, detail, Qt.ItemDataRole.ToolTipRole)
        if current in models:
            self.models.setCurrentText(current)
        self.models.blockSignals(False)


class CorrectSection(QGroupBox):
    """The editable window, its classes, and gestures on single objects."""

    correct_clicked = Signal()
    accept_clicked = Signal()
    undo_clicked = Signal()
    redo_clicked = Signal()
    gesture_clicked = Signal(object)
    """The `Gesture` that dragging makes from now on; None for the brush."""

    def __init__(self) -> None:
        super().__init__("3  Correct")
        self.correct_button = button(
            "Correct here", "make the view editable, at this magnification; it follows pan and zoom (H)"
        )
        self.correct_button.clicked.connect(self.correct_clicked)
        self.accept_button = button("This view is right", "all that you see is right as it stands now (A)")
        self.accept_button.clicked.connect(self.accept_clicked)
        self.undo_button = button("Undo", "take the last stroke back (Ctrl+Z)")
        self.undo_button.clicked.connect(self.undo_clicked)
        self.redo_button = button("Redo", "do it again (Ctrl+Shift+Z)")
        self.redo_button.clicked.connect(self.redo_clicked)
        self.classes = ClassList()
        self.gestures = {gesture: self._gesture_button(gesture) for gesture in GESTURES}
        self.instant = QCheckBox("Instant answer")
        self.instant.setToolTip(
            "a light classifier answers each stroke at once and begins with what the model says; "
            "without a model, two painted classes are enough (I)"
        )
        self.keep_button = button(
            "Keep answer", "take the instant answer of this view as right; what you painted stays (K)"
        )
        layout = QGridLayout(self)
        layout.addWidget(self.correct_button, 0, 0, 1, 2)
        layout.addWidget(self.accept_button, 0, 2, 1, 2)
        layout.addWidget(self.classes, 1, 0, 1, 4)
        for column, made in enumerate(self.gestures.values()):
            layout.addWidget(made, 2, column)
        layout.addWidget(self.instant, 3, 0, 1, 2)
        layout.addWidget(self.keep_button, 3, 2, 1, 2)
        layout.addWidget(self.undo_button, 4, 0, 1, 2)
        layout.addWidget(self.redo_button, 4, 2, 1, 2)

    def show_gesture(self, chosen: Gesture | None) -> None:
        """Show which gesture dragging makes; None when it is a brush."""
        for gesture, made in self.gestures.items():
            made.setChecked(gesture is chosen)

    def _gesture_button(self, gesture: Gesture) -> QPushButton:
        made = button(gesture.name.capitalize(), f"{gesture.how} ({gesture.keys[0]}); Esc: back to the brush")
        made.setCheckable(True)
        made.clicked.connect(lambda checked: self.gesture_clicked.emit(gesture if checked else None))
        return made


class StatusSection(QWidget):
    """What is running, how long it will take, and Cancel."""

    cancel_clicked = Signal()
    export_clicked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.cancel_button = button("Cancel", "stop the running work; what is done is kept (Shift+Esc)")
        self.cancel_button.clicked.connect(self.cancel_clicked)
        self.export_button = button(
            "Export labels...", "save the view's labels as a mask, OME-Zarr, GeoJSON or table"
        )
        self.export_button.clicked.connect(self.export_clicked)
        self.text = QLabel("Ready.")
        self.text.setWordWrap(True)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        row = QHBoxLayout()
        row.addWidget(self.bar, 1)
        row.addWidget(self.cancel_button)
        layout.addLayout(row)
        layout.addWidget(self.text)
        layout.addWidget(self.export_button)
        self.show_idle("Ready.")

    def show_running(self, text: str, share: float | None, seconds_left: float | None) -> None:
        """Show running work; ``share`` is 0 to 1, or None when it is not known."""
        self.bar.setTextVisible(True)
        self.bar.setRange(0, 0 if share is None else 1000)
        if share is not None:
            self.bar.setValue(int(1000 * share))
        left = "" if seconds_left is None else f", {max(0, round(seconds_left))} s left"
        self.text.setText(f"{text}{left}")
        self.cancel_button.setEnabled(True)

    def show_idle(self, text: str) -> None:
        """Show the outcome."""
        self.bar.setRange(0, 1000)
        self.bar.setValue(0)
        self.bar.setTextVisible(False)  # "0%" beside what was done would say that it was not
        self.text.setText(text)
        self.cancel_button.setEnabled(False)
