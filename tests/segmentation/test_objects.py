"""One number for every object of a slide, however it was cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.draw import disk

from napari_genselfdiff.events import CancelToken, Finished, Progress, TileDone
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation import objects, store
from napari_genselfdiff.segmentation.instances import core_target, label_instances, separation
from napari_genselfdiff.segmentation.objects import number_cells
from napari_genselfdiff.segmentation.store import STEP, PredictionStore

SIDE = 128
SHAPE = (410, 530)
WHOLE = Region(0, 0, *SHAPE)
Ids = NDArray[np.int64]


@pytest.fixture(autouse=True)
def small_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (objects, store):
        monkeypatch.setattr(module, "CELL", SIDE)
    monkeypatch.setattr(objects, "REACH", 40)


def nuclei_on_every_seam() -> Ids:
    """Touching pairs of nuclei across, and singles on, all borders and corners of cells."""
    truth = np.zeros(SHAPE, np.int64)
    number = 0
    for y in range(0, SHAPE[0], SIDE // 4):
        for x in range(0, SHAPE[1], SIDE // 4):
            if y % SIDE and x % SIDE:
                continue
            for dy, dx in ((0, -7), (1, 7)):  # two that touch, one above the other by a pixel
                number += 1
                rows, columns = disk((y + dy, x + dx), 8, shape=SHAPE)
                free = truth[rows, columns] == 0
                truth[rows[free], columns[free]] = number
    return truth


def predicted(folder: Path, truth: Ids, boxes: list[Region] | None = None) -> PredictionStore:
    kept = PredictionStore(folder, SHAPE, 1.0)
    predict(kept, truth, boxes or cells(kept))
    return kept


def predict(kept: PredictionStore, truth: Ids, boxes: list[Region]) -> None:
    core = (core_target(truth) * 255).astype(np.uint8)
    for box in boxes:
        part = np.s_[box.y : box.bottom, box.x : box.right]
        labels = (truth[part] > 0).astype(np.uint8)
        kept.write_tile(
            TileDone((0, 0), labels, np.full(labels.shape, 255, np.uint8), core[part]), (box.y, box.x)
        )
        row, column = box.y // SIDE, box.x // SIDE
        if kept.cell(row, column) == box:
            kept.finish(row, column)


def cells(kept: PredictionStore) -> list[Region]:
    rows, columns = -(-SHAPE[0] // SIDE), -(-SHAPE[1] // SIDE)
    return [kept.cell(row, column) for row in range(rows) for column in range(columns)]


def number(kept: PredictionStore, region: Region = WHOLE, area: float | None = 200.0) -> int:
    *_, last = number_cells(kept, region, object_area=area)
    assert isinstance(last, Finished)
    return int(last.result)


def uncut(kept: PredictionStore) -> Ids:
    """What comes of labelling the whole slide at once."""
    ridges = (kept.core(WHOLE) + np.float32(STEP / 2)) / 255
    return label_instances(kept.labels(WHOLE) > 1, ridges, separation(200.0)).astype(np.int64)


def assert_one_number_each(found: Ids, whole: Ids) -> None:
    np.testing.assert_array_equal(found > 0, whole > 0)
    both = found > 0
    pairs, counts = np.unique(np.stack([whole[both], found[both]]), axis=1, return_counts=True)
    # The watershed may give a pixel between two nuclei to the other one.
    pairs = pairs[:, counts > 3]
    assert len(np.unique(pairs[0])) == pairs.shape[1], "an object has two numbers"
    assert len(np.unique(pairs[1])) == pairs.shape[1], "two objects have one number"


def test_nuclei_on_every_seam_have_one_number(tmp_path: Path) -> None:
    truth = nuclei_on_every_seam()
    kept = predicted(tmp_path / "p", truth)
    count = number(kept)
    whole = uncut(kept)
    assert whole.max() > 0.9 * truth.max()
    assert count == whole.max()
    assert_one_number_each(kept.objects(WHOLE), whole)


def test_the_order_of_the_cells_does_not_matter(tmp_path: Path) -> None:
    truth = nuclei_on_every_seam()
    kept = predicted(tmp_path / "a", truth)
    number(kept)
    shuffled = predicted(tmp_path / "b", truth)
    for index in np.random.default_rng(0).permutation(len(cells(shuffled))):
        number(shuffled, cells(shuffled)[index])
    assert_one_number_each(shuffled.objects(WHOLE), kept.objects(WHOLE))


def test_an_object_larger_than_what_a_cell_sees_has_one_number(tmp_path: Path) -> None:
    truth = np.zeros(SHAPE, np.int64)
    truth[20:390, 30:60] = truth[20:50, 30:500] = truth[360:390, 30:500] = 1  # an arch over all cells
    truth[200:220, 300:500] = 2
    kept = PredictionStore(tmp_path / "p", SHAPE, 1.0)
    for box in cells(kept):  # a model without a map of cores
        labels = (truth[box.y : box.bottom, box.x : box.right] > 0).astype(np.uint8)
        kept.write_tile(TileDone((0, 0), labels, np.full(labels.shape, 255, np.uint8)), (box.y, box.x))
        kept.finish(box.y // SIDE, box.x // SIDE)
    assert number(kept, area=None) == 2
    found = kept.objects(WHOLE)
    assert len(np.unique(found[truth == 1])) == 1
    assert len(np.unique(found[truth == 2])) == 1
    # and it is still one when the store is opened again
    np.testing.assert_array_equal(PredictionStore(tmp_path / "p", SHAPE, 1.0).objects(WHOLE), found)


def test_what_is_predicted_later_joins_in(tmp_path: Path) -> None:
    truth = nuclei_on_every_seam()
    kept = PredictionStore(tmp_path / "p", SHAPE, 1.0)
    parts = cells(kept)
    predict(kept, truth, [*parts[::2], Region(0, SIDE, 60, 60)])  # every second cell, and a part of another
    number(kept)
    predict(kept, truth, parts)
    number(kept)
    assert_one_number_each(kept.objects(WHOLE), uncut(kept))


def test_numbered_cells_are_not_numbered_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = predicted(tmp_path / "p", nuclei_on_every_seam())
    count = number(kept)

    def never(*_: object) -> None:
        raise AssertionError("numbered again")

    monkeypatch.setattr(objects, "label_instances", never)
    assert number(PredictionStore(tmp_path / "p", SHAPE, 1.0)) == count


def test_numbering_stops_between_cells_and_goes_on(tmp_path: Path) -> None:
    truth = nuclei_on_every_seam()
    kept, cancel = predicted(tmp_path / "p", truth), CancelToken()
    for event in number_cells(kept, WHOLE, object_area=200.0, cancel=cancel):
        if isinstance(event, Progress) and event.done == 5:
            cancel.cancel()
    assert isinstance(event, Finished)
    assert event.cancelled
    assert not kept.objects(cells(kept)[-1]).any()
    number(kept)
    assert_one_number_each(kept.objects(WHOLE), uncut(kept))
