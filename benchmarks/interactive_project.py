"""What the simulated pathologist works on: slides of a project, what is painted on them, places in them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from label_efficiency import Task
from napari_genselfdiff.annotations import Annotations, encode
from napari_genselfdiff.exchange.layouts.item import DatasetItem
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.network import SAME_SCALE
from napari_genselfdiff.segmentation.store import finest_layer
from napari_genselfdiff.slides import Slide, open_slide
from simulated_pathologist import Labels, Mask, Stroke

Pixel = TypeVar("Pixel", bound=np.generic)

WINDOW = 128
"""Side in model pixels of what is corrected in a round: 64 µm of nuclei, 205 µm of glands."""
STEP = WINDOW // 2
FOLDS = 3


@dataclass(frozen=True)
class Fold:
    """Images to correct and images that are never corrected; no patient is in both."""

    number: int
    corrected: list[DatasetItem]
    held_out: list[DatasetItem]


def folds(task: Task, *, images: int, held_out: int, fixed: bool) -> list[Fold]:
    """Divide a set into three by patient (or by image where each is of another patient).

    Parameters
    ----------
    task : Task
    images, held_out : int
        At most so many, from as many patients as there are.
    fixed : bool
        Hold out only what ``label_efficiency.py`` holds out, which a pretext of its own may not have seen.

    Returns
    -------
    list of Fold
        What is corrected in one fold is corrected in no other.
    """
    parts = _divided([*task.training, *task.test])
    result = []
    for number, part in enumerate(parts):
        ours = parts[(number + 1) % FOLDS]
        if fixed:
            ours, part = _divided(task.training)[number], task.test
        result.append(Fold(number, _spread(ours, images), _spread(part, held_out)))
    return result


def _divided(items: Iterable[DatasetItem]) -> list[list[DatasetItem]]:
    """Whole patients, the largest first, each to the part that is smallest so far."""
    parts: list[list[DatasetItem]] = [[] for _ in range(FOLDS)]
    for patient in sorted(_by_patient(items), key=len, reverse=True):
        min(parts, key=len).extend(patient)
    return parts


def _spread(items: list[DatasetItem], count: int) -> list[DatasetItem]:
    """As many patients as possible: the first image of each, then the second."""
    queues = _by_patient(items)
    turns = [queue[turn] for turn in range(len(items)) for queue in queues if turn < len(queue)]
    return turns[:count]


def _by_patient(items: Iterable[DatasetItem]) -> list[list[DatasetItem]]:
    patients: dict[str, list[DatasetItem]] = {}
    for item in items:
        patients.setdefault(str(item.group), []).append(item)
    return [patients[name] for name in sorted(patients)]


@dataclass(frozen=True)
class Picture:
    """An image at the model's resolution with its true classes."""

    name: str
    group: str
    rgb: NDArray[np.uint8]
    truth: Labels


