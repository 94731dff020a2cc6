"""A new task: name the classes, say how large the structures are, and paint a few of each."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QGroupBox, QHBoxLayout, QLabel, QVBoxLayout

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.session import STRUCTURES, Task
from napari_genselfdiff.widgets.classes import ClassList
from napari_genselfdiff.widgets.sections import button

OLD_STROKES = "What is drawn in this project already will be read as these classes, by their numbers."


class TaskSection(QGroupBox):
    """Names the classes of a task that begins without a model."""

    started = Signal(object, object)
    """The `Task`, and the colours of its classes by name."""

    def __init__(self) -> None:
        super().__init__("New task")
        self.classes = ClassList()
        self.classes.show_classes(["class 1"])
        self.structures = QComboBox()
        for name, mpp in STRUCTURES.items():
            self.structures.addItem(f"{name} ({mpp:g} µm/px)", mpp)
        self.structures.setToolTip(
            "what is to be told apart: it says how closely the network looks. Cells need detail, regions of"
            " tissue need surroundings"
        )
        self.objects = QCheckBox("Objects that touch come apart")
        self.objects.setToolTip("for things that are counted, such as nuclei and glands; not for regions")
        self.hint = QLabel()
        self.hint.setWordWrap(True)
        self.start = button(
            "Start the task", "begin without a model: paint a few of each class, then Fine-tune"
        )
        self.start.clicked.connect(self._start)
        layout = QVBoxLayout(self)
        layout.addWidget(self.classes)
        layout.addWidget(self.structures)
        layout.addWidget(self.objects)
        row = QHBoxLayout()
        row.addWidget(self.start, 1)
        layout.addLayout(row)
        layout.addWidget(self.hint)
        self.show_state(ready=False, corrected=False)

    def show_state(self, *, ready: bool, corrected: bool) -> None:
        """Allow the button, and say what becomes of strokes that are there."""
        self.start.setEnabled(ready)
        self.hint.setText(OLD_STROKES if corrected else "")
        self.hint.setVisible(corrected)

    def _start(self) -> None:
        names = [name for name, _ in self.classes.classes]
        try:
            task = Task.named(names, mpp=self.structures.currentData(), instances=self.objects.isChecked())
        except UserError as error:
            self.classes.said.emit(str(error))
            return
        self.started.emit(task, dict(self.classes.classes))
