"""What every verb checks before it begins to work."""

from __future__ import annotations

import os
from pathlib import Path

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides import open_slide
from napari_genselfdiff.slides.slide import PLAUSIBLE_MPP


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
