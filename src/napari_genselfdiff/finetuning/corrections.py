"""What a person drew on a slide becomes examples to train on and to score on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.annotations import classes_of
from napari_genselfdiff.annotations.pyramid import rescaled
from napari_genselfdiff.compute import Compute
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.finetuning.examples import Example, held_out_cells
from napari_genselfdiff.finetuning.scoring import predict_image
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.instances import distance_target, label_instances, separation
from napari_genselfdiff.segmentation.network import Segmenter
from napari_genselfdiff.segmentation.prediction import Prediction
from napari_genselfdiff.segmentation.store import finest_layer

if TYPE_CHECKING:
    from napari_genselfdiff.annotations import Annotations
    from napari_genselfdiff.slides import Slide

CONTEXT = 64
"""Model pixels around a corrected box that are read with it."""
CELL = 64
"""Side in model pixels of the cells that are held out or trained on as a whole."""
LARGEST_BOX = 1024
"""Side in model pixels of what is learned from as a whole; what was drawn on the overview is sampled."""
SAMPLES = 16
"""Pieces, of half that side, that stand for all larger boxes together."""
SELF_WEIGHT = 0.1
"""Weight of the model's own confident predictions where nothing was corrected, so that it does not forget."""
CONFIDENT = 0.9 * 255


def correction_examples(
    slide: Slide, annotations: Annotations, segmenter: Segmenter, *, scale: float, compute: Compute
) -> tuple[list[Example], list[Example]]:
    """Examples of all corrected places of a slide.

    Parameters
    ----------
    slide : Slide
    annotations : Annotations
    segmenter : Segmenter
        The model in use; its confident predictions count a little where nothing was corrected.
    scale : float
        Level-0 pixels a model pixel.
    compute : Compute

    Returns
    -------
    training, held_out : list of Example
        A fixed fifth of the cells of the slide, chosen by position, is never trained on.

    Raises
    ------
    UserError
        If nothing was corrected.
    """
    boxes = annotations.supervised_boxes()
    if not boxes:
        raise UserError(
            "nothing is corrected yet", slide.name, "press Correct here and paint what the model got wrong"
        )
    training, held_out, whole = [], [], []
    for box in _bounded(annotations, boxes, scale):
        # On whole cells, so that a pixel's cell does not depend on the box.
        y, x = (max(0, math.floor(start / scale) - CONTEXT) // CELL * CELL for start in (box.y, box.x))
        height = min(math.ceil(box.bottom / scale) + CONTEXT, math.ceil(slide.shape[0] / scale)) - y
        width = min(math.ceil(box.right / scale) + CONTEXT, math.ceil(slide.shape[1] / scale)) - x
        rgb = slide.read_scaled(y, x, height, width, scale=scale)
        codes = _codes_on_grid(annotations, slide.shape, (y, x, height, width), scale, box)
        said = predict_image(segmenter, rgb, compute)
        example = _example(f"{box.y},{box.x}", rgb, codes, said, segmenter.spec.object_area)
        mask = held_out_cells((height, width), cell=CELL, origin=(y, x))
        whole.append(example)
        training.append(example.weighted(~mask))
        # Only what a person drew is scored, not what the model believes.
        held_out.append(example.weighted(mask & (codes > 0)))
    if not any((example.weight == 1).any() for example in training):
        # All that was drawn lies in held-out cells: learn from it, and leave the score open.
        return whole, []
    return training, held_out


def _bounded(annotations: Annotations, boxes: list[Region], scale: float) -> list[Region]:
    """Boxes that can be read as a whole, and pieces of the others in which something was drawn.

    A tumour that was outlined on the overview covers billions of pixels. The pieces are chosen by chance,
    the same ones each time, so that rounds can be compared.
    """
    limit, side = round(LARGEST_BOX * scale), round(LARGEST_BOX * scale / 2)
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


def _example(
    name: str,
    rgb: NDArray[np.uint8],
    codes: NDArray[np.uint8],
    said: Prediction,
    object_area: float | None,
) -> Example:
    drawn = codes > 0
    labels = np.where(drawn, classes_of(codes), said.labels).astype(np.uint8)
    weight = np.where(said.confidence > CONFIDENT, np.float32(SELF_WEIGHT), np.float32(0))
    weight[drawn] = 1
    distance = None
    if said.distance is not None:
        # The model's own distance map separates nuclei that a person's drawing left touching.
        ids = label_instances(labels > 0, said.distance / np.float32(255), separation(object_area))
        distance = distance_target(ids)
    return Example(name, rgb, labels, weight, distance)


def _codes_on_grid(
    annotations: Annotations,
    shape: tuple[int, int],
    part: tuple[int, int, int, int],
    scale: float,
    box: Region,
) -> NDArray[np.uint8]:
    """Codes of a part of the model's grid; 0 outside ``box``, whose layer's other boxes hold the rest."""
    y, x, height, width = part
    layer = finest_layer(scale, shape)
    ratio = scale / 2**layer
    rows = ((np.arange(y, y + height) + 0.5) * ratio).astype(int)
    columns = ((np.arange(x, x + width) + 0.5) * ratio).astype(int)
    top, left = int(rows[0]), int(columns[0])
    around = Region(top, left, int(rows[-1]) - top + 1, int(columns[-1]) - left + 1)
    codes = annotations.read(layer, around)[np.ix_(rows - top, columns - left)]
    centre_y, centre_x = (np.arange(y, y + height) + 0.5) * scale, (np.arange(x, x + width) + 0.5) * scale
    inside = np.outer(
        (centre_y >= box.y) & (centre_y < box.bottom), (centre_x >= box.x) & (centre_x < box.right)
    )
    return np.where(inside, codes, 0).astype(np.uint8)
