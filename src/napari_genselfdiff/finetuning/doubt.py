"""Corrections that everything else speaks against are left out of a round.

A window that was corrected wrongly, by a slip or in the wrong class, does more harm than ten right ones do
good. That the model in use says something else proves nothing: corrections are made where it is wrong. So a
second witness is heard, a light classifier that learns from the *other* corrections alone, on features of the
model in use. It has never seen the window, and it knows what the person who corrects means. Only what both
contradict is left out, and the user is told where it lies, and may insist. And only if both are good
witnesses: they have to agree with most of what was drawn. Measured in ``docs/benchmarks/circle.md``.

Only what was drawn as a whole is asked about. Strokes are made at errors, so they contradict.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from napari_genselfdiff.annotations.pyramid import hull
from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.frozen import Levels
from napari_genselfdiff.events import CancelToken, Event
from napari_genselfdiff.finetuning.corrections import Place
from napari_genselfdiff.finetuning.holdout import CELL
from napari_genselfdiff.finetuning.looking import looked_at
from napari_genselfdiff.finetuning.pixels import agreement, cross_fitted
from napari_genselfdiff.finetuning.preparation import Cut
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models.versions import Doubt
from napari_genselfdiff.segmentation.network import Segmenter

WHOLE = 0.5
"""Share of the box around what hangs together that is drawn, from which on it is drawn as a whole."""
SMALLEST = CELL * CELL
"""Model pixels that are drawn in it at least."""
OTHERS = 5
"""Other windows without which nobody can be contradicted."""
INFORMED = 0.4
"""Agreement below which a witness contradicts what was drawn."""
FOREGROUND, BACKGROUND = 0.6, 0.8
"""The same where one class alone was drawn: the share of it that the witness finds. That there is nothing is
easier said than what there is."""
RELIABLE = 0.5
"""Agreement of a witness with the median window, below which it is not heard."""
PART, PIXELS = 128, 1_500
"""Side in model pixels of the part that stands for a window, and how many of its pixels are asked about."""
TOUCHING = 4
"""Level-0 pixels between windows that are told as one."""
SEEN_AROUND = 16
"""Model pixels around a part that the features are taken with."""
MOST_PIXELS = 800_000
"""Model pixels that are looked at, which takes two seconds; of more windows, some are believed."""


@dataclass(frozen=True)
class Window:
    """What was drawn as a whole and hangs together.

    Attributes
    ----------
    place : int
        Number of the place.
    box : Region
        Around it, in model pixels of the place.
    drawn : ndarray of bool, shape (box.height, box.width)
    seen : Region
        What is looked at of the place.
    rows, columns : ndarray of int, shape (n,)
        Some of the drawn pixels by chance, in model pixels of the place.
    """

    place: int
    box: Region
    drawn: NDArray[np.bool_]
    seen: Region
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]

    def of(self, classes: NDArray[np.uint8]) -> NDArray[np.int16]:
        """What a map of the place has at these pixels."""
        return classes[self.rows, self.columns].astype(np.int16)


class Testimony:
    """What a witness says of one window.

    Parameters
    ----------
    said, drawn : ndarray of int, shape (n,)
        Classes of the same pixels.

    Attributes
    ----------
    agreement : float
        See `agreement`.
    contradicts : bool
        Whether it is too low.
    """

    def __init__(self, said: NDArray[np.integer], drawn: NDArray[np.integer]) -> None:
        classes = np.unique(drawn)
        limit = INFORMED if len(classes) > 1 else FOREGROUND if classes[0] else BACKGROUND
        self.agreement = agreement(said, drawn)
        self.contradicts = self.agreement < limit


def reliable(testimonies: Sequence[Testimony]) -> bool:
    """Whether a witness agrees with enough of what was drawn to be heard at all."""
    return bool(np.median([one.agreement for one in testimonies]) >= RELIABLE)


def believed(
    cut: Cut,
    segmenter: Segmenter,
    scales: Mapping[str, float],
    *,
    insisted: Sequence[Doubt] = (),
    compute: Compute,
    cancel: CancelToken,
) -> Generator[Event, None, tuple[Cut, list[Doubt]]]:
    """Leave out what both the model in use and the other corrections contradict.

    It is neither trained on nor judged by, as if nobody had drawn there.

    Parameters
    ----------
    cut : Cut
    segmenter : Segmenter
        The model in use, with which the places were read.
    scales : mapping of str to float
        Level-0 pixels a model pixel, of each source.
    insisted : sequence of Doubt
        Of which the user said that they are right; what lies mostly in one of them is not asked about.
    compute : Compute
    cancel : CancelToken

    Yields
    ------
    Event
        `Progress`.

    Returns
    -------
    cut : Cut
    doubts : list of Doubt
        What was left out: nothing where too little was drawn as a whole, the model in use or the other
        corrections agree with too little to be believed, memory is short, the network has to see whole
        tiles, or it was cancelled.

    Notes
    -----
    The second witness is asked twice: what was contradicted at first does not teach it any more.
    It learns from what is held out, too; nothing of it goes into the model.
    """
    windows = [window for n, place in enumerate(cut.places) for window in drawn_whole(n, place.drawn)]
    drawn = [window.of(cut.places[window.place].labels) for window in windows]
    doubts = [_doubt(cut.places[window.place], window.box, scales) for window in windows]
    first = [
        Testimony(window.of(cut.places[window.place].guess), known)
        for window, known in zip(windows, drawn, strict=True)
    ]
    suspects = [n for n, said in enumerate(first) if said.contradicts and not _covered(doubts[n], insisted)]
    compared = _some(windows, suspects) if suspects and reliable(first) else []
    if len(compared) <= OTHERS or not segmenter.spec.config.tile_independent:
        return cut, []
    features = yield from _features(cut.places, [windows[n] for n in compared], segmenter, compute, cancel)
    if features is None:
        return cut, []
    known, left_out = [drawn[n] for n in compared], list[int]()
    for _ in range(2):
        second = _crossed(features, known, [n not in left_out for n in compared])
        left_out = [n for n, said in zip(compared, second, strict=True) if said.contradicts and n in suspects]
    if not reliable(second):
        return cut, []
    places = list(cut.places)
    for n in left_out:
        places[windows[n].place] = _without(places[windows[n].place], windows[n])
    kept = [place for place in places if place.drawn.any()]
    return replace(cut, places=kept).settled(), _joined([doubts[n] for n in left_out])


def drawn_whole(number: int, drawn: NDArray[np.bool_]) -> list[Window]:
    """What was drawn as a whole in a place, not with strokes.

    Parameters
    ----------
    number : int
        Of the place.
    drawn : ndarray of bool, shape (height, width)
    """
    numbered = ndimage.label(drawn)[0]
    found = []
    for index, (rows, columns) in enumerate(ndimage.find_objects(numbered), start=1):
        mask = numbered[rows, columns] == index
        if int(mask.sum()) >= max(SMALLEST, WHOLE * mask.size):
            box = Region(int(rows.start), int(columns.start), *mask.shape)
            part = _middle(mask)
            y, x = np.nonzero(mask & part)
            chosen = np.random.default_rng(0).permutation(len(y))[:PIXELS]
            y, x = y[chosen] + box.y, x[chosen] + box.x
            top, left = int(y.min()), int(x.min())
            around = Region(top, left, int(y.max()) + 1 - top, int(x.max()) + 1 - left)
            seen = around.grown(SEEN_AROUND).clipped(*drawn.shape)
            assert seen is not None
            found.append(Window(number, box, mask, seen, y, x))
    return found


def _middle(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A square around the drawn pixel that is nearest to the middle."""
    y, x = np.nonzero(mask)
    nearest = np.argmin((y - mask.shape[0] / 2) ** 2 + (x - mask.shape[1] / 2) ** 2)
    rows, columns = (
        np.abs(np.arange(size) - at[nearest]) <= PART // 2
        for size, at in zip(mask.shape, (y, x), strict=True)
    )
    return np.outer(rows, columns)


