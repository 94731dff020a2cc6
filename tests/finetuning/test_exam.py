"""What a model is asked after training: around what was held out, and no more than that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.finetuning.conftest import CPU, SPEC

from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.events import CancelToken
from napari_genselfdiff.finetuning import exam as exam_module
from napari_genselfdiff.finetuning.corrections import Place
from napari_genselfdiff.finetuning.exam import MIRRORED, OPEN_PIXELS, SEEN_AROUND, Answers, Exam
from napari_genselfdiff.finetuning.holdout import CELL, GUARD
from napari_genselfdiff.segmentation.network import Segmenter, build_segmenter
from napari_genselfdiff.segmentation.prediction import Prediction

MODEL, PARENT = build_segmenter(SPEC, start=None), build_segmenter(SPEC, start=None)
INNER = CELL - 2 * GUARD


def place(cells: int, held: list[tuple[int, int]], *, drawn: bool = True, name: str = "slide") -> Place:
    """A square place of so many cells a side, whose right half is foreground; its parent says the reverse."""
    side = cells * CELL
    labels = np.zeros((side, side), np.uint8)
    labels[:, side // 2 :] = 1
    out = np.zeros((side, side), bool)
    for row, column in held:
        out[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = True
    return Place(
        name,
        (0, 0),
        np.repeat(255 * (1 - labels)[..., None], 3, axis=2),
        np.full((side, side), drawn),
        labels,
        1 - labels,
        np.zeros((side, side), np.float32),
        None,
        out,
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Shapes that a model was shown, which says foreground everywhere; its parent does where it is light."""
    shapes: list[tuple[int, int]] = []

    def predict(model: object, rgb: NDArray[np.uint8], *_: object, **__: object) -> Prediction:
        foreground = rgb[..., 0]
        if model is not PARENT:
            shapes.append(rgb.shape[:2])
            foreground = np.full_like(foreground, 255)
        return Prediction((0, 0), 1.0, np.stack([255 - foreground, foreground]), None)

    monkeypatch.setattr(exam_module, "predict_image", predict)
    return shapes


def answered(exam: Exam, model: Segmenter = MODEL) -> Answers:
    """What a model answers whose predictions come from elsewhere."""

    def work() -> Iterator[object]:
        yield (yield from exam.answers(model, CPU, CancelToken(), parent=model is PARENT))

    *_, found = work()
    assert isinstance(found, Answers)
    return found


def exam_of(*places: Place, fresh: bool = False) -> Exam:
    return Exam(places, [one.held for one in places], classes=2, fresh=fresh)


def test_a_model_is_shown_the_held_out_cells_and_what_lies_around_them(asked: list[tuple[int, int]]) -> None:
    exam = exam_of(place(12, [(1, 1), (10, 10)]))
    found = answered(exam)
    assert exam.regions == 2
    assert asked == [(INNER + 2 * SEEN_AROUND,) * 2] * 2
    # The first cell is background, the second foreground: all that lies GUARD inside of them is asked.
    assert found.counts[:, :, 2].tolist() == [[INNER**2, 0], [0, INNER**2]]
    assert found.counts[:, 1, 0].tolist() == [0, INNER**2]
    assert answered(exam, PARENT).counts[:, :, 0].tolist() == [[0, 0], [0, 0]]


def test_cells_side_by_side_are_shown_at_once_and_stay_two_regions(asked: list[tuple[int, int]]) -> None:
    exam = exam_of(place(8, [(3, 3), (3, 4)]))
    found = answered(exam)
    assert exam.regions == 2
    assert asked == [(INNER + 2 * SEEN_AROUND, INNER + CELL + 2 * SEEN_AROUND)]
    assert found.counts[:, :, 2].sum() == 2 * INNER**2


def test_what_was_not_drawn_is_asked_of_the_parent(asked: list[tuple[int, int]]) -> None:
    open_ = place(4, [], drawn=False)
    exam = exam_of(place(4, [(1, 1)]), open_)
    before = answered(exam, PARENT)
    found = answered(exam)
    assert asked[-1] == (4 * CELL, 4 * CELL)
    half = (4 * CELL) ** 2 // 2
    # The model says foreground everywhere, its parent in one half.
    assert found.kept.tolist() == [[0, 0, half], [half, 2 * half, half]]
    assert before.kept.tolist() == [[half] * 3] * 2


def test_the_surroundings_of_a_place_are_asked_about_though_its_held_out_cell_lies_inside(
    asked: list[tuple[int, int]],
) -> None:
    """Without them a model that ruins all else would have no witness against it."""
    one = place(8, [(3, 3)])
    one.drawn[:, 6 * CELL :] = False
    exam = exam_of(one)
    answered(exam, PARENT)
    found = answered(exam)
    assert exam.regions == 1
    assert asked == [(INNER + 2 * SEEN_AROUND,) * 2, (8 * CELL,) * 2]
    assert found.counts[:, :, 2].sum() == INNER**2, "the cell counts once"
    assert found.kept[:, 2].sum() == 8 * CELL * 2 * CELL


def test_a_model_that_is_its_parent_keeps_all_of_it() -> None:
    """Whatever it sees of a place: a network says other things near the rim of what it is shown."""
    one = place(8, [(3, 3)])
    rng = np.random.default_rng(0)
    one = replace(one, rgb=rng.integers(0, 256, one.rgb.shape, dtype=np.uint8))
    one.drawn[:, 4 * CELL :] = False
    exam = exam_of(one)
    before, after = answered(exam, PARENT), answered(exam, PARENT)
    assert before.kept[:, 2].sum() > 0
    assert (after.kept[:, 0] == after.kept[:, 2]).all()
    assert (after.counts == before.counts).all()


def test_what_is_asked_is_asked_once_where_rectangles_overlap(asked: list[tuple[int, int]]) -> None:
    one = place(6, [(2, 2)])
    one.drawn[:] = False
    dots = [(2 * CELL + GUARD + 2, 2 * CELL + GUARD + 2), (3 * CELL - GUARD - 3, 3 * CELL - GUARD - 3)]
    for y, x in dots:
        one.drawn[y : y + 2, x : x + 2] = True
    exam = exam_of(one)
    assert answered(exam).counts[..., 2].sum() == 4 * len(dots)
    assert len(asked) == len(dots)


def test_what_counts_in_another_place_is_not_asked_here(asked: list[tuple[int, int]]) -> None:
    one = place(4, [], drawn=False)
    elsewhere = np.zeros_like(one.drawn)
    elsewhere[: 2 * CELL] = True
    exam = exam_of(replace(one, elsewhere=elsewhere))
    answered(exam, PARENT)
    assert answered(exam).kept[:, 2].sum() == 2 * CELL * 4 * CELL
    assert asked


def test_open_places_take_a_bounded_part_of_the_time(asked: list[tuple[int, int]]) -> None:
    answered(exam_of(*(place(4, [], drawn=False) for _ in range(20))))
    shown = sum(height * width for height, width in asked)
    assert 0 < shown <= OPEN_PIXELS
    asked.clear()
    answered(exam_of(*(place(4, [], drawn=False) for _ in range(20)), fresh=True))
    assert not asked, "without a parent there is nothing to keep"


def test_a_slide_that_is_held_out_whole_is_one_region_a_place(asked: list[tuple[int, int]]) -> None:
    cells = [(row, column) for row in range(3) for column in range(3)]
    exam = exam_of(place(3, cells), place(3, [(1, 1)], name="other"))
    answered(exam)
    assert exam.regions == 2
    assert len(asked) == 2


def test_the_mirrored_rim_suits_the_network() -> None:
    assert MIRRORED % COMPACT.stride == 0
