"""Where to correct next: the most useful window that nobody has looked at, and why it is useful.

It is one where the model is unsure; windows near a place that was seen before, or that look like one, count
less. Uncertainty is read from the store of predictions (`uncertainty`), looks from small pictures. What was
tried is in ``docs/benchmarks/circle.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.events import CancelToken, Event, Finished, Progress
from napari_genselfdiff.finetuning.reasons import reason_for
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.store import PredictionStore
from napari_genselfdiff.segmentation.uncertainty import BLOCK, UncertaintyMap, uncertainty_map

if TYPE_CHECKING:
    from napari_genselfdiff.slides import Slide

WINDOW = 256
"""Side of a window in model pixels."""
CANDIDATES = 240
"""Windows whose look is compared: where there are more, by chance, uncertain ones more often."""
PICTURE = 32
"""Side in pixels of the small pictures that tell how a window looks."""
REMEMBERED = 60
"""Places seen before, the last ones, that a candidate is compared with."""
SEEN = 0.25
"""Share of a window that was corrected, accepted or visited, from which it counts as seen."""
LEAST_PREDICTED = 0.5
"""Share of a window that is segmented."""
NEAR = 3.0
"""A window nearer than so many widths to a place seen before is less useful: it shows the same again."""
STOPPED = "stopped"
UNLIKE = 0.75
"""Novelty from which the reason says that a window is unlike what was corrected."""

Looks = dict["Place", NDArray[np.float32]]


@dataclass(frozen=True)
class Acquisition:
    """What makes a window less useful than the model is unsure of it; ``benchmarks/suggestions.py`` compares.

    Attributes
    ----------
    nearness : float
        How much a window right beside a place seen before loses, 0 to 1.
    likeness : float
        How much one loses that looks more like a place seen before than any other does.
    """

    nearness: float = 0.5
    likeness: float = 0.5


@dataclass(frozen=True)
class SegmentedSlide:
    """One slide of a project with what is known about it.

    Attributes
    ----------
    slide : Slide
    store : PredictionStore
        What the model in use said.
    classes : tuple of str
        Names of its classes, the background first.
    corrected : sequence of Region
        Where a person drew or accepted something, see `Annotations.supervised_boxes`; the last at the end.
    """

    slide: Slide
    store: PredictionStore
    classes: tuple[str, ...]
    corrected: Sequence[Region] = ()


@dataclass(frozen=True)
class Place:
    """A region of one slide of the project, in level-0 pixels."""

    slide: int
    region: Region


@dataclass(frozen=True)
class Suggestion:
    """The window to correct next.

    Attributes
    ----------
    slide : int
        Its place in the list of slides.
    region : Region
        In level-0 pixels.
    score : float
        Mean uncertainty of the window, 0 (sure) to 1.
    novelty : float
        Share of the other windows that look more like a place seen before than this one does, 0 to 1.
    reason : str
        Why, in plain words.
    """

    slide: int
    region: Region
    score: float
    novelty: float
    reason: str

    @property
    def place(self) -> Place:
        """What to add to the places visited."""
        return Place(self.slide, self.region)


@dataclass(frozen=True)
class _Candidate:
    slide: int
    region: Region
    score: float


def next_place(
    slides: Sequence[SegmentedSlide],
    visited: Sequence[Place] = (),
    *,
    window: int = WINDOW,
    acquisition: Acquisition | None = None,
    looks: Looks | None = None,
    cancel: CancelToken | None = None,
) -> Iterator[Event]:
    """Find the most useful window that was not seen yet.

    Parameters
    ----------
    slides : sequence of SegmentedSlide
        Those of the project of which something was segmented.
    visited : sequence of Place
        Windows that were suggested or looked at before, the last one at the end.
    window : int
        Side of the window in model pixels.
    acquisition : Acquisition, optional
    looks : dict, optional
        How places look, remembered from call to call: read once, and added to here.
    cancel : CancelToken, optional

    Yields
    ------
    Event
        `Progress`, then `Finished` with a `Suggestion`, or None where everything segmented was seen (the
        message says so) or it was cancelled.
    """
    cancel, wanted = cancel or CancelToken(), acquisition or Acquisition()
    looks = {} if looks is None else looks
    seen = _seen(slides, visited)
    found: list[_Candidate] = []
    for index, known in enumerate(slides):
        mapped: UncertaintyMap | None = None
        for event in uncertainty_map(known.store, sample=len(visited), cancel=cancel):
            if isinstance(event, Finished):
                mapped = event.result
            else:
                yield event
        if cancel.cancelled or mapped is None:
            yield Finished(None, STOPPED, cancelled=True)
            return
        own = [place.region for place in seen if place.slide == index]
        found += _candidates(index, known.slide.shape, mapped, window, own)
    if not found:
        yield Finished(None, "all that was segmented has been seen: segment more of the slide")
        return
    before = seen[-REMEMBERED:]
    places: list[Place] = []
    if before:  # else there is nothing that a window could look like
        found = _drawn(found, seed=len(seen))
        places = [*(Place(candidate.slide, candidate.region) for candidate in found), *before]
    for done, place in enumerate(places):
        if cancel.cancelled:
            yield Finished(None, STOPPED, cancelled=True)
            return
        if place not in looks:
            yield Progress(done, len(places), "comparing how places look")
            looks[place] = look_of(slides[place.slide].slide, place.region)
    worth, novelty = _worth(found, [looks[place] for place in places], before, wanted)
    first = int(np.argmax(worth))
    chosen, new = found[first], float(novelty[first])
    known = slides[chosen.slide]
    unlike = bool(before) and len(found) > 1 and new >= UNLIKE
    reason = reason_for(known.store, chosen.region, known.classes, chosen.score, unlike=unlike)
    yield Finished(Suggestion(chosen.slide, chosen.region, chosen.score, new, reason), reason)


def _drawn(found: list[_Candidate], *, seed: int) -> list[_Candidate]:
    """At most `CANDIDATES`, each as likely as the model is unsure of it."""
    if len(found) <= CANDIDATES:
        return found
    chances = np.array([candidate.score for candidate in found]) + 1e-6
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(found), CANDIDATES, replace=False, p=chances / chances.sum())
    return [found[place] for place in np.sort(drawn)]


def _worth(
    found: Sequence[_Candidate],
    looks: Sequence[NDArray[np.float32]],
    before: Sequence[Place],
    wanted: Acquisition,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How useful each candidate is, and its novelty; ``looks`` are the candidates' and then those seen."""
    unsure = np.array([candidate.score for candidate in found]) + 1e-6
    if not before:
        return unsure, np.ones(len(found))
    from scipy.spatial.distance import cdist

    known = np.stack(looks)
    known = (known - known.mean(axis=0)) / (known.std(axis=0) + 1e-3)
    closest = cdist(known[: len(found)], known[len(found) :]).min(axis=1)
    novelty = np.array([float((closest < own).mean()) for own in closest])
    near = np.array([_nearness(candidate, before) for candidate in found])
    return unsure * (1 - wanted.nearness * near) * (1 - wanted.likeness * (1 - novelty)), novelty


