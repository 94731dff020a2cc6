"""Split, merge, delete and redraw: on drawn shapes, at any magnification, and on the nuclei of MoNuSeg."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage

from napari_genselfdiff.annotations import classes_of, encode, is_joined
from napari_genselfdiff.annotations.pyramid import halved
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.cells import Cells
from napari_genselfdiff.segmentation.gestures import Edit, Objects, delete, merge, redraw, split
from napari_genselfdiff.segmentation.instances import core_target, label_instances
from napari_genselfdiff.segmentation.store import finest_layer

SIDE = 96


class Place:
    """A window on a slide, and what its model sees of it."""

    def __init__(self, codes: np.ndarray, ridges: np.ndarray, *, layer: int = 0, scale: float = 1.0) -> None:
        self.codes, self.layer, self.scale = codes, layer, scale
        self.shape = tuple(side << layer for side in codes.shape)
        self.ridges = ridges  # at level 0
        self.cells = Cells.over(layer, Region(0, 0, *codes.shape), scale, self.shape)

    def objects(self) -> Objects:
        classes = np.maximum(classes_of(self.codes), 0).astype(np.uint8)
        joined = self.cells.sampled(is_joined(self.codes))
        at = [
            np.clip(((model + 0.5) * self.scale).astype(int), 0, side - 1)
            for model, side in zip(self.cells.model, self.shape, strict=True)
        ]
        foreground = self.cells.sampled(classes) > 0
        ids = label_instances(foreground, self.ridges[np.ix_(*at)], joined=joined)
        return Objects(self.cells, classes, ids, joined)

    def apply(self, edit: Edit) -> None:
        self.codes = np.where(edit.mask, edit.codes, self.codes)

    def seen_by_model(self) -> np.ndarray:
        """Codes on the model's grid, as fine-tuning reads them."""
        codes, finest = self.codes, finest_layer(self.scale, self.shape)
        for _ in range(finest - self.layer):
            codes = halved(codes)
        ratio = self.scale / 2 ** max(finest, self.layer)
        rows, columns = (((np.arange(int(side / ratio)) + 0.5) * ratio).astype(int) for side in codes.shape)
        return codes[np.ix_(rows, columns)]


def two_discs(*, gap: int, ridge: bool = True, label: int = 1) -> Place:
    y, x = np.mgrid[:SIDE, :SIDE]
    ids = np.zeros((SIDE, SIDE), int)
    ids[(y - 48) ** 2 + (x - 30) ** 2 <= 14**2] = 1
    ids[((y - 48) ** 2 + (x - 58 - gap) ** 2 <= 14**2) & (ids == 0)] = 2
    ridges = core_target(ids) if ridge else core_target(ids > 0)
    return Place(encode(np.where(ids > 0, label, 0)), ridges)


def path(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, float)


def test_a_line_splits_what_it_divides_and_only_that() -> None:
    place = two_discs(gap=-6, ridge=False)
    before = place.objects()
    assert before.ids.max() == 1
    edit = split(before, path((28, 43), (68, 41)))
    assert edit is not None
    assert edit.done == "Split into 2."
    place.apply(edit)
    after = place.objects()
    assert after.ids.max() == 2
    assert after.ids[48, 25] != after.ids[48, 60]
    gone = (before.classes > 0) & (after.classes == 0)
    assert 15 <= gone.sum() <= 45  # a line of one pixel
    assert not edit.mask[before.classes == 0].any()


def test_a_line_that_ends_just_inside_is_prolonged_and_one_that_grazes_does_nothing() -> None:
    place = two_discs(gap=-6, ridge=False)
    edit = split(place.objects(), path((39, 42), (56, 42)))
    assert edit is not None
    place.apply(edit)
    assert place.objects().ids.max() == 2

    place = two_discs(gap=4)
    assert split(place.objects(), path((34, 20), (34, 40))) is None  # a rim of less than 12 pixels
    assert split(place.objects(), path((5, 5), (5, 90))) is None
    assert split(place.objects(), path((48, 30))) is None


def test_a_piece_without_high_ground_stays_an_object_beside_a_neighbour() -> None:
    place = two_discs(gap=0)  # touching, each with a ridge of its own
    there = place.objects()
    assert there.ids.max() == 2
    edit = split(there, path((30, 37), (66, 37)))  # cuts the end off that touches the other disc
    assert edit is not None
    place.apply(edit)
    ids = place.objects().ids
    assert ids.max() == 3
    assert len({ids[48, 30], ids[48, 41], ids[48, 58]}) == 3


