"""What a person drew on slides, cut out at the model's resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_genselfdiff.annotations import classes_of, is_joined
from napari_genselfdiff.annotations.pyramid import rescaled
from napari_genselfdiff.compute import Compute
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.finetuning.earlier import Looks, Models, no_models, same_task
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.finetuning.feature_tiles import Source as Scaled
from napari_genselfdiff.finetuning.holdout import CELL, held_out_mask
from napari_genselfdiff.finetuning.scoring import predict_image
from napari_genselfdiff.finetuning.strokes import codes_on_grid
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.instances import core_target, label_instances, separation
from napari_genselfdiff.segmentation.network import Segmenter
from napari_genselfdiff.segmentation.prediction import Prediction
from napari_genselfdiff.segmentation.store import finest_layer

if TYPE_CHECKING:
    from napari_genselfdiff.annotations import Annotations
    from napari_genselfdiff.slides import Slide

CONTEXT = 64
"""Model pixels around a corrected box that are read with it."""
MIRRORED = 32
"""Model pixels beyond what was read that are mirrored for a prediction; the context is there already."""
LARGEST_BOX = 1024
"""Side in model pixels of what is learned from as a whole; what was drawn on the overview is sampled."""
SAMPLES = 16
"""Pieces that stand for all larger boxes of a slide together."""
PIECE = 256
"""Their side in model pixels: twice that of a patch, and all of them fit into what a round reads."""
SELF_WEIGHT = 0.5
"""Weight of what the model itself says where nothing was corrected, times how sure it is, so that it does not
forget. What was drawn weighs more, see `sampling.balanced`."""
AGREED_WEIGHT = 1.0
"""Weight of what a person accepted, or drew as the model had said."""
ATTEMPTS = 5
NO_LOOKS = Looks()


@dataclass(frozen=True)
class Source:
    """A slide and what was drawn on it.

    Attributes
    ----------
    slide : Slide
    annotations : Annotations
    name : str
        What tells the slide apart, such as its fingerprint; part of what decides what is held out.
    models : callable
        See `earlier.Models`; by default no earlier model is there.
    """

    slide: Slide
    annotations: Annotations
    name: str
    models: Models = no_models


@dataclass(frozen=True)
class Outline:
    """Where a place lies and what was drawn there; its pixels are not read yet.

    Attributes
    ----------
    source : Source
    origin : tuple of int
        ``(y, x)`` of the first pixel on the slide's grid of model pixels.
    scale : float
        Level-0 pixels a model pixel.
    codes : ndarray of uint8, shape (height, width)
        Pixel codes.
    elsewhere : ndarray of bool, shape (height, width), or None
        Whose codes are those of another place, if there are any.
    looks : Looks
        Where the slide's journal says that something was drawn, and with which model in use.
    """

    source: Source
    origin: tuple[int, int]
    scale: float
    codes: NDArray[np.uint8]
    elsewhere: NDArray[np.bool_] | None = None
    looks: Looks = NO_LOOKS

    @property
    def drawn(self) -> NDArray[np.bool_]:
        """Where a person drew or accepted, in this place."""
        drawn = self.codes > 0
        return np.asarray(drawn if self.elsewhere is None else drawn & ~self.elsewhere)


@dataclass(frozen=True)
class Place:
    """A corrected place of a slide, at the model's resolution.

    Attributes
    ----------
    slide : str
        Name of the source.
    origin : tuple of int
        ``(y, x)`` of the first pixel on the slide's grid of model pixels.
    rgb : ndarray of uint8, shape (height, width, 3)
    drawn : ndarray of bool, shape (height, width)
        Where a person drew or accepted.
    labels : ndarray of uint8, shape (height, width)
        Class that a person said, where nobody did what a model says: the one that came of what was drawn
        nearby, while it is there, else the one in use.
    guess : ndarray of uint8, shape (height, width)
        Class that the model in use says; 0 where there is none.
    sure : ndarray of float32, shape (height, width)
        How sure the model is where nothing was drawn: 0 at a probability of one half or less, 1 at one.
    core : ndarray of float32, shape (height, width), or None
        Target of the core head, negative where it is not known.
    held : ndarray of bool, shape (height, width)
        What is never trained on.
    elsewhere : ndarray of bool, shape (height, width), or None
        Where a person drew what counts in another place, if anywhere: here it is neither learned nor asked.
    earlier : ndarray of bool, shape (height, width), or None
        Where it is known which model came of what was drawn nearby, if anywhere.
    first : ndarray of int, shape (height, width), or None
        See `earlier.Looks.first`.
    """

    slide: str
    origin: tuple[int, int]
    rgb: NDArray[np.uint8]
    drawn: NDArray[np.bool_]
    labels: NDArray[np.uint8]
    guess: NDArray[np.uint8]
    sure: NDArray[np.float32]
    core: NDArray[np.float32] | None
    held: NDArray[np.bool_]
    elsewhere: NDArray[np.bool_] | None = None
    earlier: NDArray[np.bool_] | None = None
    first: NDArray[np.int64] | None = None

    @property
    def free(self) -> NDArray[np.bool_]:
        """Where nobody drew anything."""
        return ~self.drawn if self.elsewhere is None else ~(self.drawn | self.elsewhere)

    @property
    def changed(self) -> NDArray[np.bool_]:
        """Where what a person drew is not what the model said."""
        return np.asarray(self.drawn & (self.labels != self.guess))

    def example(self, where: NDArray[np.bool_] | None = None) -> Example:
        """What is trained on; all but what is held out by default."""
        weight = np.where(self.changed, np.float32(1), np.float32(AGREED_WEIGHT)) * self.drawn
        weight = (weight + SELF_WEIGHT * self.sure).astype(np.float32)
        name = f"{self.slide}:{self.origin[0]},{self.origin[1]}"
        example = Example(name, self.rgb, self.labels, weight, self.core)
        return example.weighted(~self.held if where is None else where)


def outline_corrections(source: Source, segmenter: Segmenter) -> tuple[list[Outline], int]:
    """Find what was drawn on a slide, quickly, so that later strokes do not disturb.

    Returns
    -------
    outlines : list of Outline
    position : int
        Position in the journal that they belong to.

    Raises
    ------
    UserError
        If the slide does not say its resolution, or its annotations are damaged.
    """
    slide, annotations = source.slide, source.annotations
    scale = segmenter.spec.scale_for(slide.mpp, slide.where)
    for _ in range(ATTEMPTS):
        position = annotations.position
        boxes = _bounded(annotations, annotations.supervised_boxes(), scale)
        looks = Looks(annotations.looks())
        outlines = [_outline(source, box, boxes[:number], scale, looks) for number, box in enumerate(boxes)]
        if annotations.position == position:
            break  # nobody drew in the meantime
    return [outline for outline in outlines if outline.drawn.any()], position


def read_place(
    outline: Outline,
    segmenter: Segmenter,
    *,
    compute: Compute,
    fresh: bool = False,
    notes: list[str] | None = None,
) -> Place:
    """Read the pixels of a place, and what the model says about them.

    Parameters
    ----------
    outline : Outline
    segmenter : Segmenter
        The model in use; its confident predictions count a little where nothing was corrected.
    compute : Compute
    fresh : bool
        Whether the model knows nothing of the task yet, so that its predictions mean nothing.
    notes : list of str, optional
        Takes what the user should know.

    Raises
    ------
    UserError
        If the pixels cannot be read, or a class was drawn that the model does not have.
    """
    codes, (y, x) = outline.codes, outline.origin
    rgb = outline.source.slide.read_scaled(y, x, *codes.shape, scale=outline.scale)
    said_by_hand = codes > 0
    highest, classes = int(classes_of(codes).max()), segmenter.spec.classes
    if highest >= len(classes):
        raise UserError(
            f"class {highest} was painted, and the model has {len(classes) - 1}",
            outline.source.slide.name,
            "start a task with more classes, or repaint it",
        )
    said = None if fresh else predict_image(segmenter, rgb, compute, margin=MIRRORED, notes=notes)
    guess = np.zeros(codes.shape, np.uint8) if said is None else said.labels
    sure, earlier, told, beside = np.zeros(codes.shape, np.float32), None, None, guess
    if said is not None:
        told, earlier = _told_beside(outline, rgb, said, segmenter, compute, notes)
        sure[~said_by_hand] = (told.confidence[~said_by_hand] / np.float32(127.5) - 1).clip(min=0)
        beside = told.labels
    labels = np.where(said_by_hand, classes_of(codes), beside).astype(np.uint8)
    known = said_by_hand if said is None else np.ones(codes.shape, bool)
    joined = is_joined(codes)
    core = _core(labels, joined, known, told, segmenter) if segmenter.spec.instances else None
    held, drawn = held_out_mask(codes.shape, outline.origin, outline.source.name), outline.drawn
    elsewhere = said_by_hand & ~drawn
    name, first = outline.source.name, outline.looks.first(Region(y, x, *codes.shape), outline.scale)
    return Place(name, outline.origin, rgb, drawn, labels, guess, sure, core, held, elsewhere, earlier, first)


def _told_beside(
    outline: Outline,
    rgb: NDArray[np.uint8],
    said: Prediction,
    segmenter: Segmenter,
    compute: Compute,
    notes: list[str] | None,
) -> tuple[Prediction, NDArray[np.bool_]]:
    """What the model says that came of what was drawn nearby, and where there is one; else what is said."""
    core = None if said.core is None else said.core.copy()
    told = replace(said, probabilities=said.probabilities.copy(), core=core)
    height, width = outline.codes.shape
    earlier = np.zeros((height, width), bool)
    region = Region(*outline.origin, height, width)
    for tag, where in outline.looks.under(region, outline.scale, outline.drawn):
        model = outline.source.models(tag)
        if model is None or not same_task(model, segmenter):
            continue
        then = said
        if model is not segmenter:
            then = predict_image(model, rgb, compute, margin=MIRRORED, notes=notes)
        told.probabilities[:, where] = then.probabilities[:, where]
        if core is not None and then.core is not None:
            core[where] = then.core[where]
        earlier |= where
    return told, earlier


def nothing_corrected(which: str | None) -> UserError:
    """The error that says what to do first."""
    return UserError(
        "nothing is corrected yet", which, "press Correct here and paint what the model got wrong"
    )


def _core(
    labels: NDArray[np.uint8],
    joined: NDArray[np.bool_],
    known: NDArray[np.bool_],
    said: Prediction | None,
    segmenter: Segmenter,
) -> NDArray[np.float32]:
    """Target of the core head; negative for objects whose outline nobody has said."""
    foreground = labels > 0
    if said is None:
        ids = label_instances(foreground, foreground, joined=joined)
    else:
        # The model's own map of cores separates nuclei that a person's drawing left touching.
        assert said.core is not None
        how = separation(segmenter.spec.object_area)
        ids = label_instances(foreground, said.core / np.float32(255), how, joined=joined)
    target = core_target(ids)
    if not known.all():
        open_ended = np.unique(ids[ndimage.binary_dilation(~known)])
        target[np.isin(ids, open_ended[open_ended > 0])] = -1
    return target


def _bounded(annotations: Annotations, boxes: list[Region], scale: float) -> list[Region]:
    """Boxes that can be read as a whole, and pieces of the others in which something was drawn.

    A tumour that was outlined on the overview covers billions of pixels. The pieces are chosen by chance,
    the same ones each time, so that rounds can be compared.
    """
    limit, side = round(LARGEST_BOX * scale), round(PIECE * scale)
    small = [box for box in boxes if max(box.height, box.width) <= limit]
    # Each piece is a number in the grids of all large boxes together, which are not laid out in memory.
    large = [box for box in boxes if max(box.height, box.width) > limit]
    grids = [(-(-box.height // side), -(-box.width // side)) for box in large]
    ends = np.cumsum([rows * columns for rows, columns in grids])
    layer = min(max(0, int(math.log2(side)) - 3), annotations.layers - 1)
    pieces: list[Region] = []
    for number in np.random.default_rng(0).permutation(int(ends[-1]) if large else 0).tolist():
        which = int(np.searchsorted(ends, number, side="right"))
        row, column = divmod(number - (int(ends[which - 1]) if which else 0), grids[which][1])
        box = large[which]
        piece = Region(box.y + row * side, box.x + column * side, side, side).intersection(box)
        if piece is not None and annotations.read(layer, rescaled(piece, 0, layer)).any():
            pieces.append(piece)
        if len(pieces) == SAMPLES:
            break
    return small + pieces


def _outline(source: Source, box: Region, before: list[Region], scale: float, looks: Looks) -> Outline:
    """What was drawn in a box and not in one before it."""
    shape = source.slide.shape
    # On whole cells, so that a pixel's cell does not depend on the box.
    y, x = (max(0, math.floor(start / scale) - CONTEXT) // CELL * CELL for start in (box.y, box.x))
    height = min(math.ceil(box.bottom / scale) + CONTEXT, math.ceil(shape[0] / scale)) - y
    width = min(math.ceil(box.right / scale) + CONTEXT, math.ceil(shape[1] / scale)) - x
    codes = codes_on_grid(
        source.annotations, Scaled(source.slide, source.name, scale), Region(y, x, height, width)
    )
    # A box ends with the last pixel that was drawn, in level-0 pixels: a thin stroke may lie beside the
    # middle of each pixel of the layer that is read, and is drawn there all the same.
    layer = finest_layer(scale, shape)
    rows, columns = (
        (np.arange(first, first + count) + 0.5) * scale for first, count in ((y, height), (x, width))
    )
    mine = np.zeros(codes.shape, bool)
    near = box.grown(2**layer)
    for other in (box, *(other for other in before if other.intersection(near))):
        whole = rescaled(rescaled(other, 0, layer), layer, 0)
        down, across = (
            slice(*np.searchsorted(centres, ends).tolist())
            for centres, ends in ((rows, (whole.y, whole.bottom)), (columns, (whole.x, whole.right)))
        )
        mine[down, across] = other is box
    return Outline(source, (y, x), scale, codes, ~mine, looks)
