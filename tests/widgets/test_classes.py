"""The list of classes, with real clicks and keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QLineEdit, QToolButton

from napari_genselfdiff.widgets.classes import COLOUR, MOST, NAME, ClassList, _Palette, class_for_key
from napari_genselfdiff.widgets.colors import PALETTE


@pytest.fixture
def classes(qtbot: Any) -> ClassList:
    widget = ClassList()
    qtbot.addWidget(widget)
    widget.resize(300, 200)
    widget.show()
    widget.show_classes(["tumour", "stroma", "immune"])
    return widget


def place(classes: ClassList, label: int, column: int) -> QPoint:
    item = classes.tree.topLevelItem(label)
    box = classes.tree.visualItemRect(item)
    return QPoint(classes.tree.header().sectionViewportPosition(column) + 8, box.center().y())


def click(classes: ClassList, label: int, column: int = NAME) -> None:
    QTest.mouseClick(classes.tree.viewport(), Qt.MouseButton.LeftButton, pos=place(classes, label, column))


def test_a_click_chooses(classes: ClassList) -> None:
    chosen: list[int] = []
    classes.class_chosen.connect(chosen.append)
    assert classes.current == 1
    click(classes, 3)
    click(classes, 0)
    assert (chosen, classes.current) == ([3, 0], 0)


def test_a_digit_chooses_and_pressed_again_ten_more() -> None:
    assert class_for_key(3, 1, 5) == 3
    assert class_for_key(5, 1, 5) is None
    assert class_for_key(3, 3, 5) == 3
    assert class_for_key(3, 3, 17) == 13
    assert class_for_key(3, 13, 17) == 3
    assert class_for_key(0, 0, 17) == 10


def test_a_layer_and_the_list_follow_each_other(classes: ClassList) -> None:
    layer = Labels(np.zeros((4, 4), np.uint8))
    classes.follow(layer)
    layer.selected_label = 2
    assert classes.current == 2
    click(classes, 3)
    assert layer.selected_label == 3
    keymap = {str(key): bound for key, bound in layer.keymap.items()}
    keymap["0"](layer)
    assert (layer.selected_label, classes.current) == (0, 0)
    classes.follow(None)
    layer.selected_label = 1
    assert classes.current == 0


def test_classes_are_added_renamed_and_removed(classes: ClassList, qtbot: Any) -> None:
    edits: list[list[tuple[str, str]]] = []
    said: list[str] = []
    classes.classes_edited.connect(edits.append)
    classes.said.connect(said.append)
    QTest.mouseClick(classes.add_button, Qt.MouseButton.LeftButton)
    editor = classes.tree.findChild(QLineEdit)
    assert editor is not None
    QTest.keyClicks(editor, "fat")
    QTest.keyClick(editor, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: len(edits) == 2)
    assert [name for name, _ in edits[-1]] == ["tumour", "stroma", "immune", "fat"]
    assert [color for _, color in edits[-1]] == list(PALETTE[:4])
    assert classes.current == 4

    count = len(edits)
    classes.tree.topLevelItem(2).setText(NAME, "tumour")
    assert classes.tree.topLevelItem(2).text(NAME) == "stroma"
    assert len(edits) == count
    assert "already" in said[-1]

    classes.may_remove = lambda label: "painted" if label == 4 else ""
    for label in (4, 2):  # behind the second lies the fourth, whose number would change
        click(classes, label)
        QTest.mouseClick(classes.remove_button, Qt.MouseButton.LeftButton)
        assert said[-1] == "painted"
        assert len(classes.classes) == 4
    classes.may_remove = lambda label: ""
    QTest.mouseClick(classes.remove_button, Qt.MouseButton.LeftButton)
    assert [name for name, _ in edits[-1]] == ["tumour", "immune", "fat"]
    for _ in range(20):
        classes.add()
    assert len(classes.classes) == MOST
    assert len({color for _, color in classes.classes}) == MOST
    assert classes.tree.height() < 180


def test_a_class_that_was_refused_is_not_chosen(classes: ClassList) -> None:
    layer = Labels(np.zeros((4, 4), np.uint8))
    layer.selected_label = 2
    classes.follow(layer)
    chosen: list[int] = []
    classes.class_chosen.connect(chosen.append)
    classes.classes_edited.connect(lambda _classes: classes.show_classes(["tumour", "stroma", "immune"]))
    QTest.mouseClick(classes.add_button, Qt.MouseButton.LeftButton)
    assert [name for name, _ in classes.classes] == ["tumour", "stroma", "immune"]
    assert (chosen, layer.selected_label, classes.current) == ([], 2, 2)
    assert classes.tree.findChild(QLineEdit) is None


def test_a_learned_class_keeps_its_name_but_not_its_colour(classes: ClassList) -> None:
    classes.show_classes(["nucleus"], ["#112233"], fixed=True)
    assert classes.classes == [("nucleus", "#112233")]
    assert not classes.add_button.isVisible()
    edits: list[list[tuple[str, str]]] = []
    classes.classes_edited.connect(edits.append)
    click(classes, 1, COLOUR)
    popup = classes.findChild(_Palette)
    assert popup is not None
    assert not popup.isModal()
    QTest.mouseClick(popup.findChildren(QToolButton)[4], Qt.MouseButton.LeftButton)
    assert edits[-1] == [("nucleus", PALETTE[4])]

    click(classes, 1, COLOUR)
    popup = classes.findChildren(_Palette)[-1]
    popup.own.setText("teal")
    QTest.keyClick(popup.own, Qt.Key.Key_Return)
    assert edits[-1] == [("nucleus", "#008080")]
