"""Turn a data set of the field into what `finetune` and `evaluate` take."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Clock, Event, Finished, Progress
from napari_genselfdiff.exchange.datasets import AUTO, DatasetItem, Request, find_dataset
from napari_genselfdiff.exchange.labelmap import IGNORED, LabelMap
from napari_genselfdiff.exchange.pairs import IGNORED_INSTANCE
from napari_genselfdiff.exchange.rasters import write_png
from napari_genselfdiff.files import atomic_folder, atomic_path, check_new_folder, write_text
from napari_genselfdiff.slides.slide import PLAUSIBLE_TAG_MPP
from napari_genselfdiff.verbs.inputs import check_mpp

logger = logging.getLogger(__name__)

IMAGES, LABELS, TABLE = "images", "labels", "dataset.csv"
COLUMNS = ("name", "group", "mpp", "source", "annotation")
STOPPED = "stopped; nothing was written"


class _CancelledError(Exception):
    """Leaves the block that writes the folder, so that there is none."""


@dataclass(frozen=True)
class Converted:
    """What came of it.

    Attributes
    ----------
    path : Path
        Folder with ``images``, ``labels`` and ``dataset.csv``.
    layout : str
        What the source was recognised as.
    images, groups : int
        How many; groups are patients where the layout says which.
    mpp : tuple of float
        The resolutions that occur, ascending; empty where none is known.
    unknown : int
        Images whose resolution is not known.
    instances : bool
        Whether the labels are ids of objects rather than classes.
    objects : int
        Number of objects, or of foreground pixels where labels are classes.
    """

    path: Path
    layout: str
    images: int
    groups: int
    mpp: tuple[float, ...]
    unknown: int
    instances: bool
    objects: int


def convert_dataset(
    source: Path,
    output: Path,
    *,
    layout: str = AUTO,
    labels: str | None = None,
    mpp: float | None = None,
    instances: bool | None = None,
    cancel: CancelToken | None = None,
) -> Iterator[Event]:
    """Write ``images/NAME.tif``, ``labels/NAME.png`` and ``dataset.csv``.

    Parameters
    ----------
    source : Path
        The data set.
    output : Path
        A folder that does not exist or is empty. It is there with everything in it or not at all.
    layout : str
        See `open_dataset`.
    labels : str, optional
        Folder of masks, or name of the label image in OME-Zarr.
    mpp : float, optional
        Micrometres per pixel, in place of what the layout or the files say.
    instances : bool, optional
        Whether labels are ids of objects (16 bits; 65535 is not labelled) or classes (8 bits; 255 is not).
    cancel : CancelToken, optional
        Nothing is written then.

    Yields
    ------
    Event
        `Progress`, then `Finished` with a `Converted`, or None when it was cancelled.

    Raises
    ------
    UserError
        If the data set is not complete or not good, holds no foreground, or the output cannot be written.

    Notes
    -----
    Images are TIFF, compressed without loss, because the tags of a TIFF keep the resolution and those of a
    PNG are read by nobody here. ``dataset.csv`` has the columns ``name``, ``group`` (the patient, or the
    name), ``mpp``, ``source`` and ``annotation`` (paths in the source).
    """
    cancel = cancel or CancelToken()
    check_mpp(mpp, "--mpp")
    check_new_folder(output)
    found, finding = find_dataset(Request(source, mpp, labels, instances, cancel), layout)
    items: list[DatasetItem] = yield from finding
    if cancel.cancelled:
        yield Finished(None, STOPPED, cancelled=True)
        return
    _check_names(items, source)
    low, high = PLAUSIBLE_TAG_MPP
    if any(item.mpp is not None and not low <= item.mpp <= high for item in items):
        logger.warning(
            "a resolution outside of %g to %g is not read from images: give it with --mpp", low, high
        )
    try:
        with atomic_folder(output) as folder:
            foreground = yield from _write(folder, items, cancel)
            if not foreground:
                raise UserError("the annotations hold no foreground at all", source, "check what they hold")
            write_text(folder / TABLE, _table(items, source))
    except _CancelledError:
        yield Finished(None, STOPPED, cancelled=True)
        return
    known = [item.mpp for item in items if item.mpp is not None]
    done = Converted(
        output,
        found,
        len(items),
        len({item.group for item in items}),
        tuple(sorted(set(known))),
        len(items) - len(known),
        items[0].instances,
        foreground,
    )
    yield Finished(done, f"{len(items)} images")


def _write(folder: Path, items: Sequence[DatasetItem], cancel: CancelToken) -> Generator[Progress, None, int]:
    """Write images and labels; return the number of objects, or of foreground pixels."""
    foreground, clock = 0, Clock()
    for index, item in enumerate(items):
        yield Progress(index, len(items), "converting", clock.left(index, len(items)))
        if cancel.cancelled:
            raise _CancelledError
        rgb, ids = item.load()
        labels = _numbered(ids, item) if item.instances else _classes(ids, item)
        values, counts = np.unique(labels, return_counts=True)
        if item.instances:
            foreground += int(((values > 0) & (values != IGNORED_INSTANCE)).sum())
        else:
            foreground += int(counts[(values > 0) & (values != IGNORED)].sum())
        _write_image(folder / IMAGES / f"{item.name}.tif", rgb, item.mpp)
        write_png(
            folder / LABELS / f"{item.name}.png",
            LabelMap(labels, mpp=item.mpp, instances=item.instances),
            bits=16 if item.instances else 8,
        )
    return foreground


def _check_names(items: Sequence[DatasetItem], source: Path) -> None:
    seen: dict[str, str] = {}
    for item in items:
        other = seen.setdefault(item.name.casefold(), item.name)  # one file on Windows and macOS
        if other is not item.name:
            raise UserError(f"the images {other} and {item.name} share a name", source, "rename one of them")


def _numbered(ids: NDArray[np.int32], item: DatasetItem) -> NDArray[Any]:
    """Ids in 16 bits, numbered anew where one is too high."""
    if ids.max(initial=0) > IGNORED_INSTANCE:
        values, places = np.unique(ids, return_inverse=True)
        objects = (values > 0) & (values != IGNORED_INSTANCE)
        if objects.sum() >= IGNORED_INSTANCE:
            raise UserError(
                f"the annotation has {objects.sum()} objects, more than 16 bits can number",
                item.label,
                "divide the image",
            )
        ids = np.where(objects, np.cumsum(objects), values)[places].reshape(ids.shape)
    return ids.astype(np.uint16)


def _classes(labels: NDArray[np.int32], item: DatasetItem) -> NDArray[Any]:
    if labels.max(initial=0) > IGNORED:
        raise UserError(
            f"the annotation holds numbers up to {labels.max()}, and classes end at 254",
            item.label,
            "give --instances if they number objects",
        )
    return labels.astype(np.uint8)


def _write_image(path: Path, rgb: NDArray[np.uint8], mpp: float | None) -> None:
    import tifffile

    per_centimetre = None if mpp is None else (1e4 / mpp, 1e4 / mpp)
    with atomic_path(path) as temporary:
        # In strips: OpenSlide takes tiled files for slides and does not read their tags.
        tifffile.imwrite(
            temporary,
            rgb,
            compression="zlib",
            predictor=True,
            photometric="rgb",
            resolution=per_centimetre,
            resolutionunit="CENTIMETER" if per_centimetre else None,
            metadata=None,
            software=False,
        )


def _table(items: Sequence[DatasetItem], source: Path) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for item in items:
        mpp = "" if item.mpp is None else f"{item.mpp:.6g}"
        writer.writerow(
            [item.name, item.group, mpp, _within(item.image, source), _within(item.label, source)]
        )
    return text.getvalue()


def _within(file: Path, source: Path) -> str:
    """A path in the source, which says nothing of the computer; the name of a file elsewhere."""
    return file.relative_to(source).as_posix() if file.is_relative_to(source) else file.name
