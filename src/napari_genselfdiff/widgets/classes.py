"""The classes of a task: their names, colours and keys; one of them is what the brush paints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QPoint, QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QToolButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_genselfdiff.widgets.colors import PALETTE, class_color

if TYPE_CHECKING:
    from napari.layers import Labels

MOST = 16
"""Classes besides the background; the palette has so many colours."""
ROWS = 6
"""So many are seen at once; the others scroll."""
COLOUR, NAME, KEY = range(3)
SWATCH = 14


def class_for_key(digit: int, current: int, count: int) -> int | None:
    """Which class a digit chooses.

    Parameters
    ----------
    digit : int
        0 to 9.
    current : int
        The class that is chosen now.
    count : int
        How many there are, the background counted.

    Returns
    -------
    int or None
        The digit itself; pressed again, ten more, if there is such a class. None if there is neither.
    """
    wanted = digit + 10 if current == digit and digit + 10 < count else digit
    return wanted if wanted < count else None


class ClassList(QWidget):
    """A list of classes, the background first.

    Parameters
    ----------
    parent : QWidget, optional

    Attributes
    ----------
    may_remove : callable
        Asked with a class (1 or more) that would go or get another number: an empty text to allow it, else
        why not, such as that something is painted with it.
    """

    class_chosen = Signal(int)
    """The brush paints this class from now on."""
    classes_edited = Signal(list)
    """Names and colours ``(name, "#RRGGBB")`` of classes 1, 2 and so on, after the user changed them."""
    said = Signal(str)
    """Why something cannot be done, in plain words."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.may_remove: Callable[[int], str] = lambda _label: ""
        self._classes: list[tuple[str, str]] = []
        self._fixed = True
        self._layer: Labels | None = None
        self._background = 0
        self.tree = QTreeWidget()
        self.tree.setColumnCount(3)
        self.tree.setHeaderHidden(True)
        self.tree.setRootIsDecorated(False)
        self.tree.setUniformRowHeights(True)
        self.tree.setIconSize(QSize(SWATCH, SWATCH))
        self.tree.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.tree.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = self.tree.header()
        assert header is not None
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(SWATCH + 8)
        for column, mode in (
            (COLOUR, QHeaderView.ResizeMode.ResizeToContents),
            (NAME, QHeaderView.ResizeMode.Stretch),
            (KEY, QHeaderView.ResizeMode.ResizeToContents),
        ):
            header.setSectionResizeMode(column, mode)
        self.tree.currentItemChanged.connect(self._picked)
        self.tree.itemClicked.connect(self._clicked)
        self.tree.itemDoubleClicked.connect(self._rename)
        self.tree.itemChanged.connect(self._renamed)
        self.add_button = _tool("+", "add a class", self.add)
        self.remove_button = _tool(
            "\N{MINUS SIGN}", "remove the chosen class, if nothing is painted with it", self.remove
        )
        buttons = QVBoxLayout()
        buttons.addWidget(self.add_button)
        buttons.addWidget(self.remove_button)
        buttons.addStretch()
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.tree, 1)
        layout.addLayout(buttons)

    @property
    def classes(self) -> list[tuple[str, str]]:
        """Names and colours of classes 1, 2 and so on."""
        return list(self._classes)

    @property
    def current(self) -> int:
        """The class that is chosen."""
        return max(0, self.tree.indexOfTopLevelItem(self.tree.currentItem()))

    def show_classes(self, names: Sequence[str], colors: Sequence[str] = (), *, fixed: bool = False) -> None:
        """Show the classes of a task.

        Parameters
        ----------
        names : sequence of str
            Of classes 1, 2 and so on.
        colors : sequence of str
            What the user chose for them; empty where nothing was chosen.
        fixed : bool
            Only colours can be changed.
        """
        shown = [(name, class_color(label, colors)) for label, name in enumerate(names, start=1)]
        if (shown, fixed) == (self._classes, self._fixed):
            return  # what is chosen, or being written, stays
        self._classes, self._fixed = shown, fixed
        self._fill(min(1, len(names)))
        if self._layer is not None:
            self._mark(self._class_of(self._layer))

    def choose(self, label: int) -> None:
        """Choose what the brush paints."""
        if not 0 <= label <= len(self._classes):
            return
        changed = label != self.current
        self._mark(label)
        if changed:
            self._chosen(label)

    def press(self, digit: int) -> None:
        """Choose by a digit: see `class_for_key`."""
        label = class_for_key(digit, self.current, len(self._classes) + 1)
        if label is not None:
            self.choose(label)

    def follow(self, layer: Labels | None, *, background: int = 0) -> None:
        """Let digits on a labels layer choose, and choose what is chosen there; None to let it go.

        Parameters
        ----------
        layer : Labels or None
        background : int
            What the layer has for background that is painted.
        """
        if self._layer is not None:
            self._layer.events.selected_label.disconnect(self._followed)
        self._layer, self._background = layer, background
        if layer is None:
            return
        for digit in range(10):
            layer.bind_key(str(digit), self._pressing(digit), overwrite=True)
        layer.events.selected_label.connect(self._followed)
        self._mark(self._class_of(layer))

    def add(self) -> None:
        """Add a class, and let its name be written."""
        if len(self._classes) >= MOST:
            self.said.emit(f"A task has {MOST} classes at most.")
            return
        label = len(self._classes) + 1
        taken = {color for _, color in self._classes}
        color = next((color for color in PALETTE if color not in taken), class_color(label))
        self._classes.append((self._free_name(), color))
        self._fill(label)
        self._tell()
        if label > len(self._classes):
            return  # it was refused, and what there is was shown again
        self._chosen(label)
        self._rename(self.tree.topLevelItem(label), NAME)

    def remove(self) -> None:
        """Remove the chosen class; the last one stays, and so does one that was painted with."""
        label = self.current
        if not label:
            self.said.emit("The background cannot be removed.")
            return
        if len(self._classes) == 1:
            self.said.emit("A task has one class at least: give it another name.")
            return
        # Those behind it move up by one: nothing may be painted with them, either.
        for moved in range(label, len(self._classes) + 1):
            if refusal := self.may_remove(moved):
                self.said.emit(refusal)
                return
        del self._classes[label - 1]
        self._fill(min(label, len(self._classes)))
        self._tell()
        self._chosen(self.current)

    def set_color(self, label: int, color: str) -> None:
        """Give a class a colour, ``#RRGGBB``."""
        name, before = self._classes[label - 1]
        if color != before:
            self._classes[label - 1] = name, color
            self._fill(self.current)
            self._tell()

    def _fill(self, chosen: int) -> None:
        tree = self.tree
        tree.blockSignals(True)
        tree.clear()
        for label, (name, color) in enumerate([("background", ""), *self._classes]):
            item = QTreeWidgetItem(["", name, _key_of(label)])
            item.setIcon(COLOUR, _swatch(color))
            item.setToolTip(COLOUR, "choose its colour" if label else "the brush erases")
            item.setTextAlignment(KEY, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            item.setToolTip(KEY, "the key that chooses it")
            if label and not self._fixed:
                item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
                item.setToolTip(NAME, "double-click to rename it")
            tree.addTopLevelItem(item)
        tree.blockSignals(False)
        self._mark(chosen)
        self.add_button.setVisible(not self._fixed)
        self.remove_button.setVisible(not self._fixed)
        rows = min(max(len(self._classes) + 1, 2), ROWS)
        tree.setFixedHeight(rows * max(tree.sizeHintForRow(0), SWATCH + 4) + 2 * tree.frameWidth())

    def _mark(self, label: int) -> None:
        item = self.tree.topLevelItem(label)
        if item is not None:
            self.tree.blockSignals(True)
            self.tree.setCurrentItem(item, NAME)
            self.tree.blockSignals(False)
            self.tree.scrollToItem(item)

    def _chosen(self, label: int) -> None:
        if self._layer is not None and self._class_of(self._layer) != label:
            self._layer.selected_label = label or self._background
        self.class_chosen.emit(label)

    def _picked(self, item: QTreeWidgetItem | None, _before: QTreeWidgetItem | None) -> None:
        if item is not None:
            self._chosen(self.tree.indexOfTopLevelItem(item))

    def _clicked(self, item: QTreeWidgetItem, column: int) -> None:
        label = self.tree.indexOfTopLevelItem(item)
        if column == COLOUR and label:
            box, viewport = self.tree.visualItemRect(item), self.tree.viewport()
            assert viewport is not None
            palette = _Palette(self, lambda color: self.set_color(label, color), self._classes[label - 1][1])
            palette.move(viewport.mapToGlobal(QPoint(box.left(), box.bottom() + 2)))
            palette.show()

    def _rename(self, item: QTreeWidgetItem | None, column: int) -> None:
        if item is not None and column != COLOUR and item.flags() & Qt.ItemFlag.ItemIsEditable:
            self.tree.editItem(item, NAME)

    def _renamed(self, item: QTreeWidgetItem, column: int) -> None:
        label, name = self.tree.indexOfTopLevelItem(item), item.text(NAME).strip()
        if column != NAME or not 0 < label <= len(self._classes):
            return
        before, color = self._classes[label - 1]
        others = {"background", *(name for i, (name, _) in enumerate(self._classes) if i != label - 1)}
        if not name or name in others:
            self.said.emit(f'There is a class "{name}" already.' if name else "A class needs a name.")
            name = before
        self._classes[label - 1] = name, color
        self.tree.blockSignals(True)
        item.setText(NAME, name)
        self.tree.blockSignals(False)
        if name != before:
            self._tell()

    def _tell(self) -> None:
        self.classes_edited.emit(self.classes)

    def _free_name(self) -> str:
        taken = {name for name, _ in self._classes}
        return next(name for i in range(1, MOST + 2) if (name := f"class {i}") not in taken)

    def _followed(self, _event: Any = None) -> None:
        if self._layer is not None:
            self.choose(self._class_of(self._layer))

    def _class_of(self, layer: Labels) -> int:
        chosen = int(layer.selected_label)
        return 0 if chosen == self._background else chosen

    def _pressing(self, digit: int) -> Callable[[Labels], None]:
        return lambda _layer: self.press(digit)


class _Palette(QFrame):
    """Colours to choose from, over everything until one is chosen or something else is clicked."""

    def __init__(self, parent: QWidget, choose: Callable[[str], None], now: str) -> None:
        super().__init__(parent, Qt.WindowType.Popup)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self._choose = choose
        layout = QGridLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.setSpacing(2)
        for index, color in enumerate(PALETTE):
            button = QToolButton()
            button.setIcon(_swatch(color))
            button.setAutoRaise(color != now)
            button.setToolTip(color)
            button.clicked.connect(lambda _checked=False, color=color: self._chosen(color))
            layout.addWidget(button, index // 8, index % 8)
        self.own = QLineEdit(now)
        self.own.setToolTip("a colour of your own, as #RRGGBB or by its name")
        self.own.returnPressed.connect(self._own_chosen)
        layout.addWidget(self.own, 2, 0, 1, 8)

    def _own_chosen(self) -> None:
        color = QColor(self.own.text().strip())
        if color.isValid():
            self._chosen(color.name().upper())
        else:
            self.own.selectAll()

    def _chosen(self, color: str) -> None:
        self.close()
        self._choose(color)


def _key_of(label: int) -> str:
    return str(label) if label < 10 else f"{label - 10} {label - 10}"


def _swatch(color: str) -> QIcon:
    """A square of a colour; a struck one for the background."""
    pixmap = QPixmap(SWATCH, SWATCH)
    pixmap.fill(QColor(color) if color else QColor("transparent"))
    painter = QPainter(pixmap)
    painter.setPen(QColor("#888888"))
    painter.drawRect(0, 0, SWATCH - 1, SWATCH - 1)
    if not color:
        painter.drawLine(0, SWATCH - 1, SWATCH - 1, 0)
    painter.end()
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)  # else Qt tints it
    return icon


def _tool(text: str, tip: str, clicked: Callable[[], None]) -> QToolButton:
    button = QToolButton()
    button.setText(text)
    button.setToolTip(tip)
    button.setFixedSize(22, 22)
    button.clicked.connect(lambda _checked=False: clicked())
    return button
