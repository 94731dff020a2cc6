"""The first gear: strokes are answered from features that stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from napari_genselfdiff.annotations import Annotations, classes_of, encode, is_accepted
from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.config import COMPACT, PAPER, UNetConfig
from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Finished
from napari_genselfdiff.finetuning import instant, pixels, strokes
from napari_genselfdiff.finetuning.feature_tiles import TILE
from napari_genselfdiff.finetuning.instant import UNKNOWN, Answer, InstantTask, accept_answer
from napari_genselfdiff.finetuning.scoring import predict_image
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.network import Segmenter, SegmenterSpec, build_segmenter
from napari_genselfdiff.slides import Slide, slide_from_arrays

CPU = Compute("cpu", None, 1)
TINY = replace(COMPACT, name="tiny", widths=(8, 16), full_width=8)
TINY_PAPER = replace(PAPER, name="tiny-paper", widths=(8, 8, 8, 8), blocks=1)
SHAPE = (560, 720)
WHOLE = Region(0, 0, *SHAPE)
SCALE = 1.0
COLORS = ((235, 190, 215), (90, 60, 140), (200, 90, 100))


@cache
def truth() -> NDArray[np.uint8]:
    """Discs of class 1 on background, and a band of class 2."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    labels = ((rows % 60 - 30) ** 2 + (columns % 60 - 30) ** 2 < 200).astype(np.uint8)
    labels[400:460] = 2
    return labels


@pytest.fixture(scope="module")
def slide() -> Slide:
    rgb = np.array(COLORS, np.uint8)[truth()]
    noise = np.random.default_rng(0).integers(-12, 13, rgb.shape)
    return slide_from_arrays(np.clip(rgb + noise, 0, 255).astype(np.uint8), name="the slide", mpp=0.5)


@pytest.fixture
def drawing(tmp_path: Path) -> Iterator[Annotations]:
    with Annotations.open(tmp_path / "session", shape=SHAPE, slide_id="s") as opened:
        yield opened


def task(config: UNetConfig = TINY, **options: Any) -> InstantTask:
    spec = SegmenterSpec(config, ("background", "disc", "band"), mpp=0.5)
    return InstantTask(build_segmenter(spec, start=None), compute=CPU, fresh=True, **options)