def _without(place: Place, window: Window) -> Place:
    """A place in which nobody drew a window."""
    box, (drawn, labels) = window.box, (place.drawn.copy(), place.labels.copy())
    inside = np.s_[box.y : box.bottom, box.x : box.right]
    drawn[inside][window.drawn] = False
    labels[inside][window.drawn] = place.guess[inside][window.drawn]
    core = None if place.core is None else place.core.copy()
    if core is not None:
        core[inside][window.drawn] = -1
    return replace(place, drawn=drawn, labels=labels, core=core)


def _some(windows: list[Window], suspects: list[int]) -> list[int]:
    """Windows that are compared with one another, the same ones each time."""
    rng = np.random.default_rng(0)
    first = rng.permutation(suspects).tolist()
    second = rng.permutation(sorted(set(range(len(windows))) - set(suspects))).astype(int).tolist()
    # By turns, so that many suspects leave room for what they are compared with.
    order = [n for pair in zip(first, second, strict=False) for n in pair]
    order += first[len(second) :] + second[len(first) :]
    chosen, left = [], MOST_PIXELS
    for n in order:
        if (size := windows[n].seen.height * windows[n].seen.width) <= left:
            chosen.append(n)
            left -= size
    return sorted(chosen)


def _doubt(place: Place, box: Region, scales: Mapping[str, float]) -> Doubt:
    """Where a box of a place lies on its slide."""
    scale = scales[place.slide]
    y, x = (round((first + start) * scale) for first, start in zip(place.origin, (box.y, box.x), strict=True))
    return Doubt(place.slide, Region(y, x, round(box.height * scale), round(box.width * scale)))