@pytest.mark.parametrize("gap", [0, 1, 6])
def test_a_stroke_joins_what_it_touches(gap: int) -> None:
    place = two_discs(gap=gap)
    there = place.objects()
    assert there.ids.max() == 2
    edit = merge(there, path((48, 25), (50, 45), (47, 66)))
    assert edit is not None
    place.apply(edit)
    assert place.objects().ids.max() == 1
    assert merge(place.objects(), path((48, 25), (48, 60))) is None  # already one
    place.ridges = np.random.default_rng(0).random(place.ridges.shape).astype(np.float32)
    after = place.objects()  # whatever the next model says
    assert after.ids[48, 25] == after.ids[48, 62 + gap]

    again = split(place.objects(), path((20, 45), (76, 45)))
    assert again is not None
    place.apply(again)
    after = place.objects()
    assert after.ids[48, 25] != after.ids[48, 62 + gap]


def test_a_joined_object_has_one_class_that_of_its_beginning() -> None:
    place = two_discs(gap=4)
    place.codes = np.where((np.arange(SIDE) > 46)[None] & (place.codes == 2), np.uint8(4), place.codes)
    edit = merge(place.objects(), path((48, 62), (48, 25)))
    assert edit is not None
    place.apply(edit)
    assert set(np.unique(classes_of(place.codes))) == {0, 3}


def test_a_click_deletes_one_object() -> None:
    place = two_discs(gap=0)
    there = place.objects()
    edit = delete(there, path((48, 30)))
    assert edit is not None
    place.apply(edit)
    after = place.objects()
    assert after.ids.max() == 1
    np.testing.assert_array_equal(after.ids > 0, there.ids == there.ids[48, 58])
    assert delete(after, path((48, 30))) is None


def circle(y: float, x: float, radius: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 40)
    return np.stack([y + radius * np.sin(angle), x + radius * np.cos(angle)], axis=1)


def test_an_outline_takes_the_place_of_what_it_covers() -> None:
    place = two_discs(gap=0, label=3)
    edit = redraw(place.objects(), circle(46, 33, 16), label=1)
    assert edit is not None
    assert edit.done == "Redrawn."
    place.apply(edit)
    after = place.objects()
    assert after.ids.max() == 2
    assert after.classes[46, 33] == 3  # of the object that was there
    outside = np.hypot(*(np.mgrid[:SIDE, :SIDE] - np.array([46, 33])[:, None, None]))
    assert (after.classes[outside < 15] == 3).all()
    assert after.ids[48, 33] != after.ids[48, 60]
    apart = (outside > 17) & (outside < 17.5)
    assert not after.classes[apart & (np.arange(SIDE) < 45)[None]].any()

    place = two_discs(gap=0)
    edit = redraw(place.objects(), circle(15, 15, 6), label=2)
    assert edit is not None
    assert edit.done == "Drawn."
    place.apply(edit)
    assert place.objects().classes[15, 15] == 2
    assert redraw(place.objects(), path((3, 3), (3, 9)), label=2) is None


def test_an_outline_holds_what_the_model_sees_as_two() -> None:
    place = two_discs(gap=0)
    edit = redraw(place.objects(), circle(48, 44, 31), label=1)
    assert edit is not None
    place.apply(edit)
    assert place.objects().ids.max() == 1


@settings(max_examples=60, deadline=None)
@given(
    arrays(bool, (24, 24)),
    arrays(np.float32, (24, 24), elements=st.floats(0, 1, width=32)),
    arrays(bool, (24, 24), elements=st.sampled_from([False] * 9 + [True])),
)
def test_what_is_joined_and_touches_is_one_object_and_no_other(
    foreground: np.ndarray, core: np.ndarray, joined: np.ndarray
) -> None:
    ids = label_instances(foreground, core, joined=joined)
    parts, count = ndimage.label(foreground & joined, np.ones((3, 3)))
    numbers = [np.unique(ids[parts == part]) for part in range(1, count + 1)]
    assert all(len(found) == 1 and found[0] > 0 for found in numbers)
    assert len({int(found[0]) for found in numbers}) == count
    np.testing.assert_array_equal(
        label_instances(foreground, core, joined=np.zeros_like(joined)),
        label_instances(foreground, core),
    )


