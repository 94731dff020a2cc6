"""Data sets of images and their labels: two folders, or one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.labelmap import IGNORED
from napari_genselfdiff.exchange.rasters import read_labels_image
from napari_genselfdiff.images import IMAGE_SUFFIXES, read_rgb

LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
LABEL_ENDINGS = ("", "_mask", "_anno", "_label")
IGNORED_INSTANCE = 65535
SHOWN = 3


@dataclass(frozen=True)
class Pair:
    """An image file and its label file."""

    name: str
    image: Path
    label: Path


@dataclass(frozen=True)
class LabelledImage:
    """An image and its labels.

    Attributes
    ----------
    name : str
    rgb : ndarray of uint8, shape (height, width, 3)
    labels : ndarray, shape (height, width)
        uint8 classes (255 where nothing is labelled), or int32 ids of objects (0 where nothing is labelled).
    valid : ndarray of bool, shape (height, width)
        Where something is labelled.
    """

    name: str
    rgb: NDArray[np.uint8]
    labels: NDArray[Any]
    valid: NDArray[np.bool_]


def find_pairs(
    images_dir: str | Path, labels_dir: str | Path, *, suffixes: tuple[str, ...] = LABEL_SUFFIXES
) -> list[Pair]:
    """Match images with labels by name.

    Parameters
    ----------
    images_dir, labels_dir : str or Path
        May be the same folder. The label of ``NAME.jpg`` is ``NAME``, ``NAME_mask``, ``NAME_anno`` or
        ``NAME_label`` with one of the suffixes.
    suffixes : tuple of str
        Of the labels; ``.png``, ``.tif``, ``.tiff``, ``.bmp`` by default.

    Returns
    -------
    list of Pair
        Sorted by name.

    Raises
    ------
    UserError
        If a folder does not exist, there is no image, an image has no label, or two images share a name.
    """
    images_dir, labels_dir = Path(images_dir), Path(labels_dir)
    images = _files(images_dir, IMAGE_SUFFIXES)
    labels = _files(labels_dir, suffixes)
    same = images_dir.resolve() == labels_dir.resolve()
    endings = LABEL_ENDINGS[1:] if same else LABEL_ENDINGS
    if same:
        stems = {path.stem for path in images}
        images = [path for path in images if not _is_label_of(path.stem, stems)]
    if not images:
        raise UserError("no image was found", images_dir, f"images end with {', '.join(IMAGE_SUFFIXES)}")
    by_stem = {path.stem: path for path in reversed(labels)}
    pairs = {}
    missing = []
    for image in images:
        if image.stem in pairs:
            raise UserError("two images share a name", image, "remove one of them")
        label = next((by_stem[image.stem + end] for end in endings if image.stem + end in by_stem), None)
        if label is None:
            missing.append(image.name)
        else:
            pairs[image.stem] = Pair(image.stem, image, label)
    if missing:
        shown = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        raise UserError(
            f"{len(missing)} of {len(images)} images have no label ({shown})",
            labels_dir,
            f"a label is named like its image, or with _mask, _anno or _label behind, and ends with "
            f"{', '.join(suffixes)}",
        )
    return [pairs[name] for name in sorted(pairs)]


def load_pair(pair: Pair, *, instances: bool) -> LabelledImage:
    """Read an image and its labels.

    Parameters
    ----------
    pair : Pair
    instances : bool
        Whether the labels are ids of objects (65535 is not labelled) rather than classes (255 is not).

    Raises
    ------
    UserError
        If a file cannot be read, the sizes differ, or the classes are not 0 to 255.
    """
    rgb = read_rgb(pair.image)
    labels = read_labels_image(pair.label)
    if labels.shape != rgb.shape[:2]:
        height, width = labels.shape
        raise UserError(
            f"the label is {width} x {height} pixels and its image {rgb.shape[1]} x {rgb.shape[0]}",
            pair.label,
            "labels must have the size of their image",
        )
    if instances:
        valid = labels != IGNORED_INSTANCE
        return LabelledImage(pair.name, rgb, np.where(valid, labels, 0).astype(np.int32), valid)
    if labels.size and labels.max() > IGNORED:
        raise UserError(
            f"the label holds numbers up to {labels.max()}, and classes end at 254",
            pair.label,
            "say that the labels are instances, or write class numbers",
        )
    return LabelledImage(pair.name, rgb, labels.astype(np.uint8), labels != IGNORED)


def load_pairs(pairs: Sequence[Pair], *, instances: bool) -> list[LabelledImage]:
    """Read a data set with :func:`load_pair`, and check that something is labelled in it.

    Raises
    ------
    UserError
        As :func:`load_pair`, and if no image has any foreground.
    """
    images = [load_pair(pair, instances=instances) for pair in pairs]
    if not any(((image.labels > 0) & image.valid).any() for image in images):
        folder = pairs[0].label.parent if pairs else None
        if not all(image.valid.all() for image in images):
            ignored = IGNORED_INSTANCE if instances else IGNORED
            raise UserError(
                f"the labels hold only 0 and {ignored}, which means not labelled",
                folder,
                "write foreground as 1",
            )
        raise UserError("the labels hold no foreground at all", folder, "write foreground as 1")
    return images


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if not folder.is_dir():
        raise UserError("there is no such folder", folder, "check the path")
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))


def _is_label_of(stem: str, stems: set[str]) -> bool:
    return any(end and stem.endswith(end) and stem.removesuffix(end) in stems for end in LABEL_ENDINGS)
