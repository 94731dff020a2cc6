"""Where to correct next, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from napari_genselfdiff.events import CancelToken, Finished, TileDone
from napari_genselfdiff.finetuning.suggestions import Looks, Place, SegmentedSlide, Suggestion, next_place
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.store import PredictionStore
from napari_genselfdiff.slides import slide_from_arrays

CLASSES = ("background", "tumour", "stroma")
SIDE, WINDOW = 1024, 128
SURE = 250


def segmented(
    folder: Path,
    unsure: Sequence[tuple[int, int, int]] = (),
    *,
    green: Sequence[tuple[int, int]] = (),
    scale: float = 1.0,
    corrected: Sequence[Region] = (),
) -> SegmentedSlide:
    """A slide whose windows at (row, column) have this confidence; some of them are green."""
    confidence = np.full((SIDE, SIDE), SURE, np.uint8)
    labels = np.zeros((SIDE, SIDE), np.uint8)
    rgb = np.full((SIDE, SIDE, 3), (200, 150, 190), np.uint8)
    for row, column, value in unsure:
        box = np.s_[row * WINDOW : (row + 1) * WINDOW, column * WINDOW : (column + 1) * WINDOW]
        confidence[box] = value
        labels[box] = 1
        labels[box][: WINDOW // 2] = 2
    for row, column in green:
        rgb[row * WINDOW : (row + 1) * WINDOW, column * WINDOW : (column + 1) * WINDOW] = (90, 180, 90)
    wide = rgb.repeat(round(scale), axis=0).repeat(round(scale), axis=1)
    slide = slide_from_arrays([wide], name=folder.name, mpp=0.5)
    store = PredictionStore(folder, slide.shape, scale)
    store.write_tile(TileDone((0, 0), labels, confidence), (0, 0))
    return SegmentedSlide(slide, store, CLASSES, corrected)


def suggested(
    slides: Sequence[SegmentedSlide], visited: Sequence[Place] = (), *, looks: Looks | None = None
) -> Suggestion:
    *_, last = next_place(slides, visited, window=WINDOW, looks=looks)
    assert isinstance(last, Finished)
    assert isinstance(last.result, Suggestion)
    return last.result


def test_the_least_sure_window_comes_first_in_level_0_pixels(tmp_path: Path) -> None:
    known = segmented(tmp_path / "a.zarr", [(2, 3, 150), (6, 1, 190)], scale=2.0)
    found = suggested([known])
    assert found.region == Region(2 * 256, 3 * 256, 256, 256)
    assert found.score == pytest.approx((255 - 150) / 255, abs=0.03)
    assert found.reason == "the model is undecided between tumour and stroma here"


def test_places_seen_before_are_not_suggested_again(tmp_path: Path) -> None:
    spots = [(1, 1, 150), (1, 6, 160), (6, 1, 170), (6, 6, 180)]
    known = segmented(tmp_path / "a.zarr", spots)
    visited: list[Place] = []
    for _ in range(4):
        visited.append(suggested([known], visited).place)
    corners = {(place.region.y // WINDOW, place.region.x // WINDOW) for place in visited}
    assert corners == {(1, 1), (1, 6), (6, 1), (6, 6)}


def test_nor_are_corrected_ones(tmp_path: Path) -> None:
    drawn = [Region(128, 128, 100, 90)]
    known = segmented(tmp_path / "a.zarr", [(1, 1, 150), (6, 6, 180)], corrected=drawn)
    assert suggested([known]).region.y == 6 * WINDOW


def test_a_window_that_looks_new_is_preferred_and_the_reason_says_so(tmp_path: Path) -> None:
    known = segmented(tmp_path / "a.zarr", [(1, 1, 150), (1, 6, 160), (6, 3, 165)], green=[(6, 3)])
    first = suggested([known])
    assert first.region.y == WINDOW
    assert "unlike" not in first.reason
    second = suggested([known], [first.place])
    assert second.region.intersection(Region(6 * WINDOW, 3 * WINDOW, WINDOW, WINDOW)) is not None
    assert second.reason.endswith("and it looks unlike the places that you corrected")


def test_nothing_is_read_where_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    known, looks = segmented(tmp_path / "a.zarr", [(1, 1, 150), (6, 6, 180)]), Looks()
    first = suggested([known], looks=looks)
    assert (first.region.y, looks) == (WINDOW, {})
    suggested([known], [first.place], looks=looks)
    assert first.place in looks


def test_where_the_model_is_sure_no_look_is_reason_enough(tmp_path: Path) -> None:
    known = segmented(tmp_path / "a.zarr", [(1, 1, 150), (6, 6, 180)], green=[(6, 1), (3, 3)])
    first = suggested([known])
    assert first.region.y == WINDOW
    second = suggested([known], [first.place])
    assert second.region.intersection(Region(6 * WINDOW, 6 * WINDOW, WINDOW, WINDOW)) is not None


def test_a_place_beside_one_seen_before_waits(tmp_path: Path) -> None:
    known = segmented(tmp_path / "a.zarr", [(1, 1, 150), (1, 2, 155), (6, 6, 165)])
    first = suggested([known])
    assert suggested([known], [first.place]).region.y == 6 * WINDOW


def test_all_slides_of_a_project_count(tmp_path: Path) -> None:
    slides = [segmented(tmp_path / "a.zarr", [(2, 2, 200)]), segmented(tmp_path / "b.zarr", [(4, 4, 140)])]
    first = suggested(slides)
    assert first.slide == 1
    assert suggested(slides, [first.place]).slide == 0


def test_outlines_are_named_where_they_are_what_is_uncertain(tmp_path: Path) -> None:
    known = segmented(tmp_path / "a.zarr")
    labels = np.zeros((WINDOW, WINDOW), np.uint8)
    labels[32:96, 32:96] = 1
    confidence = np.full((WINDOW, WINDOW), SURE, np.uint8)
    confidence[30:98, 30:98] = 140
    confidence[35:93, 35:93] = SURE
    known.store.write_tile(TileDone((0, 0), labels, confidence), (256, 256))
    found = suggested([known])
    assert found.reason == "many borders are uncertain here"
    assert found.region.intersection(Region(256, 256, WINDOW, WINDOW)) is not None


def test_a_sure_model_is_called_sure(tmp_path: Path) -> None:
    assert "sure nearly everywhere" in suggested([segmented(tmp_path / "a.zarr")]).reason


def test_when_all_was_seen_it_says_so(tmp_path: Path) -> None:
    known = segmented(tmp_path / "a.zarr", [(1, 1, 150)], corrected=[Region(0, 0, SIDE, SIDE)])
    *_, last = next_place([known], window=WINDOW)
    assert isinstance(last, Finished)
    assert last.result is None
    assert "segment more" in last.message


def test_it_stops_when_asked(tmp_path: Path) -> None:
    cancel = CancelToken()
    cancel.cancel()
    *_, last = next_place([segmented(tmp_path / "a.zarr")], cancel=cancel)
    assert isinstance(last, Finished)
    assert last.cancelled