def test_joined_pixels_are_joined_in_coarser_views_and_take_no_votes() -> None:
    plain, joined, other = encode([[1]])[0, 0], encode([[1]], joined=True)[0, 0], encode([[2]])[0, 0]
    seen = halved(np.array([[plain, other, joined, joined], [joined, other, 0, other]], np.uint8))
    np.testing.assert_array_equal(seen, [[joined, joined]])
    seen = halved(np.array([[plain, plain, joined, other], [plain, joined, other, 0]], np.uint8))
    np.testing.assert_array_equal(seen, [[joined, other]])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2),
    st.floats(0.7, 7.9),
    st.tuples(st.floats(20, 76), st.floats(20, 76)),
    st.floats(0, np.pi),
)
def test_a_line_cuts_for_the_model_too_at_any_magnification(
    layer: int, scale: float, middle: tuple[float, float], angle: float
) -> None:
    drawn = np.full((SIDE, SIDE), 2, np.uint8)
    place = Place(drawn, np.ones((SIDE << layer,) * 2, np.float32), layer=layer, scale=scale)
    way = 150 * np.array([np.sin(angle), np.cos(angle)])
    edit = split(place.objects(), np.stack([middle - way, middle, middle + way]))
    if edit is None:  # a corner
        return
    place.apply(edit)
    ids, model = place.objects().ids, place.seen_by_model()
    assert ids.max() == 2
    parts, _ = ndimage.label(classes_of(model) > 0)
    assert (np.bincount(parts.ravel())[1:] >= 4).sum() >= 2
    assert label_instances(parts > 0, np.ones(parts.shape), joined=is_joined(model)).max() >= 2


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2),
    st.floats(0.7, 7.9),
    st.tuples(st.floats(35, 60), st.floats(35, 60)),
    st.floats(18, 30),
)
def test_an_outline_stays_apart_for_the_model_too_at_any_magnification(
    layer: int, scale: float, middle: tuple[float, float], radius: float
) -> None:
    drawn = np.full((SIDE, SIDE), 2, np.uint8)
    place = Place(drawn, np.ones((SIDE << layer,) * 2, np.float32), layer=layer, scale=scale)
    edit = redraw(place.objects(), circle(*middle, radius), label=2)
    assert edit is not None
    place.apply(edit)
    model = place.seen_by_model()
    parts, _ = ndimage.label(classes_of(model) > 0)
    held = is_joined(model)
    assert held.any()
    (number,) = np.unique(parts[held])
    assert number not in {parts[0, 0], parts[-1, -1], parts[0, -1], parts[-1, 0]}


@pytest.fixture(scope="module")
def nuclei(data_dir: Path) -> np.ndarray:
    files = sorted((data_dir / "monuseg" / "instances").glob("*.png"))
    if not files:
        pytest.skip("no MoNuSeg instance maps in the data folder")
    return np.asarray(Image.open(files[0])).astype(np.int32)[:512:2, :512:2]


def test_gestures_on_nuclei(nuclei: np.ndarray) -> None:
    """Every nucleus in turn: cut across, joined again, deleted, redrawn; the others keep their number."""
    ridges = core_target(nuclei)
    boxes = ndimage.find_objects(nuclei)
    done = dict.fromkeys(("split", "merge", "delete", "redraw"), 0)
    tried = 0
    for number, box in enumerate(boxes[:30], start=1):
        mine = nuclei == number
        if box is None or mine.sum() < 60 or min(box[0].start, box[1].start) < 4:
            continue
        place = Place(encode((nuclei > 0).astype(np.uint8)), ridges)
        there = place.objects()
        y, x = (round(float(c)) for c in ndimage.center_of_mass(mine))
        if not mine[y, x] or np.bincount(there.ids[mine]).max() < 0.9 * (there.ids == there.ids[y, x]).sum():
            continue  # what the watershed makes of it is another object
        tried += 1
        count = int(there.ids.max())
        height = box[0].stop - box[0].start
        edit = split(there, path((y - height, x), (y + height, x)))
        assert edit is not None
        place.apply(edit)
        left, right = place.objects().ids[y, x - 2], place.objects().ids[y, x + 2]
        done["split"] += left != right and place.objects().ids.max() > count
        edit = merge(place.objects(), path((y, x - 2), (y, x + 2)))
        if edit is not None:
            place.apply(edit)
            done["merge"] += place.objects().ids[y, x - 2] == place.objects().ids[y, x + 2]
        edit = delete(place.objects(), path((y, x - 2)))
        assert edit is not None
        place.apply(edit)
        done["delete"] += not place.objects().ids[y, x]
        edit = redraw(place.objects(), circle(y, x, 6), label=1)
        assert edit is not None
        place.apply(edit)
        inside = place.objects().ids[y - 3 : y + 4, x - 3 : x + 4]
        done["redraw"] += len(np.unique(inside)) == 1 and inside[0, 0] > 0
    assert tried >= 10
    assert done["merge"] == done["delete"] == done["redraw"] == tried
    assert done["split"] >= 0.95 * tried
