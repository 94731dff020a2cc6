"""What a person drew becomes examples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_genselfdiff.annotations import Annotations, encode
from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken
from napari_genselfdiff.finetuning import corrections
from napari_genselfdiff.finetuning.corrections import CELL, Source
from napari_genselfdiff.finetuning.examples import Example, held_out_cells
from napari_genselfdiff.finetuning.preparation import cut_places
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.instances import core_target
from napari_genselfdiff.segmentation.network import Segmenter, SegmenterSpec, build_segmenter
from napari_genselfdiff.segmentation.prediction import Prediction
from napari_genselfdiff.slides import Slide, slide_from_arrays

CPU = Compute("cpu", None, 1)
TINY = replace(COMPACT, name="tiny", widths=(8, 16), full_width=8)
SHAPE = (700, 900)


@pytest.fixture
def slide() -> Slide:
    """A slide whose colours say the place: red is the row / 4, green the column / 4."""
    rgb = np.zeros((*SHAPE, 3), np.uint8)
    rgb[..., 0], rgb[..., 1] = np.arange(SHAPE[0])[:, None] // 4, np.arange(SHAPE[1]) // 4
    return slide_from_arrays(rgb, name="the slide", mpp=0.25)


@pytest.fixture
def drawing(tmp_path: Path) -> Iterator[Annotations]:
    with Annotations.open(tmp_path / "session", shape=SHAPE, slide_id="s") as opened:
        yield opened


def segmenter(*, instances: bool = False) -> Segmenter:
    spec = SegmenterSpec(config=TINY, classes=("background", "a", "b"), mpp=0.5, instances=instances)
    return build_segmenter(spec, start=None)


@pytest.fixture(autouse=True)
def _model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that sees class 1 everywhere, surely in the left half of the slide only."""

    def told(model: Segmenter, rgb: NDArray[np.uint8], compute: Compute, **_: object) -> Prediction:
        sure = rgb[..., 1] < 112
        planes = np.zeros((3, *rgb.shape[:2]), np.uint8)
        planes[1] = np.where(sure, 250, 200)
        core = np.full(rgb.shape[:2], 200, np.uint8) if model.spec.instances else None
        return Prediction((0, 0), 1.0, planes, core)

    monkeypatch.setattr(corrections, "predict_image", told)


def cut(
    slide: Slide, drawing: Annotations, model: Segmenter, *, scale: float = 2.0
) -> tuple[list[Example], list[Example]]:
    """What a round trains on and what it is scored on, at so many level-0 pixels a model pixel."""
    assert slide.mpp is not None
    model.spec = replace(model.spec, mpp=scale * slide.mpp)
    sources = [Source(slide, drawing, "")]
    work = cut_places(sources, model, compute=CPU, fresh=False, seed=0, cancel=CancelToken())
    while True:
        try:
            next(work)
        except StopIteration as stop:
            places = stop.value.places
            return [p.example() for p in places], [p.example(p.held & p.drawn) for p in places]


def draw(drawing: Annotations, y: int, x: int, classes: NDArray[np.int64], layer: int = 0) -> None:
    drawing.stroke(layer, y, x, encode(classes), classes >= 0)


def place(example: Example) -> tuple[int, int]:
    """``(y, x)`` on the model's grid of an example's first pixel, read off its colours."""
    return int(example.rgb[0, 0, 0]) * 2, int(example.rgb[0, 0, 1]) * 2


def test_without_a_correction_it_says_what_to_do(slide: Slide, drawing: Annotations) -> None:
    with pytest.raises(UserError, match="nothing is corrected yet, the slide, press Correct here"):
        cut(slide, drawing, segmenter())


