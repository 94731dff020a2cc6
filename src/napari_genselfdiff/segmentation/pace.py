"""Which device, and how much at once: tried out on the work itself, and less when memory runs out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.errors import OutOfMemoryError
from napari_genselfdiff.segmentation.store import CELL

LEAST_SIDE = 128
"""Windows are not halved below this; their margin alone is more than twice as wide."""
TRIALS = 2
"""Cells on which each way is timed; the first one warms caches and drivers up."""
WORTH_TRYING = 32
"""Shorter work is done before a calibration pays."""


@dataclass(frozen=True)
class Way:
    """A device, and the side in model pixels of the windows that are predicted at once."""

    compute: Compute
    side: int


class Pace:
    """Chooses the fastest way for the cells of a slide.

    Whichever way a cell goes, its prediction is the same to rounding, so the first cells of longer work serve
    for the calibration. What was found is kept for later work.

    Parameters
    ----------
    computes : sequence of Compute
        The preferred one first.
    calibrate : bool
        Whether to try the ways out; otherwise the preferred one is taken as long as memory suffices.
    """

    def __init__(self, computes: Sequence[Compute], *, calibrate: bool = True) -> None:
        self._calibrate = calibrate
        self._ways = [Way(compute, side) for compute in computes for side in (CELL, CELL // 2)]
        self._seconds: dict[Way, list[float]] = {way: [] for way in self._ways}

    @property
    def way(self) -> Way:
        """The fastest way as far as is known; the preferred one before anything is."""
        tried = [way for way in self._ways if len(self._seconds[way]) >= TRIALS]
        return min(tried, key=lambda way: min(self._seconds[way]), default=self._ways[0])

    def next(self, cells_left: int) -> Way:
        """How to predict the next cell, when so many are to come."""
        for way in self._ways if self._calibrate and cells_left >= WORTH_TRYING else ():
            if len(self._seconds[way]) < TRIALS:
                return way
        return self.way

    def took(self, way: Way, seconds: float) -> None:
        """Say how long a whole cell took."""
        if way in self._seconds:
            self._seconds[way].append(seconds)
            del self._seconds[way][:-8]

    def ran_out(self, way: Way) -> str:
        """Leave a way that needed more memory than there is; windows of half its side take its place.

        Returns
        -------
        str
            What was done, in plain words.

        Raises
        ------
        OutOfMemoryError
            If no way is left.
        """
        self._ways = [known for known in self._ways if known.compute != way.compute or known.side < way.side]
        half = Way(way.compute, way.side // 2)
        if half.side >= LEAST_SIDE and half not in self._ways:
            self._ways.insert(0, half)
            self._seconds.setdefault(half, [])
        if not self._ways:
            raise OutOfMemoryError("the device ran out of memory: choose the CPU or close other programs")
        if self.way.compute != way.compute:
            return f"{way.compute.device} ran out of memory; going on with {self.way.compute.device}"
        return "out of memory; going on with smaller tiles"
