"""The simulated pathologist paints what a person would: few strokes, right ones, within the budget."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from napari_genselfdiff.geometry import Region

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from interactive_curves import first_above, resampled
from simulated_pathologist import SMALLEST, UNPREDICTED, Stroke, correct

WINDOW = Region(20, 30, 128, 128)


def glands() -> np.ndarray:
    """Round objects of several sizes."""
    yy, xx = np.mgrid[:200, :220]
    truth = np.zeros(yy.shape, np.uint8)
    for y, x, radius in ((60, 60, 25), (100, 120, 20), (130, 60, 12), (40, 120, 6)):
        truth[(yy - y) ** 2 + (xx - x) ** 2 <= radius**2] = 1
    return truth


def painted(strokes: list[Stroke], truth: np.ndarray) -> np.ndarray:
    return np.any([stroke.mask(truth) for stroke in strokes], axis=0)


@pytest.mark.parametrize("budget", [100, 1000, 3000])
def test_strokes_stay_in_window_budget_and_class(budget: int) -> None:
    truth = glands()
    nothing = np.full_like(truth, UNPREDICTED)
    strokes = correct(truth, nothing, np.zeros(truth.shape, bool), WINDOW, budget=budget)
    mask = painted(strokes, truth)
    assert budget - 8 * SMALLEST <= mask.sum() <= budget
    assert {stroke.label for stroke in strokes} == {0, 1}
    for stroke in strokes:
        ys, xs = np.array(stroke.points).T
        assert WINDOW.y <= ys.min()
        assert ys.max() < WINDOW.bottom
        assert WINDOW.x <= xs.min()
        assert xs.max() < WINDOW.right
        assert (truth[stroke.mask(truth)] == stroke.label).all()


def test_only_what_is_wrong_is_corrected_and_the_largest_first() -> None:
    truth = glands()
    predicted = truth.copy()
    predicted[35:86, 35:86] = 0  # the largest gland is missed
    predicted[88:93, 60:80] = 1  # and a little invented
    strokes = correct(truth, predicted, np.zeros(truth.shape, bool), WINDOW, budget=400)
    assert strokes[0].label == 1
    assert np.hypot(*(np.array(strokes[0].points) - (60, 60)).T).max() <= 25
    for stroke in strokes:
        y, x = stroke.points[len(stroke.points) // 2]
        assert truth[y, x] != predicted[y, x]


def test_a_right_window_and_thin_rims_are_left_alone() -> None:
    truth = glands()
    drawn = np.zeros(truth.shape, bool)
    assert correct(truth, truth, drawn, WINDOW, budget=1000) == []
    shifted = np.roll(truth, 1, axis=0)
    assert correct(truth, shifted, drawn, WINDOW, budget=1000) == []
    shifted[35:50, 100:115] = 1
    strokes = correct(truth, shifted, drawn, WINDOW, budget=1000)
    assert {stroke.label for stroke in strokes} == {0}
    assert all(35 <= y < 50 and 100 <= x < 115 for stroke in strokes for y, x in stroke.points)


def test_what_was_painted_is_not_painted_again() -> None:
    truth = glands()
    nothing = np.full_like(truth, UNPREDICTED)
    first = painted(correct(truth, nothing, np.zeros(truth.shape, bool), WINDOW, budget=800), truth)
    second = painted(correct(truth, nothing, first, WINDOW, budget=800), truth)
    assert second.any()
    assert (first & second).sum() < 0.1 * second.sum()


def test_the_round_that_reaches_a_goal() -> None:
    curves = np.array([[0.1, 0.5, 0.6], [0.1, 0.2, 0.3]])
    assert first_above(curves, np.array([0.5, 0.5])).tolist() == [2, 4]


def test_patients_are_drawn_with_all_their_images() -> None:
    values = np.array([[0.0, 0.0, 1.0]])
    means = resampled(["a", "a", "b"], values)
    assert set(np.round(means.ravel(), 3)) == {0.0, 0.333, 1.0}