def _covered(doubt: Doubt, insisted: Sequence[Doubt]) -> bool:
    """Whether it lies mostly in what the user insists on."""
    size = doubt.region.height * doubt.region.width
    shared = (doubt.region.intersection(one.region) for one in insisted if one.slide == doubt.slide)
    return any(part is not None and 2 * part.height * part.width >= size for part in shared)


def _joined(doubts: list[Doubt]) -> list[Doubt]:
    """Windows that touch are one: what is drawn in a view may belong to several places."""
    found = list[Doubt]()
    for doubt in doubts:
        region = doubt.region
        for other in [one for one in found if one.slide == doubt.slide]:
            if other.region.intersection(region.grown(TOUCHING)) is not None:
                found.remove(other)
                region = hull([region, other.region])
        found.append(Doubt(doubt.slide, region))
    return found


def _features(
    places: list[Place], windows: list[Window], segmenter: Segmenter, compute: Compute, cancel: CancelToken
) -> Generator[Event, None, list[torch.Tensor] | None]:
    """Features of some pixels of each window; None when memory is short or it was cancelled."""

    def of_pixels(number: int, levels: Levels) -> torch.Tensor:
        window, device = windows[number], levels.maps[0].device
        at = (window.rows - window.seen.y, window.columns - window.seen.x)
        return levels.at(*(torch.from_numpy(axis).to(device) for axis in at)).cpu()

    parts = [
        places[window.place].rgb[box.y : box.bottom, box.x : box.right]
        for window in windows
        for box in [window.seen]
    ]
    message = "comparing your corrections with one another"
    found = yield from looked_at(parts, segmenter, of_pixels, message, compute=compute, cancel=cancel)
    # Out of inference mode a classifier can learn from them.
    return None if found is None else [each.clone() for each in found]


def _crossed(
    features: list[torch.Tensor], classes: list[NDArray[np.int16]], teach: list[bool]
) -> list[Testimony]:
    """What the other windows, of those that teach, say of each one; what is drawn if they cannot."""
    sizes = [len(one) for one in classes]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    said = cross_fitted(torch.cat(features), np.concatenate(classes), groups, np.repeat(teach, sizes))
    return [
        Testimony(drawn if (one < 0).any() else one, drawn)  # of other classes they have seen nothing
        for drawn, one in zip(classes, np.split(said, np.cumsum(sizes)[:-1]), strict=True)
    ]
