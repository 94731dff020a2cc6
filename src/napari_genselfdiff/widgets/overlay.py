"""The read-only overlay: what a person drew, else what the model said, on every layer of the slide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.geometry import Region, layer_shape
from napari_genselfdiff.widgets.colors import label_colormap

if TYPE_CHECKING:
    from napari.layers import Image, Labels
    from napari.viewer import Viewer

    from napari_genselfdiff.session import Session

OVERLAY_NAME = "segmentation"


class Overlay:
    """A multiscale labels layer over a session's labels, read when they are looked at.

    Parameters
    ----------
    viewer : Viewer
    session : Session
    image : Image
        Layer of the slide; the overlay lies exactly on it.
    """

    def __init__(self, viewer: Viewer, session: Session, image: Image) -> None:
        self.session = session
        self.version: str | None = None
        """Whose predictions are shown; those of the model in use when None."""
        self.hole: Region | None = None
        """Where nothing is shown, because an editable window lies there."""
        self._levels = [ComposedLevel(self, index) for index in range(session.layer_count())]
        self.layer: Labels = viewer.add_labels(
            self._data(),
            name=OVERLAY_NAME,
            scale=image.scale[-2:],
            translate=image.translate[-2:],
            units=image.units[-2:],
            opacity=0.45,
            colormap=label_colormap(len(session.classes)),
            **({"multiscale": True} if len(self._levels) > 1 else {}),
        )
        self.layer.editable = False

    def refresh(self) -> None:
        """Show what changed."""
        # napari keeps the coarsest level of multiscale data in memory until the data is assigned anew.
        if self.layer.multiscale and self.layer.data_level < len(self._levels) - 1:
            self.layer.refresh(extent=False, thumbnail=False)
        else:
            self.layer.data = self._data()

    def show_version(self, version: str | None) -> None:
        """Show the predictions of another version; None for the model in use."""
        self.version = version
        self.layer.colormap = label_colormap(len(self.session.classes))
        self.layer.data = self._data()

    def _data(self) -> Any:
        return list(self._levels) if len(self._levels) > 1 else np.asarray(self._levels[0])


class ComposedLevel:
    """An array-like of one layer, composed from the session's stores when it is indexed."""

    dtype = np.dtype(np.uint8)
    ndim = 2

    def __init__(self, overlay: Overlay, layer: int) -> None:
        self._overlay, self._layer = overlay, layer
        self.shape = layer_shape(overlay.session.slide.shape, layer)
        self.size = self.shape[0] * self.shape[1]

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        key = key if isinstance(key, tuple) else (key,)
        key = (*key, *[slice(None)] * (2 - len(key)))
        (top, bottom, step_y), (left, right, step_x) = (
            (part if isinstance(part, slice) else slice(int(part), int(part) + 1)).indices(length)
            for part, length in zip(key, self.shape, strict=True)
        )
        height, width = max(0, bottom - top), max(0, right - left)
        session = self._overlay.session
        labels = session.labels(self._layer, top, left, height, width, version=self._overlay.version)
        self._cut_hole(labels, top, left)
        labels = labels[::step_y, ::step_x]
        whole = tuple(slice(None) if isinstance(part, slice) else 0 for part in key)
        return labels[whole]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:, :], dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def _cut_hole(self, labels: NDArray[np.uint8], top: int, left: int) -> None:
        hole, width = self._overlay.hole, 2**self._layer
        if hole is not None:
            rows = slice(max(0, hole.y // width - top), max(0, -(-hole.bottom // width) - top))
            columns = slice(max(0, hole.x // width - left), max(0, -(-hole.right // width) - left))
            labels[rows, columns] = 0
