"""The read-only overlay: what a person drew, else what the model said, on every layer of the slide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.geometry import Region, layer_shape
from napari_genselfdiff.widgets.colors import label_colormap
from napari_genselfdiff.widgets.own import OWN

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
        """Where an editable window lies, which shows what there is."""
        self._levels: list[Any] = [ComposedLevel(self, index) for index in range(session.layer_count())]
        # napari keeps the coarsest level of multiscale data in memory (and takes an array as it is): this is
        # the very array that it keeps, so that writing into it is enough to show what changed.
        self._coarsest = self._levels[-1][:, :]
        self._levels[-1] = self._coarsest
        self.layer: Labels = viewer.add_labels(
            self._data(),
            name=OVERLAY_NAME,
            metadata=OWN,
            scale=image.scale[-2:],
            translate=image.translate[-2:],
            units=image.units[-2:],
            opacity=0.45,
            colormap=label_colormap(len(session.classes), session.colours),
            **({"multiscale": True} if len(self._levels) > 1 else {}),
        )
        self.layer.editable = False

    @property
    def cut(self) -> Region | None:
        """Where nothing is shown now: another version is shown everywhere."""
        return self.hole if self.version is None else None

    def read_coarsest(self) -> NDArray[np.uint8]:
        """Labels of the coarsest layer as they are now, for `refresh`; safe in any thread."""
        layer = self.session.layer_count() - 1
        height, width = layer_shape(self.session.slide.shape, layer)
        return self.session.labels(layer, 0, 0, height, width, version=self.version)

    def refresh(self, coarsest: NDArray[np.uint8] | None = None) -> None:
        """Show what changed.

        Parameters
        ----------
        coarsest : ndarray of uint8, optional
            What `read_coarsest` returned; read here by default.
        """
        self._coarsest[:] = self.read_coarsest() if coarsest is None else coarsest
        _cut(self._coarsest, self.cut, len(self._levels) - 1, 0, 0)
        self.layer.refresh(extent=False)

    def show_version(self, version: str | None) -> None:
        """Show the predictions of another version; None for the model in use."""
        self.version = version
        self.layer.colormap = label_colormap(len(self.session.classes), self.session.colours)
        self.refresh()

    def _data(self) -> Any:
        return list(self._levels) if len(self._levels) > 1 else self._coarsest


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
        labels = self._read(Region(top, left, max(0, bottom - top), max(0, right - left)))
        labels = labels[::step_y, ::step_x]
        whole = tuple(slice(None) if isinstance(part, slice) else 0 for part in key)
        return labels[whole]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:, :], dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def _read(self, region: Region) -> NDArray[np.uint8]:
        session, hole, layer = self._overlay.session, self._overlay.cut, self._layer
        if hole is not None and _hole(hole, layer).intersection(region) == region:
            # Nothing of it is shown: the editable window covers the view most of the time.
            return np.zeros((region.height, region.width), np.uint8)
        labels = session.labels(
            layer, region.y, region.x, region.height, region.width, version=self._overlay.version
        )
        _cut(labels, hole, layer, region.y, region.x)
        return labels


def _hole(hole: Region, layer: int) -> Region:
    """A region of level-0 pixels in those of a layer, rounded outward."""
    y, x = hole.y >> layer, hole.x >> layer
    return Region(y, x, -(-hole.bottom >> layer) - y, -(-hole.right >> layer) - x)


def _cut(labels: NDArray[np.uint8], hole: Region | None, layer: int, top: int, left: int) -> None:
    """Show nothing where the hole is; ``(top, left)`` is the first pixel of ``labels`` in its layer."""
    part = _hole(hole, layer).intersection(Region(top, left, *labels.shape)) if hole is not None else None
    if part is not None:
        labels[part.y - top : part.bottom - top, part.x - left : part.right - left] = 0
