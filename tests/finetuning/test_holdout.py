"""What is never trained on does not change from round to round."""

from __future__ import annotations

import hashlib

import numpy as np

from napari_genselfdiff.finetuning.holdout import (
    CELL,
    GUARD,
    SEVERAL,
    cell_numbers,
    held_out_mask,
    held_out_slides,
    inner_mask,
)

NAMES = [hashlib.sha256(str(index).encode()).hexdigest() for index in range(60)]


def test_a_fifth_of_the_cells_and_whole_ones() -> None:
    mask = held_out_mask((40 * CELL, 40 * CELL), (0, 0), "slide")
    cells = mask.reshape(40, CELL, 40, CELL)
    assert (cells.all(axis=(1, 3)) == cells.any(axis=(1, 3))).all()
    assert 0.16 < mask.mean() < 0.24
    assert (mask != held_out_mask(mask.shape, (0, 0), "another")).any()


def test_the_choice_belongs_to_the_slide_and_not_to_the_cut() -> None:
    whole = held_out_mask((500, 500), (0, 0), "slide")
    assert (held_out_mask((200, 300), (130, 90), "slide") == whole[130:330, 90:390]).all()
    assert (inner_mask((200, 300), (130, 90)) == inner_mask((500, 500), (0, 0))[130:330, 90:390]).all()


def test_labels_near_the_border_of_a_cell_are_not_asked() -> None:
    inner = inner_mask((2 * CELL, CELL), (0, 0))
    assert inner[GUARD, GUARD]
    assert not inner[GUARD - 1].any()
    assert not inner[CELL - GUARD : CELL + GUARD].any()
    assert inner.mean() == ((CELL - 2 * GUARD) / CELL) ** 2


def test_cells_have_their_own_numbers() -> None:
    numbers = cell_numbers((3 * CELL, 2 * CELL), (7 * CELL, 5 * CELL))
    assert len(np.unique(numbers)) == 6
    assert numbers[0, 0] == cell_numbers((1, 1), (7 * CELL, 5 * CELL))[0, 0]


def test_whole_slides_are_held_out_where_there_are_several() -> None:
    assert held_out_slides(NAMES[: SEVERAL - 1]) == frozenset()
    held = held_out_slides(NAMES)
    assert 0.1 < len(held) / len(NAMES) < 0.3
    for count in range(SEVERAL, len(NAMES)):
        some = held_out_slides(NAMES[:count])
        assert some in (held & set(NAMES[:count]), frozenset())
    # Never all of them.
    assert held_out_slides(sorted(held)) == frozenset()
