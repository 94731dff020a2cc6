"""What every verb checks before it begins to work."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.images import IMAGE_SUFFIXES
from napari_genselfdiff.slides import open_slide
from napari_genselfdiff.slides.addresses import located
from napari_genselfdiff.slides.slide import PLAUSIBLE_MPP
from napari_genselfdiff.slides.zarr_reader import MARKERS

SCANNED = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".zarr")
"""Endings of slides, beside those of plain images; one file of a DICOM series must be named."""


def find_slides(images: Sequence[str | Path], *, output: str | Path | None = None) -> list[Path | str]:
    """Slides in files, folders and patterns, and at addresses.

    Parameters
    ----------
    images : sequence of str or Path
        Files (and Zarr folders); folders, of which the slides are taken by their endings, those below not;
        patterns with ``*``, ``?`` and ``[]``, in which ``**`` stands for any folders; addresses of Zarrs,
        which are taken as they are.
    output : str or Path, optional
        In this folder nothing that ends with ``.zarr`` is a slide.

    Returns
    -------
    list of Path or str
        Paths are absolute; each once; sorted within a folder or pattern.

    Raises
    ------
    UserError
        If one of them is not there, or there is no slide in it.
    """
    found: dict[Path | str, None] = {}
    for image in map(str, images):
        where = located(image)
        if isinstance(where, str):
            found[where] = None
            continue
        path = where.absolute()
        if path.exists():
            slides = _in_folder(path, output) if is_folder(path) else [path]
        else:
            slides = [Path(name).absolute() for name in sorted(glob.glob(image, recursive=True))]
        if not slides and path.is_dir():
            known = ", ".join((*SCANNED, *IMAGE_SUFFIXES))
            raise UserError("no slide was found in the folder", image, f"slides end with {known}")
        if not slides:
            raise UserError("there is no such slide", image, "check the path")
        found.update(dict.fromkeys(slides))
    return list(found)


def is_folder(path: Path) -> bool:
    """Whether this is a folder that is not itself a (Zarr) slide."""
    return path.is_dir() and not any((path / marker).is_file() for marker in MARKERS)


def _in_folder(folder: Path, output: str | Path | None) -> list[Path]:
    ours = output is not None and folder == Path(output).absolute()
    known = {*SCANNED, *IMAGE_SUFFIXES} - ({".zarr"} if ours else set())
    # hidden files are of the system, or what is left of a write that was killed
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in known and path.name[0] != ".")
    # Hamamatsu keeps the parts of a slide, and its macro image, as pictures beside the file that lists them
    lists = [path.read_text("latin-1") for path in found if path.suffix.lower() in (".vms", ".vmu")]
    return [path for path in found if not any(f"={path.name}" in text for text in lists)]


def check_mpp(mpp: float | None, option: str) -> float | None:
    """Return a resolution in micrometres per pixel, if it can be one.

    Raises
    ------
    UserError
        If it is not within 0.01 to 100.
    """
    low, high = PLAUSIBLE_MPP
    if mpp is not None and not low <= mpp <= high:
        raise UserError(
            f"{mpp:g} micrometres per pixel cannot be a resolution", option, f"give {low:g} to {high:g}"
        )
    return mpp


def resolution_of(image: Path, mpp: float | None) -> float | None:
    """Micrometres per pixel of an image file: the one given, else what the file says, else None."""
    if mpp is not None:
        return mpp
    try:
        return open_slide(image).mpp
    except UserError:
        return None  # Read as a plain picture, which knows no resolution either.


def check_writable(path: Path) -> None:
    """Fail before the work rather than after it when its result cannot be written.

    Raises
    ------
    UserError
        If the path is a folder, or its folder cannot be written to.
    """
    if path.is_dir():
        raise UserError("the output is a folder", path, "name a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the output's folder cannot be made ({error.strerror})", path, "write elsewhere"
        ) from error
    if not os.access(path.parent, os.W_OK):
        raise UserError("the output's folder cannot be written to", path, "write elsewhere")