def test_drawn_pixels_count_fully_and_others_as_far_as_the_model_is_sure(
    slide: Slide, drawing: Annotations
) -> None:
    classes = np.full((100, 120), 2)
    classes[:, :60] = 0
    draw(drawing, 300, 380, classes)
    training, held_out = cut(slide, drawing, segmenter())
    assert len(training) == len(held_out) == 1
    y, x = place(training[0])
    assert (y % CELL, x % CELL) == (0, 0)
    h, w = training[0].labels.shape
    held = held_out_cells((h, w), cell=CELL, origin=(y, x))
    rows, columns = np.arange(y, y + h)[:, None], np.arange(x, x + w)
    drawn = (rows >= 150) & (rows < 200) & (columns >= 190) & (columns < 250)
    sure = np.broadcast_to(columns < 224, drawn.shape)  # green is below 112 up to there

    assert drawn.sum() == 50 * 60
    expected = np.where(drawn, 1, 0.5 * (np.where(sure, 250, 200) / 127.5 - 1)) * ~held
    assert expected[~drawn].max() < 0.5
    np.testing.assert_allclose(training[0].weight, expected, rtol=1e-5)
    labels = np.where(drawn, np.where(columns < 220, 0, 2), 1)
    assert (training[0].labels == labels).all()

    # Only what was drawn is scored.
    assert (held_out[0].weight == (drawn & held)).all()
    assert not ((training[0].weight > 0) & (held_out[0].weight > 0)).any()


def test_what_was_drawn_beyond_a_box_is_not_taught_as_the_models_own_answer(
    slide: Slide, drawing: Annotations
) -> None:
    """Boxes end at the store's chunks: what lies behind is drawn, too, and counts in its own box."""
    draw(drawing, 412, 412, np.zeros((200, 200), np.int64))  # across (512, 512)
    training, held_out = cut(slide, drawing, segmenter())
    assert len(training) == 4
    drawn = 0
    for example, scored in zip(training, held_out, strict=True):
        (y, x), (h, w) = place(example), example.labels.shape
        rows, columns = np.arange(y, y + h)[:, None], np.arange(x, x + w)
        person = (rows >= 206) & (rows < 306) & (columns >= 206) & (columns < 306)
        assert not example.weight[person & (example.labels != 0)].any()
        drawn += int((person & ((example.weight == 1) | (scored.weight == 1))).sum())
    assert drawn == 100 * 100, "and each pixel counts once"


@pytest.mark.parametrize("y", range(300, 304))
def test_a_thin_stroke_is_learned_wherever_it_lies(slide: Slide, drawing: Annotations, y: int) -> None:
    draw(drawing, y, 300, np.zeros((1, 100), np.int64))
    training, held_out = cut(slide, drawing, segmenter())
    assert sum(int((one.weight == 1).sum()) for one in (*training, *held_out)) == 50


def test_a_touch_up_of_an_overview_counts_once(slide: Slide, drawing: Annotations) -> None:
    draw(drawing, 80, 80, np.zeros((80, 80), np.int64), layer=1)  # level-0 pixels 160 to 320
    draw(drawing, 200, 200, np.full((8, 8), 2))
    training, held_out = cut(slide, drawing, segmenter())
    counted = sum(int((one.weight == 1).sum()) for one in (*training, *held_out))
    assert counted == 80 * 80


def test_the_image_lies_where_the_labels_are(slide: Slide, drawing: Annotations) -> None:
    draw(drawing, 200, 300, np.zeros((200, 200), np.int64))
    (example,), _ = cut(slide, drawing, segmenter())
    y, x = place(example)
    assert y <= 100 - 64 + CELL
    assert x <= 150 - 64 + CELL
    # Level-0 pixel 200 has red 50, pixel 300 has green 75.
    drawn = example.labels == 0
    assert example.rgb[drawn][:, 0].min() == 50
    assert example.rgb[drawn][:, 1].min() == 75


