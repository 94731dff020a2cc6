"""A refused model is asked again by what was corrected since.

A round that gained something is often refused, as the fifth that is held out of a few corrections does not
show it. What is corrected afterwards no such model has learned from: all of it can judge it, and not a fifth.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import Progress
from napari_genselfdiff.finetuning.corrections import Place
from napari_genselfdiff.finetuning.earlier import same_task
from napari_genselfdiff.finetuning.exam import Answers, Exam, joined
from napari_genselfdiff.finetuning.gate import FEWEST, Verdict, judge_round, trust
from napari_genselfdiff.finetuning.holdout import GUARD, cell_numbers, held_out_slides, inner_mask
from napari_genselfdiff.finetuning.preparation import Cut
from napari_genselfdiff.finetuning.training import Training
from napari_genselfdiff.segmentation.network import Segmenter

MOST = 2
"""Models that are asked again in a round, the last ones."""
WHOLE = 0.5
"""Share of a cell that was drawn since, from which on it is asked. Strokes lie where the model in use is
wrong: they would speak for any other."""
SINCE = "what you corrected since and what was kept aside before"


@dataclass(frozen=True)
class Refused:
    """A model that was trained from the one in use, and not taken over.

    Attributes
    ----------
    name, title : str
        What the program and the user call it.
    load : callable
        Its network; may raise a `UserError`.
    positions : mapping of str to int
        Position in each slide's journal up to which it knows what was drawn.
    """

    name: str
    title: str
    load: Callable[[], Segmenter]
    positions: Mapping[str, int]


@dataclass(frozen=True)
class Again:
    """A refused model that is surely better after all."""

    model: Refused
    verdict: Verdict


@dataclass(frozen=True)
class Hearing:
    """A refused model, and questions about what was corrected since."""

    model: Refused
    since: Exam


def hearings(refused: Sequence[Refused], cut: Cut, *, classes: int) -> list[Hearing]:
    """Which of the models can be asked again.

    Parameters
    ----------
    refused : sequence of Refused
        The last one first.
    cut : Cut
        What this round trains on and is judged by.
    classes : int
    """
    found = []
    for one in refused[:MOST]:
        newly = held_out_slides(list(cut.positions)) - held_out_slides(list(one.positions))
        if newly & one.positions.keys():
            continue  # it was trained on what is held out now
        pairs = [(place, one.positions.get(place.slide, 0)) for place in cut.places]
        if not any((_older(place, position) & ~place.held).any() for place, position in pairs):
            continue  # where all that was drawn would have been held out, it was learned from
        asked = [drawn_since(place, position) for place, position in pairs]
        since = Exam(cut.places, asked, classes=classes, fresh=True)
        if since.regions:
            found.append(Hearing(one, since))
    return found


def ask_again(
    heard: Sequence[Hearing], training: Training, exam: Exam, before: Answers
) -> Generator[Progress, None, Again | None]:
    """The first of the models that is surely better than the one in use, if any.

    Parameters
    ----------
    heard : sequence of Hearing
    training : Training
        Of the round in which they are asked.
    exam : Exam
        About what is held out of it, which nobody was trained on.
    before : Answers
        Of the model in use to that.

    Yields
    ------
    Progress
    """
    compute, cancel, parent = training.compute, training.cancel, training.segmenter
    for number, hearing in enumerate(heard):
        one, since = hearing.model, hearing.since
        try:
            model = one.load()
        except UserError:
            continue  # it is told where the versions are listed
        if not same_task(model, parent):
            continue
        yield Progress(number, len(heard), f"checking whether {one.title} is better after all")
        held = yield from exam.answers(model, compute, cancel)
        old = yield from since.answers(parent, compute, cancel)
        new = yield from since.answers(model, compute, cancel)
        if held is None or old is None or new is None:
            return None
        # The cells of one window are alike, so a window is no more than one that was held out.
        windows = {since.place_of[region] for region in np.flatnonzero(trust(old, new))}
        if np.count_nonzero(trust(before, held)) + len(windows) < FEWEST:
            continue
        verdict = judge_round(
            joined([before, old]), replace(joined([held, new]), kept=held.kept), where=SINCE
        )
        if verdict.accepted and verdict.decided:
            return Again(one, verdict)
    return None


def drawn_since(place: Place, position: int) -> NDArray[np.bool_]:
    """Pixels that were drawn, as whole cells, after a position in the journal, and not near older ones."""
    older = _older(place, position)
    if older.any():
        older = ndimage.binary_dilation(older, iterations=GUARD)
    since = place.drawn & ~older & ~place.held
    inner = inner_mask(since.shape, place.origin)
    cells, index = np.unique(cell_numbers(since.shape, place.origin), return_inverse=True)
    index = index.reshape(since.shape)
    counts = np.bincount(index[since & inner], minlength=len(cells))
    return np.asarray(since & (counts >= WHOLE * np.bincount(index[inner], minlength=len(cells)))[index])


def _older(place: Place, position: int) -> NDArray[np.bool_]:
    """Pixels that were drawn by a position in the journal; all, where nobody knows when."""
    return place.drawn if place.first is None else place.drawn & (place.first <= position)
