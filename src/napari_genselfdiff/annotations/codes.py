"""Pixel codes: what one byte of the edit store says.

======== ============================================================
code     meaning
======== ============================================================
0        unseen: nobody has looked here
bits 0-4 class + 1 (class 0 is the background, up to class 30)
bit 5    set: joined, touching pixels of this kind lie in one object
bit 6    reserved (`ERASED`, inside the store only)
bit 7    set: accepted ("this view is right"); clear: edited by hand
======== ============================================================
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Codes = NDArray[np.uint8]
Mask = NDArray[np.bool_]

UNSEEN = 0
ACCEPTED_BIT = 0x80
JOINED_BIT = 0x20
CLASS_BITS = 0x1F
MAX_CLASS = CLASS_BITS - 1

# A fine layer shows the coarser ones through its unseen pixels. Where the user made a place unseen again
# that a coarser edit covers, the fine layer needs a value of its own. It never leaves the store.
ERASED = 0x40


def encode(classes: ArrayLike, accepted: ArrayLike = False, *, joined: ArrayLike = False) -> Codes:
    """Codes of classes.

    Parameters
    ----------
    classes : array_like of int
        0 to 30; -1 is unseen.
    accepted : bool or array_like of bool
        Whether the pixel was accepted rather than edited.
    joined : bool or array_like of bool
        Whether the pixel holds its object together; not heard on the background.

    Returns
    -------
    ndarray of uint8
        Same shape as ``classes``.

    Raises
    ------
    ValueError
        If a class is out of range.
    """
    numbers = np.asarray(classes)
    if numbers.dtype != np.uint8:  # what the editable window holds, by the million: not made larger
        numbers = numbers.astype(np.int64)
    if numbers.size and (numbers.min() < -1 or numbers.max() > MAX_CLASS):
        raise ValueError(f"classes go from 0 to {MAX_CLASS} (-1 is unseen)")
    codes = (numbers + 1).astype(np.uint8)
    if accepted is not False:
        flags = np.where(np.asarray(accepted, dtype=bool), ACCEPTED_BIT, 0).astype(np.uint8)
        codes = np.where(codes == UNSEEN, codes, codes | flags)
    if joined is not False:
        codes = np.where(np.asarray(joined, dtype=bool) & (numbers > 0), codes | np.uint8(JOINED_BIT), codes)
    return codes


def classes_of(codes: Codes) -> NDArray[np.int16]:
    """Classes of codes; -1 where unseen."""
    return (codes & CLASS_BITS).astype(np.int16) - 1


def is_edited(codes: Codes) -> Mask:
    """Where a person drew."""
    edited: Mask = ((codes & CLASS_BITS) != 0) & ((codes & ACCEPTED_BIT) == 0)
    return edited


def is_accepted(codes: Codes) -> Mask:
    """Where a person said that the view is right."""
    accepted: Mask = (codes & ACCEPTED_BIT) != 0
    return accepted


def is_joined(codes: Codes) -> Mask:
    """Where a person said what belongs to one object.

    Such pixels that touch, also at their corners, lie in one object, and in another one than all others.
    """
    joined: Mask = (codes & JOINED_BIT) != 0
    return joined


def visible(stored: Codes) -> Codes:
    """Codes as the store shows them: what was erased is unseen."""
    return np.where(stored == ERASED, np.uint8(UNSEEN), stored)


def check(codes: Codes) -> None:
    """Refuse bytes that are not codes.

    Raises
    ------
    TypeError
        If the array is not uint8.
    ValueError
        If a reserved bit is set, or a pixel without a class is accepted or joined.
    """
    if codes.dtype != np.uint8:
        raise TypeError(f"codes are uint8, not {codes.dtype}")
    if bool((codes & ERASED).any()) or bool(((codes != UNSEEN) & ((codes & CLASS_BITS) == 0)).any()):
        raise ValueError("these bytes are not pixel codes: make them with encode()")
