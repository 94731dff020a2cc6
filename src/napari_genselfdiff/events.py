"""Frozen events of long work, and the token that cancels it.

Long work is a generator of these events. The command line prints them, the widgets draw them, tests iterate
over them; nothing else in the code knows about threads.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_genselfdiff.segmentation.network import Segmenter


class CancelToken:
    """A flag that asks long work to stop; honoured within one step.

    Safe to set from any thread.
    """

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask the work to stop."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether a stop was asked for."""
        return self._event.is_set()


@dataclass(frozen=True)
class Progress:
    """How far the work is.

    Attributes
    ----------
    done, total : float
        In the unit of the work (tiles, steps or seconds); ``total`` is 0 when it is not known.
    message : str
        What is being done, in plain words.
    seconds_left : float or None
        Estimated time to go.
    """

    done: float
    total: float
    message: str = ""
    seconds_left: float | None = None


@dataclass(frozen=True)
class LossPoint:
    """The training loss at one step (averaged since the previous point)."""

    step: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class ScorePoint:
    """The score of the model in training on what is held out from it.

    Attributes
    ----------
    step : int
        0 for the model that the training began with.
    score : float
        Dice, 0 to 1.
    seconds : float
    """

    step: int
    score: float
    seconds: float


@dataclass(frozen=True)
class Snapshot:
    """A model in training, good enough to be looked at.

    Attributes
    ----------
    segmenter : Segmenter
        A copy that further training does not change.
    step : int
    seconds : float
    """

    segmenter: Segmenter
    step: int
    seconds: float


@dataclass(frozen=True)
class TileDone:
    """One tile of a segmentation.

    Attributes
    ----------
    origin : tuple of int
        ``(y, x)`` of the tile's first pixel in the level that was asked for, relative to the region.
    labels : ndarray of uint8, shape (height, width)
        Class of every pixel.
    confidence : ndarray of uint8, shape (height, width)
        Probability of that class, 0 to 255.
    core : ndarray of uint8, shape (height, width), or None
        Probability of an object's core, 0 to 255, of models that know instances.
    """

    origin: tuple[int, int]
    labels: NDArray[Any]
    confidence: NDArray[Any]
    core: NDArray[Any] | None = None


@dataclass(frozen=True)
class Finished:
    """The last event of any long work.

    Attributes
    ----------
    result : object
        What was made; its type is documented by the generator.
    message : str
        The outcome in plain words.
    cancelled : bool
        Whether the work stopped early because it was asked to; what was done so far is in ``result``.
    """

    result: Any = None
    message: str = ""
    cancelled: bool = False


Event = Progress | LossPoint | ScorePoint | Snapshot | TileDone | Finished


@dataclass
class Clock:
    """Estimates the time left of work that counts its steps."""

    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Seconds since the clock was made."""
        return time.monotonic() - self.started

    def left(self, done: float, total: float) -> float | None:
        """Seconds left when ``done`` of ``total`` took the time so far; None before the first step."""
        return self.seconds * (total - done) / done if done > 0 and total > 0 else None