def _seen(slides: Sequence[SegmentedSlide], visited: Sequence[Place]) -> list[Place]:
    """Places that a person has looked at, the last ones at the end."""
    corrected = [Place(i, region) for i, known in enumerate(slides) for region in known.corrected]
    return [*corrected, *visited]


def _candidates(
    index: int, shape: tuple[int, int], unsure: UncertaintyMap, window: int, seen: Sequence[Region]
) -> list[_Candidate]:
    """Windows of one slide on a lattice of half their side, none that was seen."""
    values = unsure.values
    sides = [min(length, max(1, round(window / BLOCK))) for length in values.shape]
    steps = [max(1, side // 2) for side in sides]
    predicted = np.isfinite(values)
    sums, counts = (_box_sums(part, sides) for part in (np.where(predicted, values, 0), predicted))
    fits = np.argwhere(counts[:: steps[0], :: steps[1]] >= LEAST_PREDICTED * math.prod(sides)) * steps
    found = []
    for row, column in fits.tolist():
        region = Region(
            round(row * unsure.scale),
            round(column * unsure.scale),
            round(sides[0] * unsure.scale),
            round(sides[1] * unsure.scale),
        ).clipped(*shape)
        if region is not None:
            found.append(_Candidate(index, region, float(sums[row, column] / counts[row, column])))
    return [candidate for candidate in found if not _was_seen(candidate.region, seen)]


def _box_sums(values: NDArray[np.generic], sides: Sequence[int]) -> NDArray[np.float64]:
    """Sum of the box of these sides that begins at each place where one fits."""
    total = np.pad(values.astype(np.float64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    height, width = sides
    sums: NDArray[np.float64] = (
        total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    )
    return sums


def _was_seen(region: Region, seen: Sequence[Region]) -> bool:
    parts = (region.intersection(other) for other in seen)
    area = sum(part.height * part.width for part in parts if part is not None)
    return area >= SEEN * region.height * region.width


def _nearness(candidate: _Candidate, seen: Sequence[Place]) -> float:
    """1 beside a place seen before, falling to 0 at `NEAR` widths."""
    y, x = candidate.region.centre
    reach = NEAR * max(candidate.region.height, candidate.region.width)
    apart = (
        math.dist((y, x), place.region.centre) / reach for place in seen if place.slide == candidate.slide
    )
    return max(0.0, 1 - min(apart, default=1.0))


def look_of(slide: Slide, region: Region) -> NDArray[np.float32]:
    """How a place looks: mean, spread and tails of its colours, in optical density, of a small picture."""
    scale = max(1.0, max(region.height, region.width) / PICTURE)
    y, x = int(region.y / scale), int(region.x / scale)
    height, width = max(1, int(region.height / scale)), max(1, int(region.width / scale))
    level = slide.best_level(scale)
    step = slide.downsamples[level]
    # Every n-th pixel of the next finer level: nothing is resampled for a summary of colours.
    stride = max(1, round(scale / step))
    rgb = slide.read(
        round(y * scale / step), round(x * scale / step), height * stride, width * stride, level=level
    )[::stride, ::stride]
    density = -np.log10((rgb.reshape(-1, 3).astype(np.float32) + 1) / 256)
    low, high = np.percentile(density, (10, 90), axis=0)
    return np.concatenate([density.mean(axis=0), density.std(axis=0), low, high]).astype(np.float32)
