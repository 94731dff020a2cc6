"""Beside what was drawn an earlier model teaches, and not the one in use."""

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
from napari_genselfdiff.finetuning import corrections
from napari_genselfdiff.finetuning.corrections import Place, Source, outline_corrections, read_place
from napari_genselfdiff.finetuning.earlier import Looks, Models, no_models
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.network import Segmenter, SegmenterSpec, build_segmenter
from napari_genselfdiff.segmentation.prediction import Prediction
from napari_genselfdiff.slides import slide_from_arrays

CPU = Compute("cpu", None, 1)
TINY = replace(COMPACT, name="tiny", widths=(8, 16), full_width=8)
SPEC = SegmenterSpec(TINY, ("background", "a", "b"), mpp=0.5, instances=True)
SHAPE = (400, 400)


def model(spec: SegmenterSpec = SPEC) -> Segmenter:
    return build_segmenter(spec, start=None)


NOW, THEN = model(), model(replace(SPEC, classes=("background", "a", "renamed since")))


@pytest.fixture(autouse=True)
def _answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model of now sees class b everywhere, any other one class a, surer of it and of its cores."""

    def told(one: Segmenter, rgb: NDArray[np.uint8], _compute: Compute, **_: object) -> Prediction:
        planes = np.zeros((len(one.spec.classes), *rgb.shape[:2]), np.uint8)
        planes[2 if one is NOW else 1] = 204 if one is NOW else 255
        return Prediction((0, 0), 1.0, planes, np.full(rgb.shape[:2], 130 if one is NOW else 250, np.uint8))

    monkeypatch.setattr(corrections, "predict_image", told)


@pytest.fixture
def drawing(tmp_path: Path) -> Iterator[Annotations]:
    with Annotations.open(tmp_path / "session", shape=SHAPE, slide_id="s") as opened:
        yield opened


def draw(drawing: Annotations, y: int, x: int, tag: str, label: int = 0) -> None:
    """A square of a class, eight pixels wide, with a model in use."""
    drawing.model = tag
    drawing.stroke(0, y, x, encode(np.full((8, 8), label, np.uint8)), np.ones((8, 8), bool))


def only_place(drawing: Annotations, models: Models) -> Place:
    slide = slide_from_arrays(np.full((*SHAPE, 3), 200, np.uint8), name="slide", mpp=0.25)
    (outline,), _ = outline_corrections(Source(slide, drawing, "s", models), NOW)
    return read_place(outline, NOW, compute=CPU)


def test_each_pixel_belongs_to_the_model_of_the_nearest_stroke(drawing: Annotations) -> None:
    draw(drawing, 40, 40, "first")
    draw(drawing, 40, 160, "second")
    draw(drawing, 200, 100, "")
    region = Region(10, 10, 120, 100)  # of pixels twice as wide
    drawn = np.zeros((120, 100), bool)
    for y, x in ((20, 20), (20, 80), (100, 50)):
        drawn[y - 10 : y - 6, x - 10 : x - 6] = True
    parts = dict(Looks(drawing.looks()).under(region, 2.0, drawn))
    assert set(parts) == {"first", "second"}
    assert parts["first"][20, :40].all()
    assert not parts["first"][20, 44:].any()
    assert parts["second"][20, 44:].all()
    assert not (parts["first"] | parts["second"])[90:].any(), "there was no model at the third stroke"


def test_what_is_drawn_anew_belongs_to_the_later_model(drawing: Annotations, tmp_path: Path) -> None:
    draw(drawing, 40, 40, "first")
    draw(drawing, 40, 40, "second", 1)
    drawn = np.zeros((50, 50), bool)
    drawn[20:24, 20:24] = True
    region = Region(0, 0, 50, 50)
    assert [tag for tag, _ in Looks(drawing.looks()).under(region, 2.0, drawn)] == ["second"]
    drawing.undo()
    looks = drawing.looks()
    assert [tag for _, tag, _ in looks] == ["first", "second", "second"]
    drawing.close()
    with Annotations.open(tmp_path / "session", shape=SHAPE, slide_id="s") as again:
        assert again.looks() == looks


def test_beside_a_stroke_the_model_that_came_of_it_teaches(drawing: Annotations) -> None:
    draw(drawing, 40, 40, "then")
    draw(drawing, 40, 200, "now")
    place = only_place(drawing, {"then": THEN, "now": NOW}.get)
    assert place.earlier is not None
    assert place.earlier.all()
    left = np.zeros_like(place.drawn)
    left[:, : (124 // 2) - place.origin[1]] = True
    free = place.free
    assert (place.labels[free & left] == 1).all()
    assert place.sure[free & left].min() == 1
    assert (place.labels[free & ~left] == 2).all()
    assert place.sure[free & ~left].max() == pytest.approx(0.6)
    assert (place.labels[place.drawn] == 0).all()
    assert not place.sure[place.drawn].any()
    assert (place.guess == 2).all(), "the model in use is what others ask about"


@pytest.mark.parametrize(
    "models",
    [
        no_models,
        {"then": model(replace(SPEC, mpp=1.0))}.get,
        {"then": model(replace(SPEC, instances=False))}.get,
        {"then": model(replace(SPEC, classes=SPEC.classes[:2]))}.get,
    ],
    ids=["gone", "another resolution", "no objects", "a class was added since"],
)
def test_where_that_model_is_gone_or_of_another_kind_the_one_in_use_teaches(
    drawing: Annotations, models: Models
) -> None:
    draw(drawing, 40, 40, "then")
    place = only_place(drawing, models)
    assert place.earlier is not None
    assert not place.earlier.any()
    assert (place.labels[place.free] == 2).all()
