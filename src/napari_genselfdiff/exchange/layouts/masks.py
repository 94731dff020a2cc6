"""Masks of the field, and what their numbers mean."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Clock, Progress
from napari_genselfdiff.exchange.labelmap import IGNORED
from napari_genselfdiff.exchange.pairs import LABEL_SUFFIXES
from napari_genselfdiff.exchange.rasters import checked_labels, read_stored

JPEG = (".jpg", ".jpeg")
MASK_SUFFIXES = (*LABEL_SUFFIXES, *JPEG)
WHITE = 255
GREY = (32, 224)
"""What is between is neither black nor white; JPEG blurs edges only."""
MAX_GREY = 0.05


class Plane(NamedTuple):
    """A mask as it is stored.

    Attributes
    ----------
    labels : ndarray of unsigned int, shape (height, width)
    instances : bool or None
        Whether they are ids of objects, where the file says: ours do.
    """

    labels: NDArray[Any]
    instances: bool | None


@dataclass(frozen=True)
class Meaning:
    """What the numbers in the masks of a data set mean.

    Attributes
    ----------
    instances : bool
        Ids of objects rather than classes.
    white : bool
        Masks hold 0 and 255 alone, and 255 is the foreground.
    """

    instances: bool
    white: bool = False

    def apply(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Labels as the rest of the package understands them."""
        return labels > 0 if self.white else labels


def read_mask(path: Path) -> Plane:
    """Read a mask: PNG, TIFF or BMP of one channel, or of colours that are all grey, or a JPEG.

    Raises
    ------
    UserError
        If the file is missing or damaged, has colours, or is a JPEG that is not black and white.
    """
    pixels, info, _ = read_stored(path)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 3, 4):
        # grey and alpha, or colours with or without alpha: programs save masks so unless told otherwise
        colours = pixels[..., :3] if pixels.shape[2] > 2 else pixels[..., :1]
        if (colours != colours[..., :1]).any():
            raise UserError(
                "the mask is a picture in colours",
                path,
                "save class numbers or ids of objects in one channel",
            )
        pixels = pixels[..., 0]
    labels = checked_labels(pixels, path)
    if path.suffix.lower() in JPEG:
        if ((labels >= GREY[0]) & (labels < GREY[1])).mean() > MAX_GREY:
            raise UserError(
                "the mask is a JPEG and not black and white, and JPEG does not keep numbers",
                path,
                "save it as PNG",
            )
        labels = (labels >= WHITE / 2).astype(np.uint8)
    return Plane(labels, None if info is None else info["instances"])


def meaning_of(
    files: Sequence[Path],
    read: Callable[[Path], Plane],
    *,
    instances: bool | None,
    cancel: CancelToken,
) -> Generator[Progress, None, Meaning]:
    """Look at all masks of a data set for what their numbers mean.

    Parameters
    ----------
    files : sequence of Path
    read : callable
        Reads one of them.
    instances : bool, optional
        What the user says.
    cancel : CancelToken

    Raises
    ------
    UserError
        If what the masks hold is not what the user says, or could be both.
    """
    values: set[int] = set()
    highest, where, clock = 0, files[0], Clock()
    said: set[bool | None] = set()
    for index, file in enumerate(files):
        if cancel.cancelled:
            break
        yield Progress(index, len(files), "looking at the masks", clock.left(index, len(files)))
        plane = read(file)
        said.add(plane.instances)
        top = int(plane.labels.max(initial=0))
        if top > highest:
            highest, where = top, file
        if highest <= IGNORED:
            values |= set(np.unique(plane.labels).tolist())
    if cancel.cancelled:
        return Meaning(bool(instances))
    return _decide(values, highest, where, instances, next(iter(said)) if len(said) == 1 else None)


def _decide(
    values: set[int], highest: int, where: Path, instances: bool | None, said: bool | None
) -> Meaning:
    binary = highest <= IGNORED and (values <= {0, 1} or values <= {0, WHITE})
    if instances is None:
        instances = said
    if instances is None and highest > IGNORED:
        instances = True
    if instances is None and binary:
        instances = False
    if instances is None:
        raise UserError(
            f"the masks hold numbers up to {highest}, which can be classes or ids of objects",
            where,
            "give --classes or --instances",
        )
    if instances and binary and not said:
        raise UserError(
            "the masks hold two values alone, which do not number the objects",
            where.parent,
            "give --classes, or masks with an id for each object",
        )
    if not instances and highest > IGNORED:
        raise UserError(
            f"the mask holds numbers up to {highest}, and classes end at 254",
            where,
            "give --instances, or write class numbers",
        )
    # In our own files 255 is what nobody labelled.
    return Meaning(instances, white=binary and highest == WHITE and not instances and said is None)