@cache
def trained() -> Segmenter:
    """A model that knows discs and bands."""
    labels, spec = truth(), SegmenterSpec(TINY, ("background", "disc", "band"), mpp=0.5)
    model = build_segmenter(spec, start=None)
    part = np.s_[340:468, 200:456]
    inputs = to_unit_range(np.array(COLORS, np.uint8)[labels[part]][None])
    targets = torch.from_numpy(labels[part].astype(np.int64))[None]
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(60):
        loss = cross_entropy(model(inputs)[0], targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


def draw(drawing: Annotations, y: int, x: int, label: int, side: int = 5) -> Region:
    """A short stroke."""
    codes = encode(np.full((side, 3 * side), label))
    drawing.stroke(0, y, x, codes, codes > 0)
    return Region(y, x, side, 3 * side)


def strokes_of_all(drawing: Annotations) -> None:
    for y, x, label in ((87, 82, 1), (57, 50, 0), (267, 262, 1), (237, 200, 0), (420, 200, 2)):
        draw(drawing, y, x, label)
    for y, x in ((70, 100), (104, 40), (250, 280), (284, 220), (194, 20)):  # beside the discs
        draw(drawing, y, x, 0, side=4)


def answered(one: InstantTask, slide: Slide, drawing: Annotations, region: Region = WHOLE) -> Answer:
    view = one.view(slide, region, scale=SCALE)
    list(one.add_view(view))
    one.look(slide, drawing, scale=SCALE)
    return one.answer(view, one.learn())


def test_a_few_strokes_answer_the_whole_view(slide: Slide, drawing: Annotations) -> None:
    strokes_of_all(drawing)
    answer = answered(task(), slide, drawing)
    assert answer.complete
    assert answer.labels.shape == SHAPE
    assert (answer.labels == truth()).mean() > 0.92
    unsure = answer.confidence < 200
    assert (answer.labels == truth())[unsure].mean() < (answer.labels == truth())[~unsure].mean()


def test_a_pretext_answers_too_with_classes_that_are_named(slide: Slide, drawing: Annotations) -> None:
    with pytest.raises(ValueError, match="a pretext has no classes"):
        InstantTask(UNet(TINY), compute=CPU)
    torch.manual_seed(0)  # a network by chance must not be that of whatever ran before
    one = InstantTask(UNet(TINY), compute=CPU, classes=("background", "disc", "band"))
    strokes_of_all(drawing)
    assert (answered(one, slide, drawing).labels == truth()).mean() > 0.92


@pytest.fixture
def stained(slide: Slide) -> Slide:
    """Its discs below row 480 are of a colour that the model has not seen."""
    rgb = slide.read(0, 0, *SHAPE).copy()
    odd = truth() == 1
    odd[:480] = False
    rgb[odd] = (150, 190, 120)
    return slide_from_arrays(rgb, name="another stain", mpp=0.5)


def right(answer: Answer) -> NDArray[np.float64]:
    """Share of each class that is found."""
    return np.array([(answer.labels == label)[truth() == label].mean() for label in range(3)])


def test_what_the_model_in_use_has_right_stays_right(stained: Slide, drawing: Annotations) -> None:
    """All that is painted is what the model has wrong: of that alone nothing else can be learned."""
    for x in (210, 270, 330):
        draw(drawing, 508, x - 7, 1)
    view = Region(480, 0, 80, SHAPE[1])
    one = InstantTask(trained(), compute=CPU)
    there = view.within(WHOLE)
    missed = truth()[there] == 1
    before = predict_image(trained(), stained.read(0, 0, *SHAPE), CPU).probabilities.argmax(axis=0)
    answer = answered(one, stained, drawing)
    assert (before[there] == 1)[missed].mean() < 0.1
    assert (answer.labels[there] == 1)[missed].mean() > 0.3
    assert (right(answer) > 0.9).all()
    draw(drawing, 480, 100, 0)
    alone = answered(InstantTask(trained(), compute=CPU, fresh=True), stained, drawing)
    assert (right(alone) < 0.5).any()


def test_a_class_that_is_far_from_all_strokes_is_still_told(stained: Slide, drawing: Annotations) -> None:
    one = InstantTask(trained(), compute=CPU)
    with pytest.raises(UserError, match="paint over what the model has wrong"):
        answered(one, stained, drawing)
    one.touch(stained, draw(drawing, 87, 82, 1), scale=SCALE)  # the band begins below, in the next tile
    answer = answered(one, stained, drawing)
    assert one.learn().classes == (0, 1)
    assert right(answer)[2] > 0.9
    assert (answer.confidence[truth() == 2] > 128).mean() > 0.9


def test_where_a_person_paints_the_model_says_nothing(slide: Slide, drawing: Annotations) -> None:
    """What was learned beside a stroke and is painted over now counts as it is painted."""
    one = InstantTask(trained(), compute=CPU)
    draw(drawing, 87, 82, 1)
    answered(one, slide, drawing)
    one.tiles = InstantTask(trained(), compute=CPU).tiles  # nothing is kept
    codes = encode(np.full((TILE, TILE), 1, np.uint8))
    drawing.stroke(0, 0, 0, codes, codes > 0)
    one.touch(slide, Region(0, 0, TILE, TILE), scale=SCALE)
    assert one.look(slide, drawing, scale=SCALE) == 1
    with pytest.raises(UserError, match="paint a second class"):
        one.learn()


def test_it_says_what_is_missing(slide: Slide, drawing: Annotations) -> None:
    one, view = task(), Region(0, 0, 300, 300)
    with pytest.raises(UserError, match="paint a little of two classes"):
        answered(one, slide, drawing, view)
    one.touch(slide, draw(drawing, 87, 82, 1), scale=SCALE)
    with pytest.raises(UserError, match="paint a second class, or some background: only disc was painted"):
        answered(one, slide, drawing, view)
    one.touch(slide, draw(drawing, 57, 50, 0), scale=SCALE)
    assert set(np.unique(answered(one, slide, drawing, view).labels)) == {0, 1}
    with pytest.raises(UserError, match="1 to 16 classes"):
        task(classes=["class"] * 18)


def test_what_was_painted_and_taken_back_while_nobody_listened_is_looked_at_again(
    slide: Slide, drawing: Annotations
) -> None:
    one = task()
    draw(drawing, 57, 50, 0)
    draw(drawing, 87, 82, 1)
    answered(one, slide, drawing)
    drawing.undo()
    draw(drawing, 420, 200, 2)
    assert set(answered(one, slide, drawing).labels.flat) == {0, 1}
    one.touch(slide, None, scale=SCALE)
    assert set(answered(one, slide, drawing).labels.flat) == {0, 2}


def test_seventeen_classes_are_told_apart(tmp_path: Path) -> None:
    labels = np.repeat(np.repeat(np.arange(17), 40)[None], 100, axis=0)
    colors = np.random.default_rng(3).integers(20, 240, (17, 3)).astype(np.uint8)
    slide = slide_from_arrays(colors[labels], name="stripes", mpp=0.5)
    one = InstantTask(UNet(TINY), compute=CPU, classes=[f"class {k}" for k in range(17)])
    with Annotations.open(tmp_path / "stripes", shape=labels.shape, slide_id="s") as drawing:
        for label in range(17):
            draw(drawing, 40, 40 * label + 2, label, side=12)
        answer = answered(one, slide, drawing, Region(0, 0, *labels.shape))
    assert (answer.labels == labels).mean() > 0.8


@pytest.mark.parametrize("config", [TINY, TINY_PAPER], ids=["compact", "paper"])
def test_an_answer_does_not_depend_on_the_view(
    slide: Slide, drawing: Annotations, config: UNetConfig
) -> None:
    strokes_of_all(drawing)
    one, other = task(config), task(config)
    whole = answered(one, slide, drawing, Region(0, 0, TILE, 2 * TILE))
    learned = one.learn()
    for region in (Region(130, 300, 120, 200), Region(100, 250, 20, 30), Region(30, 10, 190, 500)):
        view = other.view(slide, region, scale=SCALE)
        *_, part = other.answers(view, learned)
        inside = region.within(Region(0, 0, TILE, 2 * TILE))
        np.testing.assert_array_equal(part.labels, whole.labels[inside])


def test_panning_computes_only_what_is_new(slide: Slide) -> None:
    one = task()
    first = one.view(slide, Region(0, 0, TILE, 2 * TILE), scale=SCALE)
    *_, done = one.add_view(first)
    assert isinstance(done, Finished)
    assert done.result == 2
    panned = one.view(slide, Region(10, TILE, TILE - 20, 2 * TILE), scale=SCALE)
    assert one.tiles.missing(panned.source, panned.tiles) == {(0, 2)}
    assert [event.done for event in one.add_view(panned) if not isinstance(event, Finished)] == [1]


def test_memory_is_bounded_and_strokes_outlive_their_features(slide: Slide, drawing: Annotations) -> None:
    one = task()
    strokes_of_all(drawing)
    answered(one, slide, drawing, Region(0, 0, 2 * TILE, TILE + 100))
    before = one.learn()
    limit = one.tiles.nbytes // 2
    small = task(max_bytes=limit)
    left = small.view(slide, Region(0, 0, 2 * TILE, TILE), scale=SCALE)
    list(small.add_view(left))
    small.look(slide, drawing, scale=SCALE)
    view = small.view(slide, Region(0, TILE, 2 * TILE, TILE), scale=SCALE)
    list(small.add_view(view))
    assert small.tiles.nbytes <= limit
    assert small.tiles.missing(left.source, left.tiles) == {(0, 0), (1, 0)}
    small.look(slide, drawing, scale=SCALE)
    assert small.learn().pixels == before.pixels
    there = view.grid.within(WHOLE)
    assert (small.answer(view, small.learn()).labels == truth()[there]).mean() > 0.9


def test_what_is_taken_back_is_unlearned_even_where_features_are_gone(
    slide: Slide, drawing: Annotations
) -> None:
    one = task()
    draw(drawing, 57, 50, 0)
    draw(drawing, 87, 82, 1)
    region = draw(drawing, 420, 200, 2)
    view = Region(0, 0, 2 * TILE, TILE)
    answered(one, slide, drawing, view)
    assert one.learn().classes == (0, 1, 2)
    one.tiles = task().tiles  # nothing is kept
    drawing.undo()
    one.touch(slide, region, scale=SCALE)
    assert one.look(slide, drawing, scale=SCALE) == 0
    assert one.learn().classes == (0, 1)


def test_strokes_out_of_view_wait_until_they_are_caught_up_with(slide: Slide, drawing: Annotations) -> None:
    strokes_of_all(drawing)
    one = task()
    far = one.view(slide, Region(300, 520, 200, 200), scale=SCALE)
    list(one.add_view(far))
    assert one.look(slide, drawing, scale=SCALE) == 4  # tiles
    with pytest.raises(UserError):
        one.learn()
    stop = CancelToken()
    events = one.catch_up(slide, drawing, scale=SCALE, cancel=stop)
    next(events)
    stop.cancel()
    *_, last = events
    assert isinstance(last, Finished)
    assert last.cancelled
    *_, last = one.catch_up(slide, drawing, scale=SCALE)
    assert last.result == 3
    assert one.look(slide, drawing, scale=SCALE) == 0
    answer = one.answer(far, one.learn())
    assert (answer.labels == truth()[300:500, 520:720]).mean() > 0.9


def test_strokes_on_all_slides_count(slide: Slide, drawing: Annotations, tmp_path: Path) -> None:
    one = task()
    draw(drawing, 87, 82, 1)
    with pytest.raises(UserError):
        answered(one, slide, drawing, Region(0, 0, 300, 300))
    other = slide_from_arrays(np.full((300, 300, 3), COLORS[0], np.uint8), name="pink", mpp=0.5)
    with Annotations.open(tmp_path / "other", shape=(300, 300), slide_id="o") as background:
        draw(background, 100, 100, 0)
        answer = answered(one, other, background, Region(0, 0, 300, 300))
    assert not answer.labels.any()
    view = one.view(slide, Region(0, 0, 300, 300), scale=SCALE)
    assert (one.answer(view, one.learn()).labels == truth()[:300, :300]).mean() > 0.85


def test_the_order_of_the_strokes_does_not_matter(slide: Slide, drawing: Annotations) -> None:
    gradual = task()
    view = gradual.view(slide, Region(0, 0, 500, 500), scale=SCALE)
    list(gradual.add_view(view))
    gradual.look(slide, drawing, scale=SCALE)
    for y, x, label in ((57, 50, 0), (267, 262, 1), (87, 82, 1)):
        gradual.touch(slide, draw(drawing, y, x, label), scale=SCALE)
        gradual.look(slide, drawing, scale=SCALE)
    at_once = answered(task(), slide, drawing, Region(0, 0, 500, 500))
    np.testing.assert_array_equal(gradual.answer(view, gradual.learn()).labels, at_once.labels)


def test_what_is_learned_from_stays_bounded(
    slide: Slide, drawing: Annotations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels, "LEARNED", 60)
    monkeypatch.setattr(instant, "KEPT", 200)
    strokes_of_all(drawing)
    drawing.accept(0, Region(0, 0, 300, 300), encode(truth()[:300, :300]))
    one = task()
    answered(one, slide, drawing)
    assert one.learn().pixels <= 60
    assert one.learn().classes == (0, 1, 2)


def test_an_outline_on_the_overview_is_sampled(slide: Slide, drawing: Annotations) -> None:
    codes = encode(np.ones((280, 360), np.uint8))
    drawing.stroke(1, 0, 0, codes, codes > 0)
    source = task().source(slide, scale=0.05)  # 11,200 x 14,400 model pixels
    found = strokes.Painted(source, drawing)
    assert 0 < len(found.stale) <= 2 * strokes.A_BOX


def test_a_view_that_is_too_large_gets_its_middle(slide: Slide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instant, "LARGEST_VIEW", 300 * 400)
    view = task().view(slide, WHOLE, scale=SCALE)
    assert not view.whole
    assert view.grid == Region(127, 164, 305, 392)
    with pytest.raises(UserError, match="shows no part of the slide"):
        task().view(slide, Region(-500, 0, 200, 200), scale=SCALE)


@pytest.mark.parametrize("scale", [1.0, 2.0, 1.37])
def test_an_answer_is_kept_and_what_was_painted_stays(
    slide: Slide, drawing: Annotations, scale: float
) -> None:
    one = task()
    view = one.view(slide, Region(100, 120, 300, 400), scale=scale)
    labels = np.ones((view.grid.height, view.grid.width), np.uint8)
    labels[:, : view.grid.width // 2] = 0
    labels[-10:] = UNKNOWN
    stroke = draw(drawing, 200, 200, 2)
    assert accept_answer(drawing, Answer(view, labels, labels)) is not None
    codes = drawing.read(0, WHOLE)
    classes = classes_of(codes)
    assert (classes[stroke.y : stroke.bottom, stroke.x : stroke.right] == 2).all()
    assert not is_accepted(codes)[stroke.y : stroke.bottom, stroke.x : stroke.right].any()
    assert is_accepted(codes)[140:370, 140:190].all()
    assert (classes[140:370, 140:190] == 0).all()
    assert (classes[140:370, 330:500] == 1).all()
    assert not codes[:95].any()
    assert not codes[405:].any()
    drawing.undo()
    assert int((drawing.read(0, WHOLE) > 0).sum()) == stroke.height * stroke.width
