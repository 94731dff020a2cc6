"""What every layout takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Progress

SHOWN = 3
Pixels = tuple[NDArray[np.uint8], NDArray[Any]]


@dataclass(frozen=True)
class DatasetItem:
    """An image of a data set and its annotation, read when it is asked for.

    Attributes
    ----------
    name : str
        Unique in the data set.
    group : str
        What must not be divided between training and test: the patient, where the data set says which,
        else the image.
    mpp : float or None
        Micrometres per pixel; None where neither the layout nor the file says.
    image, label : Path
        Where they come from. The same for OME-Zarr that holds both.
    instances : bool
        Whether labels are ids of objects rather than classes.
    read : callable
        Gives the image and its labels.
    """

    name: str
    group: str
    mpp: float | None
    image: Path
    label: Path
    instances: bool
    read: Callable[[], Pixels] = field(repr=False, compare=False)

    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Read the image and its labels.

        Returns
        -------
        rgb : ndarray of uint8, shape (height, width, 3)
        ids : ndarray of int32, shape (height, width)
            0 is background. Ids of objects (65535 is not labelled), or classes (255 is not labelled) where
            `instances` is False.

        Raises
        ------
        UserError
            If a file is missing or damaged, or the sizes differ.
        """
        rgb, labels = self.read()
        if labels.shape != rgb.shape[:2]:
            height, width = labels.shape
            raise UserError(
                f"the annotation is {width} x {height} pixels and its image {rgb.shape[1]} x {rgb.shape[0]}",
                self.label,
                "annotations must have the size of their image",
            )
        return rgb, labels.astype(np.int32)


@dataclass(frozen=True)
class Request:
    """What is known of a data set before it is looked at.

    Attributes
    ----------
    folder : Path
    mpp : float or None
        Micrometres per pixel, in place of what the layout or the files say.
    labels : str or None
        Folder of masks, in place of the layout's own annotations; name of the label image in OME-Zarr.
    instances : bool or None
        Whether labels are wanted, or to be understood, as ids of objects (True) or classes (False).
    cancel : CancelToken
    """

    folder: Path
    mpp: float | None = None
    labels: str | None = None
    instances: bool | None = None
    cancel: CancelToken = field(default_factory=CancelToken)


Finding = Generator[Progress, None, list[DatasetItem]]
"""Looks at a data set for as long as it takes; what it returned when it was cancelled is of no use."""


def listed(names: list[str]) -> str:
    """The first few names."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def near(folder: Path, *, depth: int = 2) -> list[Path]:
    """A folder and the folders in it, because archives unpack into one or two of their own."""
    found = [folder]
    layer = [folder]
    for _ in range(depth):
        layer = [
            child
            for parent in layer
            for child in sorted(parent.iterdir())
            if child.is_dir() and not child.name.startswith(".") and child.suffix.lower() != ".zarr"
        ]
        found += layer
    return found
