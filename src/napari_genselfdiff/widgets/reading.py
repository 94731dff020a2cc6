"""What the editable window shows of a place: what was drawn, over what the model says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.annotations import is_edited
from napari_genselfdiff.annotations.pyramid import rescaled
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.widgets.colors import PAINTED_BACKGROUND
from napari_genselfdiff.widgets.placing import Place

if TYPE_CHECKING:
    from napari_genselfdiff.session import Session


def labels_of(
    session: Session, place: Place, *, background: bool, answered: Region | None
) -> NDArray[np.uint8]:
    """Read a place of the slide that is looked at.

    Parameters
    ----------
    session : Session
    place : Place
    background : bool
        Whether background that a person painted is told from what is merely no class.
    answered : Region or None
        In level-0 pixels: where something else shows what is said, so that only what was drawn is wanted.

    Returns
    -------
    ndarray of uint8, shape (place.height, place.width)
        Classes, or `PAINTED_BACKGROUND`.
    """
    here = Region(place.y, place.x, place.height, place.width)
    labels = session.labels(place.layer, place.y, place.x, place.height, place.width)
    hidden = None if answered is None else rescaled(answered, 0, place.layer).intersection(here)
    if background or hidden is not None:
        drawn = session.annotations.read(place.layer, here)
        if hidden is not None:
            part = hidden.within(here)
            labels[part][drawn[part] == 0] = 0
        if background:
            labels[is_edited(drawn) & (labels == 0)] = PAINTED_BACKGROUND
    return labels