@dataclass
class Page:
    """One slide of the project.

    Attributes
    ----------
    picture : Picture
        The slide as the model sees it.
    slide : Slide
    annotations : Annotations
    scale : float
        Level-0 pixels a model pixel.
    drawn : ndarray of bool
        What was painted, in pixels of the model.
    windows : list of Region
        What was corrected, in pixels of the model.
    """

    picture: Picture
    slide: Slide
    annotations: Annotations
    scale: float
    drawn: Mask
    windows: list[Region] = field(default_factory=list)

    def paint(self, stroke: Stroke) -> None:
        """Paint on the slide, on the layer that a view at the model's resolution paints on."""
        mask = stroke.mask(self.picture.truth)
        self.drawn |= mask
        layer = finest_layer(self.scale, self.slide.shape)
        ratio = 2**layer / self.scale
        size = [int(side / ratio) for side in mask.shape]
        rows, columns = (
            np.minimum(((np.arange(n) + 0.5) * ratio).astype(int), m - 1)
            for n, m in zip(size, mask.shape, strict=True)
        )
        there = mask[np.ix_(rows, columns)]
        ys, xs = np.nonzero(there)
        box = np.s_[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
        codes = np.full(there[box].shape, encode(np.uint8(stroke.label)), np.uint8)
        self.annotations.stroke(layer, int(ys.min()), int(xs.min()), codes, there[box])

    def unseen(self) -> Mask:
        """Pixels outside all windows that were corrected."""
        rest = np.ones(self.drawn.shape, bool)
        for window in self.windows:
            _view(rest, window)[:] = False
        return rest

    def all_windows(self) -> list[Region]:
        """Places that a person may look at, half a window apart."""
        height, width = self.drawn.shape
        sides = min(WINDOW, height), min(WINDOW, width)
        return [Region(y, x, *sides) for y in _starts(height) for x in _starts(width)]


def _starts(length: int) -> list[int]:
    last = max(0, length - WINDOW)
    return sorted({*range(0, last, STEP), last})


@dataclass(frozen=True)
class Place:
    """A window of one slide of the project."""

    page: int
    window: Region


def picture(item: DatasetItem, slide: Slide, scale: float) -> Picture:
    """An image and its truth on the grid of the model."""
    _, ids = item.load()
    height, width = (int(side / scale) for side in slide.shape)
    rows, columns = (((np.arange(n) + 0.5) * scale).astype(int) for n in (height, width))
    truth = (ids[np.ix_(rows, columns)] > 0).astype(np.uint8)
    return Picture(item.name, str(item.group), slide.read_scaled(0, 0, height, width, scale=scale), truth)


def opened(item: DatasetItem, mpp: float) -> tuple[Slide, float]:
    """An image as a slide, and the width of a model pixel in its pixels."""
    slide = open_slide(item.image, mpp=item.mpp)
    assert slide.mpp is not None
    scale = mpp / slide.mpp
    nearest = 2.0 ** round(np.log2(scale))
    return slide, nearest if abs(scale / nearest - 1) < SAME_SCALE else scale


def held_out_pictures(fold: Fold, mpp: float) -> list[Picture]:
    """Images that are never corrected."""
    return [picture(item, *opened(item, mpp)) for item in fold.held_out]


@contextmanager
def project(fold: Fold, mpp: float) -> Iterator[list[Page]]:
    """Slides with empty annotations, in a folder that is gone afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pages = []
        for number, item in enumerate(fold.corrected):
            slide, scale = opened(item, mpp)
            annotations = stack.enter_context(
                Annotations.open(folder / str(number), shape=slide.shape, slide_id=item.name)
            )
            looked = picture(item, slide, scale)
            pages.append(Page(looked, slide, annotations, scale, np.zeros(looked.truth.shape, bool)))
        yield pages


def first_place(pages: Sequence[Page], rng: np.random.Generator) -> Place:
    """Where a person begins: a window, at random, that has a good deal of both classes."""
    places = free_places(pages)
    share = [_view(pages[place.page].picture.truth, place.window).mean() for place in places]
    both = [place for place, part in zip(places, share, strict=True) if 0.2 <= part <= 0.8] or places
    return both[int(rng.integers(len(both)))]


def free_places(pages: Sequence[Page]) -> list[Place]:
    """All windows that were not corrected yet; when there are none, all windows."""
    places = [Place(number, window) for number, page in enumerate(pages) for window in page.all_windows()]
    rest = [page.unseen() for page in pages]
    free = [p for p in places if _view(rest[p.page], p.window).mean() >= 0.5]
    return free or places


def _view(array: NDArray[Pixel], window: Region) -> NDArray[Pixel]:
    return array[window.y : window.bottom, window.x : window.right]


def most(pages: Sequence[Page], values: Sequence[NDArray[Any]]) -> Place:
    """The place with the highest mean of a map of each slide."""
    places = free_places(pages)

    def mean(place: Place) -> float:
        return float(_view(values[place.page], place.window).mean())

    return max(places, key=mean)
