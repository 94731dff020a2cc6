"""Which device, and how much at once."""

from __future__ import annotations

import pytest

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.errors import OutOfMemoryError
from napari_genselfdiff.segmentation.pace import LEAST_SIDE, TRIALS, WORTH_TRYING, Pace, Way
from napari_genselfdiff.segmentation.store import CELL

GPU, CPU = Compute("cuda", "bfloat16", 2), Compute("cpu", None, 2)


def calibrated(pace: Pace, speed: dict[tuple[str, int], float]) -> list[Way]:
    """Work through many cells; a cell takes as long as ``speed`` says."""
    ways = []
    for left in range(WORTH_TRYING + 20, WORTH_TRYING, -1):
        way = pace.next(left)
        pace.took(way, speed[way.compute.device, way.side])
        ways.append(way)
    return ways


def test_longer_work_tries_every_way_and_goes_on_with_the_fastest() -> None:
    speed = {("cuda", 1024): 0.4, ("cuda", 512): 0.1, ("cpu", 1024): 0.7, ("cpu", 512): 0.9}
    ways = calibrated(Pace([GPU, CPU]), speed)
    assert {(way.compute.device, way.side) for way in ways[: 4 * TRIALS]} == set(speed)
    assert set(ways[4 * TRIALS :]) == {Way(GPU, 512)}


def test_a_slow_first_cell_does_not_decide() -> None:
    pace = Pace([CPU])
    for seconds in (9.0, 0.7, 0.9, 0.9):  # the first one warms up
        pace.took(pace.next(WORTH_TRYING), seconds)
    assert pace.way == Way(CPU, 1024)


def test_short_work_tries_nothing_and_uses_what_is_known() -> None:
    pace = Pace([GPU, CPU])
    assert pace.next(WORTH_TRYING - 1) == Way(GPU, 1024)
    calibrated(pace, {("cuda", 1024): 0.9, ("cuda", 512): 0.9, ("cpu", 1024): 0.7, ("cpu", 512): 0.3})
    assert pace.next(1) == Way(CPU, 512)


def test_running_out_of_memory_halves_the_side_then_changes_the_device_then_says_so() -> None:
    pace, said = Pace([GPU, CPU]), []
    sides = [1024 // 2**k for k in range(10) if 1024 // 2**k >= LEAST_SIDE]
    for _ in range(2 * len(sides) - 1):
        way = pace.next(1)
        said.append((way.compute.device, way.side, pace.ran_out(way)))
    assert [(device, side) for device, side, _ in said] == [
        *[("cuda", side) for side in sides],
        *[("cpu", side) for side in sides[:-1]],
    ]
    assert said[0][2] == "out of memory; going on with smaller tiles"
    assert said[len(sides) - 1][2] == "cuda ran out of memory; going on with cpu"
    with pytest.raises(OutOfMemoryError, match="close other programs"):
        pace.ran_out(Way(CPU, LEAST_SIDE))


def test_without_calibration_the_preferred_way_is_taken_until_memory_runs_out() -> None:
    pace = Pace([CPU], calibrate=False)
    for _ in range(6):
        assert pace.next(1000) == Way(CPU, CELL)
        pace.took(Way(CPU, CELL), 9.0)
    pace.ran_out(Way(CPU, CELL))
    assert pace.next(1000) == Way(CPU, CELL // 2)
