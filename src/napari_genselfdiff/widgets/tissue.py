"""The outline of the tissue on the slide, found in a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from napari_genselfdiff.events import CancelToken, Event, Finished
from napari_genselfdiff.slides.tissue import Tissue
from napari_genselfdiff.widgets.own import OWN
from napari_genselfdiff.workers import Job

if TYPE_CHECKING:
    from napari.layers import Image, Labels
    from napari.viewer import Viewer

    from napari_genselfdiff.session import Session

OUTLINE_NAME = "tissue outline"
COLOUR = "#009E73"


class TissueOutline:
    """A labels layer that shows the border of the tissue.

    Parameters
    ----------
    viewer : Viewer
    session : Session
    image : Image
        Layer of the slide; the outline lies exactly on it.
    on_message : callable
        Called with one line of text when the tissue was found, or why not.
    """

    def __init__(
        self, viewer: Viewer, session: Session, image: Image, on_message: Callable[[str], None]
    ) -> None:
        self.viewer, self.session, self.image, self.on_message = viewer, session, image, on_message
        self.layer: Labels | None = None
        self._job: Job | None = None
        self._again = self._wanted = False

    def find(self) -> None:
        """Find the tissue with the session's sensitivity, and show it."""
        self._wanted = True
        if self._job is not None:
            self._again = True
            return

        def work() -> Iterator[Event]:
            yield Finished(self.session.tissue.find())

        self._job = Job(
            work(), CancelToken(), on_event=self._show, on_error=self.on_message, on_end=self._ended
        )

    def close(self) -> None:
        """Take the outline away and wait for the thread."""
        self.remove()
        if self._job is not None:
            self._job.close()
            self._job = None

    def remove(self) -> None:
        """Take the outline away, at once."""
        self._again = self._wanted = False
        layer, self.layer = self.layer, None
        if layer is not None and layer in self.viewer.layers:
            self.viewer.layers.remove(layer)

    def _show(self, event: Event) -> None:
        assert isinstance(event, Finished)
        tissue = event.result
        assert isinstance(tissue, Tissue)
        if not self._wanted:
            return
        mask = tissue.mask.astype(np.uint8)
        if self.layer is not None and self.layer in self.viewer.layers:
            self.layer.data = mask
        else:
            active = self.viewer.layers.selection.active
            pixel = np.array(self.image.scale[-2:])
            self.layer = self.viewer.add_labels(
                mask,
                name=OUTLINE_NAME,
                metadata=OWN,
                scale=pixel * tissue.downsample,
                translate=np.array(self.image.translate[-2:]) + (tissue.downsample - 1) / 2 * pixel,
                units=self.image.units[-2:],
                colormap={None: "transparent", 1: COLOUR},
                opacity=0.9,
            )
            self.layer.contour = 1
            self.layer.editable = False
            # Right above the slide, and whoever was painting goes on painting.
            layers = self.viewer.layers
            layers.move(layers.index(self.layer), layers.index(self.image) + 1)
            layers.selection.active = active
        self.on_message(f"Tissue: {tissue.share:.0%} of the slide.")

    def _ended(self) -> None:
        self._job = None
        if self._again:
            self._again = False
            self.find()