def test_a_pixels_cell_belongs_to_the_slide_and_not_to_the_drawing(
    slide: Slide, drawing: Annotations
) -> None:
    def held_pixels() -> dict[tuple[int, int], bool]:
        training, held_out = cut(slide, drawing, segmenter(), scale=1.0)
        result: dict[tuple[int, int], bool] = {}
        for kept, held in zip(training, held_out, strict=True):
            # At scale 1 the colours say the place only to 4 pixels: cells are read off the grid instead.
            y, x = (side * 4 // CELL * CELL for side in kept.rgb[0, 0, :2].astype(int))
            for mask, is_held in ((kept.weight == 1, False), (held.weight == 1, True)):
                result |= {(int(a) + y, int(b) + x): is_held for a, b in np.argwhere(mask)}
        return result

    draw(drawing, 150, 170, np.full((60, 60), 2))
    before = held_pixels()
    draw(drawing, 90, 100, np.full((200, 250), 2))
    after = held_pixels()
    assert before.keys() <= after.keys()
    assert len(after) == 200 * 250
    assert all(after[pixel] == held for pixel, held in before.items())
    assert set(after.values()) == {True, False}


def test_accepted_views_count_like_drawn_ones(slide: Slide, drawing: Annotations) -> None:
    drawing.accept(0, Region(300, 400, 300, 300), encode(np.full((300, 300), 2), accepted=True))
    training, held_out = cut(slide, drawing, segmenter())
    counted = [(a.weight == 1) | (b.weight == 1) for a, b in zip(training, held_out, strict=True)]
    assert sum(int(mask.sum()) for mask in counted) == 150 * 150
    for example, mask in zip(training, counted, strict=True):
        assert (example.labels[mask] == 2).all()


def test_corrections_from_afar_and_at_the_border(slide: Slide, drawing: Annotations) -> None:
    draw(drawing, 340, 440, np.full((10, 10), 2), layer=1)  # the last corner: 20 x 20 level-0 pixels
    training, held_out = cut(slide, drawing, segmenter(), scale=2.19)
    example = training[0]
    assert example.rgb.shape[:2] == example.labels.shape == example.weight.shape
    counted = (example.weight == 1) | (held_out[0].weight == 1)
    assert counted.sum() == pytest.approx((20 / 2.19) ** 2, rel=0.25)
    assert counted[-1, -1]


def test_models_that_know_objects_learn_the_core_of_what_was_drawn(
    slide: Slide, drawing: Annotations
) -> None:
    y, x = np.mgrid[:100, :100]
    draw(drawing, 300, 500, np.where(np.hypot(y - 50, x - 50) < 30, 2, 0))
    training, _ = cut(slide, drawing, segmenter(instances=True))
    example = training[0]
    assert example.core is not None
    # What was drawn is the only object here: its core is all of it but the rim.
    np.testing.assert_array_equal(example.core, core_target(example.labels))
    assert example.core.max() == 1
    without, _ = cut(slide, drawing, segmenter())
    assert without[0].core is None


def test_what_lies_in_held_out_cells_alone_is_trained_on_and_not_scored(
    slide: Slide, drawing: Annotations
) -> None:
    rows, columns = np.nonzero(held_out_cells((350, 450), cell=CELL))
    y, x = 2 * int(rows[0]), 2 * int(columns[0])
    drawing.accept(0, Region(y, x, 8, 8), encode(np.ones((8, 8))))
    training, held_out = cut(slide, drawing, segmenter())
    assert not any(example.weight.any() for example in held_out)
    assert sum(int((example.weight == 1).sum()) for example in training) == 16


def test_a_tumour_outlined_on_the_overview_is_sampled_not_read_as_a_whole(tmp_path: Path) -> None:
    shape = (60_000, 80_000)
    pink = np.broadcast_to(np.array([200, 100, 200], np.uint8), (*shape, 3))
    huge = slide_from_arrays([pink, pink[::64, ::64]], name="huge", mpp=0.25)
    with Annotations.open(tmp_path / "session", shape=shape, slide_id="s") as drawing:
        tumour = np.full((400, 300), 2)
        draw(drawing, 10, 20, tumour, layer=7)
        draw(drawing, 30_000, 30_000, np.full((80, 80), 1))
        training, held_out = cut(huge, drawing, segmenter())
    assert len(training) == len(held_out) == corrections.SAMPLES + 1
    largest = corrections.LARGEST_BOX // 2 + 4 * corrections.CONTEXT
    assert all(max(example.rgb.shape[:2]) <= largest for example in training)
    assert all(
        (whole.weight == 1).any() or (part.weight == 1).any()
        for whole, part in zip(training, held_out, strict=True)
    )
    assert len({example.name for example in training}) == len(training)
    with Annotations.open(tmp_path / "session", shape=shape, slide_id="s") as drawing:
        again, _ = cut(huge, drawing, segmenter())
    assert [example.name for example in again] == [example.name for example in training]
