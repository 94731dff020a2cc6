"""Keys for everything that is done a hundred times a day, and the list of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QGridLayout, QLabel, QShortcut, QVBoxLayout, QWidget

from napari_genselfdiff.widgets.own import is_ours

if TYPE_CHECKING:
    from napari.viewer import Viewer


@dataclass(frozen=True)
class Key:
    """A key of the dock.

    Attributes
    ----------
    keys : str
        As Qt writes it, for example ``Shift+G``.
    what : str
        What it does, in a few words.
    action : callable or None
        None where the key belongs to a layer or to napari and is only listed.
    always : bool
        Whether it acts whatever layer is chosen.
    """

    keys: str
    what: str
    action: Callable[[], None] | None = None
    always: bool = False


NAPARI_KEYS = (
    Key("0 ... 9", "choose the class; 0 is the background"),
    Key("P   E   F", "brush, eraser, fill"),
    Key("3   L   Z", "polygon, pick a class, move the view"),
    Key("[   ]", "smaller, larger brush"),
    Key("Space", "hold to move the view"),
    Key("Ctrl+Z   Ctrl+Shift+Z", "undo, redo"),
    Key("V", "hide or show the chosen layer"),
)


class Shortcuts(QWidget):
    """The keys, bound in the viewer's window, and their list.

    Parameters
    ----------
    viewer : Viewer
        Keys work wherever the focus is in its window, or in a dock that floats, but where text is typed.
    keys : sequence of Key

    Notes
    -----
    napari has keys of its own for points, shapes and the like, such as A, which chooses all. So that those
    work, ours do not while a layer is chosen that is none of ours.
    """

    def __init__(self, viewer: Viewer, keys: Sequence[Key]) -> None:
        super().__init__()
        self._viewer = viewer
        self._shortcuts: list[tuple[QShortcut, Key]] = []
        for key in keys:
            if key.action is None:
                continue
            shortcut = QShortcut(QKeySequence(key.keys), viewer.window.main_menu.window())
            shortcut.setContext(Qt.ShortcutContext.WindowShortcut)
            shortcut.activated.connect(key.action)
            self._shortcuts.append((shortcut, key))
        viewer.layers.selection.events.active.connect(self._follow)
        self._follow()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        grid = QGridLayout()
        grid.setColumnStretch(1, 1)
        for row, key in enumerate((*keys, *NAPARI_KEYS)):
            name = QLabel(f"<b>{key.keys}</b>")
            what = QLabel(key.what)
            what.setWordWrap(True)
            grid.addWidget(name, row, 0)
            grid.addWidget(what, row, 1)
        layout.addLayout(grid)
        others = QLabel("On a layer of your own, such as points, these keys rest and napari's work.")
        others.setWordWrap(True)
        layout.addWidget(others)
        layout.addStretch(1)

    def release(self) -> None:
        """Let the keys go."""
        self._viewer.layers.selection.events.active.disconnect(self._follow)
        for shortcut, _ in self._shortcuts:
            shortcut.setEnabled(False)
            shortcut.deleteLater()
        self._shortcuts.clear()

    def _follow(self, _event: Any = None) -> None:
        """Leave napari its keys while a layer of the user's own is chosen."""
        active = self._viewer.layers.selection.active
        for shortcut, key in self._shortcuts:
            shortcut.setEnabled(key.always or active is None or is_ours(active))
