"""The project: its slides and their state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QGridLayout,
    QGroupBox,
    QLabel,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
)

from napari_genselfdiff.widgets.sections import button

if TYPE_CHECKING:
    from napari_genselfdiff.session import Session, SessionSlide

FINGERPRINT = Qt.ItemDataRole.UserRole


class ProjectSection(QGroupBox):
    """The slides whose corrections train one model; double-click looks at one."""

    slide_chosen = Signal(str)
    """Fingerprint of the slide to look at."""
    files_chosen = Signal(object)
    """Files to add, a list of Path."""
    folder_chosen = Signal(object)
    """Folder of a project to open or to begin, a Path."""

    def __init__(self) -> None:
        super().__init__("Slides of the project")
        self.place = QLabel()
        self.place.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.place.setWordWrap(True)
        self.list = QTreeWidget()
        self.list.setColumnCount(2)
        self.list.setHeaderLabels(["slide", "state"])
        self.list.setRootIsDecorated(False)
        self.list.setMinimumHeight(110)
        self.list.setToolTip(
            "corrections on all of these slides train one model; double-click looks at a slide"
        )
        self.list.itemActivated.connect(
            lambda item, _column: self.slide_chosen.emit(str(item.data(0, FINGERPRINT)))
        )
        self.add = button("Add slides...", "add slide files to this project")
        self.other = button("Open project...", "open another project's folder")
        self.new = button("New project...", "begin a project in an empty folder, with the slide in view")
        self.add.clicked.connect(self._add)
        self.other.clicked.connect(lambda: self._ask("Open a project"))
        self.new.clicked.connect(lambda: self._ask("An empty folder for the new project"))
        layout = QVBoxLayout(self)
        layout.addWidget(self.place)
        layout.addWidget(self.list)
        grid = QGridLayout()
        for place, made in enumerate((self.add, self.other, self.new)):
            grid.addWidget(made, *divmod(place, 3))
        layout.addLayout(grid)

    def show_session(self, session: Session | None) -> None:
        """Show a session's slides as they are now."""
        self.list.clear()
        self.add.setEnabled(session is not None and not session.read_only)
        self.new.setEnabled(session is not None)
        self.place.setText("" if session is None else f"kept in {session.folder}")
        if session is None:
            return
        for slide in session.slides:
            item = QTreeWidgetItem([slide.name, _state(slide, session.current)])
            item.setData(0, FINGERPRINT, slide.fingerprint)
            item.setToolTip(0, slide.state.path or "an image that was not a file")
            font = item.font(0)
            font.setBold(slide is session.active)
            item.setFont(0, font)
            self.list.addTopLevelItem(item)
        self.list.resizeColumnToContents(0)
        self.list.setColumnWidth(0, min(190, self.list.columnWidth(0)))

    def _add(self) -> None:
        names, _ = QFileDialog.getOpenFileNames(self, "Add slides")
        if names:
            self.files_chosen.emit([Path(name) for name in names])

    def _ask(self, title: str) -> None:
        name = QFileDialog.getExistingDirectory(self, title)
        if name:
            self.folder_chosen.emit(Path(name))


def _state(slide: SessionSlide, version: str | None) -> str:
    """How far a slide is, in a few words."""
    parts = []
    count = slide.changes
    if count:
        parts.append(f"{count} changes")
    elif slide.corrected:
        parts.append("corrected")
    if version is not None and slide.has_predictions(version):
        parts.append("segmented")
    if slide.missing:
        parts.append("file is not there")
    return ", ".join(parts) or "new"
