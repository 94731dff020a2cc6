"""Keys for everything that is done a hundred times a day, and the list of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QGridLayout, QLabel, QShortcut, QVBoxLayout, QWidget


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
    """

    keys: str
    what: str
    action: Callable[[], None] | None = None


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
    """The keys, bound in the window that the parent lies in, and their list.

    Parameters
    ----------
    parent : QWidget
        The dock; keys work wherever the focus is in its window, but where text is typed.
    keys : sequence of Key
    """

    def __init__(self, parent: QWidget, keys: Sequence[Key]) -> None:
        super().__init__(parent)
        self.shortcuts = []
        for key in keys:
            if key.action is None:
                continue
            shortcut = QShortcut(QKeySequence(key.keys), parent)
            shortcut.setContext(Qt.ShortcutContext.WindowShortcut)
            shortcut.activated.connect(key.action)
            self.shortcuts.append(shortcut)
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
        layout.addStretch(1)
