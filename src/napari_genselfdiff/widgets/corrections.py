"""The editable window: a numpy labels layer over a part of the slide, committed stroke by stroke."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_genselfdiff.annotations import encode
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.widgets.colors import label_colormap
from napari_genselfdiff.widgets.view import pixels_per_screen_pixel, visible_region

if TYPE_CHECKING:
    from napari.layers import Image, Labels
    from napari.viewer import Viewer

    from napari_genselfdiff.session import Session

WINDOW_NAME = "corrections"
LARGEST = 2048
"""Longest side of the window in its own pixels; painting is fast up to here."""


class CorrectionWindow(QObject):
    """An editable window at the magnification in view.

    napari cannot paint on multiscale labels, so the user paints on a small array that lies over the slide;
    each stroke goes to the session's journal and store at once.

    Parameters
    ----------
    viewer : Viewer
    session : Session
    image : Image
        Layer of the slide.
    region : Region
        Part of the slide, in level-0 pixels.
    layer : int
        Magnification: a pixel of the window is ``2**layer`` level-0 pixels.
    """

    committed = Signal()

    def __init__(self, viewer: Viewer, session: Session, image: Image, *, region: Region, layer: int) -> None:
        super().__init__()
        self.session, self.magnification = session, layer
        width = 2**layer
        self.y, self.x = region.y // width, region.x // width
        self.height = min(LARGEST, math.ceil(region.bottom / width) - self.y)
        self.width = min(LARGEST, math.ceil(region.right / width) - self.x)
        self._shadow = self._stored()
        self.height, self.width = self._shadow.shape
        pixel = np.array(image.scale[-2:])
        # The middle of the window's first pixel, in level-0 pixels.
        first = (np.array([self.y, self.x]) + 0.5) * width - 0.5
        self.layer: Labels = viewer.add_labels(
            self._shadow.copy(),
            name=WINDOW_NAME,
            scale=pixel * width,
            translate=np.array(image.translate[-2:]) + first * pixel,
            units=image.units[-2:],
            opacity=0.55,
            colormap=label_colormap(len(session.classes)),
        )
        self.layer.mode = "paint"
        self.layer.brush_size = 10
        self.layer.selected_label = 1
        self.layer.editable = not session.annotations.read_only
        # napari announces some strokes before it changes the data: look when it has returned.
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self.commit)
        self.layer.events.paint.connect(lambda _event: self._soon.start(0))
        self._bind_keys()

    @property
    def region(self) -> Region:
        """The window's place on the slide, in level-0 pixels."""
        width = 2**self.magnification
        return Region(self.y * width, self.x * width, self.height * width, self.width * width)

    def commit(self) -> None:
        """Send what changed since the last stroke to the session."""
        changed = self.layer.data != self._shadow
        if not changed.any():
            return
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        self.session.annotations.stroke(
            self.magnification,
            self.y + int(rows[0]),
            self.x + int(columns[0]),
            encode(self.layer.data[box]),
            changed[box],
        )
        self._shadow[box] = self.layer.data[box]
        self.committed.emit()

    def accept(self, part: Region | None = None) -> None:
        """Say that the window is right as it stands.

        Parameters
        ----------
        part : Region, optional
            Only a part of it, in the window's pixels.
        """
        self.commit()
        part = part or Region(0, 0, *self._shadow.shape)
        labels = self._shadow[part.y : part.bottom, part.x : part.right]
        box = Region(self.y + part.y, self.x + part.x, *labels.shape)
        self.session.annotations.accept(self.magnification, box, encode(labels))

    def undo(self, _layer: Any = None) -> None:
        """Take the last stroke of the session back, wherever it was."""
        self.commit()
        self.session.annotations.undo()
        self.reload()

    def redo(self, _layer: Any = None) -> None:
        """Do again what was taken back."""
        self.session.annotations.redo()
        self.reload()

    def reload(self) -> None:
        """Show the session's labels anew (after undo, or when the model's predictions changed)."""
        self._shadow = self._stored()
        self.layer.data = self._shadow.copy()
        self.layer.editable = not self.session.annotations.read_only

    def _stored(self) -> NDArray[np.uint8]:
        return self.session.labels(self.magnification, self.y, self.x, self.height, self.width)

    def _bind_keys(self) -> None:
        def choose(label: int) -> Any:
            def select(layer: Labels) -> None:
                layer.selected_label = label

            return select

        for label in range(min(10, len(self.session.classes))):
            self.layer.bind_key(str(label), choose(label), overwrite=True)
        self.layer.bind_key("Control-Z", self.undo, overwrite=True)
        self.layer.bind_key("Control-Shift-Z", self.redo, overwrite=True)


def window_at_view(viewer: Viewer, session: Session, image: Image) -> CorrectionWindow | None:
    """An editable window over what is on the screen; None when the slide is not."""
    region = visible_region(viewer, image, session.slide.shape)
    if region is None:
        return None
    zoom = max(1.0, pixels_per_screen_pixel(viewer, image))
    layer = min(round(math.log2(zoom)), session.layer_count() - 1)
    # A canvas larger than the largest window gets a coarser one rather than a part of the view.
    while max(region.height, region.width) > LARGEST * 2**layer and layer < session.layer_count() - 1:
        layer += 1
    return CorrectionWindow(viewer, session, image, region=region, layer=layer)
