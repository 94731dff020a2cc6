"""What models answer on what they were not trained on, region by region."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.events import CancelToken, Progress
from napari_genselfdiff.finetuning.corrections import Place
from napari_genselfdiff.finetuning.holdout import GUARD, cell_numbers, inner_mask
from napari_genselfdiff.finetuning.scoring import predict_image
from napari_genselfdiff.segmentation.network import Segmenter

SEEN_AROUND = 48
"""Model pixels around what is asked that a model sees of a place."""
MIRRORED = 16
"""Model pixels beyond those that are mirrored."""
MOST_PIXELS = 1_500_000
"""Model pixels that are predicted for one exam at most."""
OPEN_PIXELS = 500_000
"""Of these, for places whose surroundings no other question shows: what the parent says there is asked."""


@dataclass(frozen=True)
class Question:
    """A piece of a slide and what is asked about it.

    Attributes
    ----------
    rgb : ndarray of uint8, shape (height, width, 3)
    labels : ndarray of uint8, shape (height, width)
        What is true where something was drawn.
    guess : ndarray of uint8, shape (height, width), or None
        What the parent answers to this very question.
    region : ndarray of int, shape (height, width)
        Number of the region of pixels that a person drew and that are asked; -1 for others.
    open : ndarray of bool, shape (height, width)
        Where nothing was drawn.
    """

    rgb: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    guess: NDArray[np.uint8] | None
    region: NDArray[np.int64]
    open: NDArray[np.bool_]


@dataclass(frozen=True)
class Answers:
    """How a model answered an exam.

    Attributes
    ----------
    counts : ndarray of float, shape (regions, classes, 3)
        Pixels that are rightly, that are predicted as, and that truly are of a class.
    kept : ndarray of float, shape (classes, 3)
        The same for what the parent says where nothing was drawn.
    slides : ndarray of int, shape (regions,), or None
        Number of the slide of each region; None where they are all of one.
    """

    counts: NDArray[np.float64]
    kept: NDArray[np.float64]
    slides: NDArray[np.int64] | None = None

    def __add__(self, other: Answers) -> Answers:
        """Answers to some more of the same regions."""
        return Answers(self.counts + other.counts, self.kept + other.kept, self.slides)


class Exam:
    """Questions about the parts of places that training does not see.

    Parameters
    ----------
    places : sequence of Place
    asked : sequence of ndarray of bool
        The pixels of each place that are not trained on.
    classes : int
    fresh : bool
        There is no parent whose answers could be kept.

    Attributes
    ----------
    regions : int
        Regions in which something is asked.
    place_of : list of int
        Number of the place that each of them lies in.
    """

    def __init__(
        self,
        places: Sequence[Place],
        asked: Sequence[NDArray[np.bool_]],
        *,
        classes: int,
        fresh: bool = False,
    ) -> None:
        self.classes, self._fresh = classes, fresh
        self._slides = sorted({place.slide for place in places})
        self._numbers: dict[tuple[str, int], int] = {}
        self._questions: list[Question] = []
        pairs = list(zip(places, asked, strict=True))
        held = [mask & place.drawn & inner_mask(mask.shape, place.origin) for place, mask in pairs]
        left = MOST_PIXELS
        unseen: list[Place] = []
        self.place_of: list[int] = []
        for number, ((place, mask), inner) in enumerate(zip(pairs, held, strict=True)):
            count = len(self._questions)
            for cut, mine in _around(inner, whole=bool(mask.all())):
                if mine.size <= left:
                    self._questions.append(self._question(place, mine, cut, whole=bool(mask.all())))
                    left -= mine.size
            self.place_of += [number] * (len(self._numbers) - len(self.place_of))
            if not any(question.open.any() for question in self._questions[count:]):
                unseen.append(place)
        left = 0 if fresh else min(left, OPEN_PIXELS)
        for place in unseen:
            if place.free.any() and place.drawn.size <= left:
                nothing = np.zeros_like(place.drawn)
                self._questions.append(self._question(place, nothing, np.s_[:, :], whole=False))
                left -= place.drawn.size
        self.regions = len(self._numbers)

    def answers(
        self, segmenter: Segmenter, compute: Compute, cancel: CancelToken, *, parent: bool = False
    ) -> Generator[Progress, None, Answers | None]:
        """Let a model answer; None when it was cancelled on the way.

        What is kept of the parent's answers is known once it has answered itself, as ``parent``. What it said
        when the places were read does not do: it saw more around these pixels then, and would differ from
        itself.

        Yields
        ------
        Progress
            Of what the user should know.
        """
        given = self.empty
        notes: list[str] = []
        for number, question in enumerate(self._questions):
            if cancel.cancelled:
                return None
            said = predict_image(segmenter, question.rgb, compute, margin=MIRRORED, notes=notes).labels
            yield from (Progress(number, len(self._questions), note) for note in notes)
            notes.clear()
            if parent:
                question = self._questions[number] = replace(question, guess=said)
            given = given + self._marked(question, said)
        return given

    @property
    def empty(self) -> Answers:
        """Answers to nothing yet."""
        slides = np.array([self._slides.index(slide) for slide, _ in self._numbers], np.int64)
        return Answers(np.zeros((self.regions, self.classes, 3)), np.zeros((self.classes, 3)), slides)

    def _marked(self, question: Question, said: NDArray[np.uint8]) -> Answers:
        asked, free = question.region >= 0, question.open
        counts = _tallied(
            said[asked], question.labels[asked], question.region[asked], self.regions, self.classes
        )
        if question.guess is None:
            return Answers(counts, np.zeros((self.classes, 3)))
        nowhere = np.zeros(int(free.sum()), np.int64)
        return Answers(counts, _tallied(said[free], question.guess[free], nowhere, 1, self.classes)[0])

    def _question(
        self, place: Place, asked: NDArray[np.bool_], cut: tuple[slice, slice], *, whole: bool
    ) -> Question:
        cells = cell_numbers(place.drawn.shape, place.origin)[cut]
        if whole:
            # Of a slide that is held out whole, what lies together is one region: its cells are alike.
            cells = np.full_like(cells, cells[0, 0])
        region = np.full(cells.shape, -1)
        for cell in np.unique(cells[asked]).tolist():
            number = self._numbers.setdefault((place.slide, cell), len(self._numbers))
            region[asked & (cells == cell)] = number
        free = place.free[cut] & (not self._fresh)
        return Question(place.rgb[cut], place.labels[cut], None, region, free)


def _around(
    asked: NDArray[np.bool_], *, whole: bool
) -> Iterator[tuple[tuple[slice, slice], NDArray[np.bool_]]]:
    """Rectangles around what is asked, and what is in each; one where it lies near, or is a whole place."""
    numbers = asked.astype(np.int32)
    if not whole:
        numbers *= ndimage.label(ndimage.binary_dilation(asked, iterations=GUARD + 1))[0]
    for number, box in enumerate(ndimage.find_objects(numbers), 1):
        if box is not None:
            rows, columns = (slice(max(0, side.start - SEEN_AROUND), side.stop + SEEN_AROUND) for side in box)
            yield (rows, columns), numbers[rows, columns] == number


def dice(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean Dice over the foreground classes that are there.

    Parameters
    ----------
    counts : ndarray of float, shape (..., classes, 3)
        See `Answers`, summed over regions.

    Returns
    -------
    ndarray of float, shape (...)
        The Dice of the background where there is nothing else.
    """
    right, predicted, true = np.moveaxis(counts, -1, 0)
    each = 2 * right / np.maximum(predicted + true, 1e-9)
    there = true[..., 1:] > 0
    present = there.sum(axis=-1)
    mean = (each[..., 1:] * there).sum(axis=-1) / np.maximum(present, 1)
    return np.asarray(np.where(present > 0, mean, each[..., 0]))


def _tallied(
    said: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    region: NDArray[np.int64],
    regions: int,
    classes: int,
) -> NDArray[np.float64]:
    def counted(where: NDArray[np.bool_], classified: NDArray[np.uint8]) -> NDArray[np.float64]:
        place = region[where] * classes + classified[where].clip(max=classes - 1)
        return np.bincount(place, minlength=regions * classes).reshape(regions, classes).astype(float)

    everywhere = np.ones(len(said), bool)
    return np.stack(
        [counted(said == labels, said), counted(everywhere, said), counted(everywhere, labels)], axis=-1
    )


def joined(exams: Sequence[Answers]) -> Answers:
    """Answers to several exams with different regions of the same slides."""
    counts = np.concatenate([answers.counts for answers in exams])
    slides = [answers.slides for answers in exams if answers.slides is not None]
    return Answers(
        counts,
        np.sum([answers.kept for answers in exams], axis=0),
        np.concatenate(slides) if len(slides) == len(exams) else None,
    )
