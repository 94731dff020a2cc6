"""The versions of the model: their scores, and going back, branching, renaming, deleting, passing on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QGridLayout,
    QGroupBox,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
)

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.models import library
from napari_genselfdiff.widgets.sections import button

if TYPE_CHECKING:
    from napari_genselfdiff.models.versions import Version
    from napari_genselfdiff.session import Session

NAME = Qt.ItemDataRole.UserRole
DELETE, REALLY = "Delete", "Really delete?"


class VersionsSection(QGroupBox):
    """The tree of versions; acts on the session and says what came of it.

    Parameters
    ----------
    tell : callable
        Called with one line of text.
    """

    use_clicked = Signal(str)
    """A version is to be used."""
    edited = Signal()
    """The list changed."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__("Versions of the model")
        self._tell = tell
        self.session: Session | None = None
        self._filling = False
        self.tree = QTreeWidget()
        self.tree.setColumnCount(3)
        self.tree.setHeaderLabels(["version", "Dice", "made from"])
        self.tree.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.tree.setMinimumHeight(120)
        self.tree.setToolTip(
            "the version in use is bold; double-click or F2 to rename. Dice: of the version before and of"
            " this one, on the fifth of the corrections that training never sees"
        )
        self.tree.setEditTriggers(
            QAbstractItemView.EditTrigger.DoubleClicked | QAbstractItemView.EditTrigger.EditKeyPressed
        )
        self.tree.itemSelectionChanged.connect(self._show_state)
        self.tree.itemChanged.connect(self._renamed)
        self.use = button("Use", "segment with this version from now on")
        self.branch = button("Branch", "go on from this version in another direction; the others stay")
        self.delete = button(DELETE, "delete its weights and what it predicted; this cannot be undone")
        self.export = button("Export...", "save its weights (safetensors) and its card for a colleague")
        self.take = button("Import...", "take a model file of a colleague into this project")
        self.use.clicked.connect(lambda: self.use_clicked.emit(self.chosen or ""))
        self.branch.clicked.connect(self._branch)
        self.delete.clicked.connect(self._delete)
        self.export.clicked.connect(self._export)
        self.take.clicked.connect(self._import)
        layout = QVBoxLayout(self)
        layout.addWidget(self.tree)
        grid = QGridLayout()
        for place, made in enumerate((self.use, self.branch, self.delete, self.export, self.take)):
            grid.addWidget(made, *divmod(place, 3))
        layout.addLayout(grid)
        self._show_state()

    @property
    def chosen(self) -> str | None:
        """Name of the version that is selected."""
        items = self.tree.selectedItems()
        return str(items[0].data(0, NAME)) if items else None

    def show_session(self, session: Session | None) -> None:
        """Show a session's versions as they are now."""
        self.session = session
        chosen = self.chosen
        self._filling = True
        self.tree.clear()
        for version in session.versions if session is not None else ():
            item = QTreeWidgetItem([version.shown, version.scores, version.parent or ""])
            item.setData(0, NAME, version.name)
            item.setToolTip(0, _details(version))
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
            self._mark(item, version)
            self.tree.addTopLevelItem(item)
            item.setSelected(version.name == chosen)
        for column in range(3):
            self.tree.resizeColumnToContents(column)
        self._filling = False
        self._show_state()

    def _mark(self, item: QTreeWidgetItem, version: Version) -> None:
        assert self.session is not None
        font = item.font(0)
        font.setBold(version.name == self.session.current)
        item.setFont(0, font)
        problem = self.session.versions.damaged.get(version.name)
        if problem:
            item.setText(1, "damaged")
            item.setToolTip(0, problem)

    def _show_state(self) -> None:
        self.delete.setText(DELETE)
        session, chosen = self.session, self.chosen
        there = session is not None and chosen is not None
        whole = there and session is not None and chosen not in session.versions.damaged
        used = session is not None and chosen == session.current
        editable = session is not None and not session.read_only
        self.use.setEnabled(whole and not used)
        self.branch.setEnabled(whole and editable)
        self.export.setEnabled(whole)
        self.delete.setEnabled(there and editable and not used)
        self.take.setEnabled(editable)

    def _renamed(self, item: QTreeWidgetItem, column: int) -> None:
        if self._filling or self.session is None:
            return
        name = str(item.data(0, NAME))
        if column == 0 and not self.session.read_only:
            session = self.session
            self._do(lambda: session.versions.rename(name, item.text(0)), None)
        else:
            self.show_session(self.session)

    def _branch(self) -> None:
        session, chosen = self.session, self.chosen
        if session is not None and chosen is not None:
            made = self._do(lambda: session.versions.branch(chosen), None)
            if made is not None:
                self._tell(f"{made.name} goes on from {chosen}; fine-tunes are added behind it.")
                self.use_clicked.emit(made.name)

    def _delete(self) -> None:
        session, chosen = self.session, self.chosen
        if session is None or chosen is None:
            return
        if self.delete.text() == DELETE:
            self.delete.setText(REALLY)
            return
        self._do(lambda: session.delete_version(chosen), f"{chosen} is deleted.")

    def _export(self) -> None:
        session, chosen = self.session, self.chosen
        if session is None or chosen is None:
            return
        name, _ = QFileDialog.getSaveFileName(
            self, "Export the version", f"{session.versions[chosen].shown}.safetensors", "*.safetensors"
        )
        if name:
            # The dialog asked about the file that it names: neither about one that gets its ending here, nor
            # about the card where there was nothing else.
            asked = Path(name).suffix == library.SUFFIX and Path(name).exists()
            path = self._do(lambda: session.versions.export(chosen, Path(name), overwrite=asked), None)
            if path is not None:
                self._tell(f"Saved {path} and its card.")

    def _import(self) -> None:
        session = self.session
        name, _ = QFileDialog.getOpenFileName(self, "Import a model", "", "*.safetensors")
        if name and session is not None:
            made = self._do(lambda: session.versions.take_file(name), None)
            if made is not None:
                self._tell(f"{made.name} is in the list; Use puts it to work.")

    def _do(self, step: Callable[[], Any], said: str | None) -> Any:
        """Change the list, write it down, and show it; None when that failed."""
        assert self.session is not None
        try:
            done = step()
            self.session.save()
        except UserError as error:
            self._tell(str(error))
            self.show_session(self.session)
            return None
        if said:
            self._tell(said)
        self.show_session(self.session)
        self.edited.emit()
        return done


def _details(version: Version) -> str:
    lines = [version.description]
    if version.made:
        lines.append(f"made {version.made.replace('T', ' ')[:16]} UTC")
    if version.steps:
        lines.append(f"{version.steps} steps in {version.seconds:.0f} s, seed {version.seed}")
    if version.answer:
        lines.append(version.answer)
    return "\n".join(lines)
