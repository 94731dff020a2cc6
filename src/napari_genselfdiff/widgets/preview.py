"""What a model in training says about the view, shown while it trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.errors import MissingScaleError
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.widgets.colors import label_colormap
from napari_genselfdiff.widgets.own import OWN
from napari_genselfdiff.workers import Queue

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

    from napari_genselfdiff.segmentation.network import Segmenter
    from napari_genselfdiff.widgets.layers import SessionLayers

PREVIEW_NAME = "preview"
LARGEST_VIEW = 1600
"""Model pixels: of a larger view, the middle is shown."""


class Preview:
    """A passing layer of labels over the view; one at a time, computed in a thread of its own.

    Parameters
    ----------
    on_error : callable
        Called with one line of text.
    """

    def __init__(self, on_error: Callable[[str], None]) -> None:
        self._on_error = on_error
        self._queue = Queue()
        self._viewer: Viewer | None = None
        self._layer: Labels | None = None
        self._number = 0
        self._busy = False

    def show(self, layers: SessionLayers, segmenter: Segmenter) -> None:
        """Segment the view with a model, and show the answer when it is there; nothing while one is due."""
        region = layers.visible_region()
        if self._busy or region is None:
            return
        session, number = layers.session, self._number
        slide, compute = session.slide, session.compute
        try:
            scale = segmenter.spec.scale_for(slide.mpp, slide.where)
        except MissingScaleError:
            return  # another slide is looked at by now, whose resolution is not known
        part = _middle(region, round(LARGEST_VIEW * scale))
        self._busy = True

        def work() -> tuple[NDArray[np.uint8], Region, float]:
            from napari_genselfdiff.finetuning.scoring import predict_image

            y, x = int(part.y / scale), int(part.x / scale)
            height, width = max(1, int(part.height / scale)), max(1, int(part.width / scale))
            rgb = slide.read_scaled(y, x, height, width, scale=scale)
            return predict_image(segmenter, rgb, compute).labels, Region(y, x, height, width), scale

        def arrived(found: tuple[NDArray[np.uint8], Region, float]) -> None:
            self._busy = False
            if number == self._number:
                self._put(layers, *found)

        def failed(message: str) -> None:
            self._busy = False
            self._on_error(message)

        self._queue.submit(work, arrived, failed)

    def clear(self) -> None:
        """Take the layer away; what is still being computed comes too late."""
        self._number += 1
        layer, self._layer = self._layer, None
        if layer is not None and self._viewer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def wait(self) -> None:
        """Take the layer away when what is being computed is done."""
        self.clear()
        self._queue.wait()

    def close(self) -> None:
        """Take the layer away and end the thread."""
        self.clear()
        self._queue.close()

    def _put(self, layers: SessionLayers, labels: NDArray[np.uint8], box: Region, scale: float) -> None:
        """Show labels; the layer that is there takes them, for napari holds the window up to remove one."""
        viewer, image, session = layers.viewer, layers.image, layers.session
        pixel = np.array(image.scale[-2:])
        first = (np.array([box.y, box.x]) + 0.5) * scale - 0.5
        where: dict[str, Any] = {
            "scale": pixel * scale,
            "translate": np.array(image.translate[-2:]) + first * pixel,
        }
        colormap = label_colormap(len(session.classes), session.colours)
        if self._layer is not None and self._layer in viewer.layers:
            self._layer.data, self._layer.colormap = labels, colormap
            for name, value in where.items():
                setattr(self._layer, name, value)
            self._layer.editable = False  # new data are editable
            return
        self._viewer = viewer
        active = viewer.layers.selection.active
        self._layer = viewer.add_labels(
            labels,
            name=PREVIEW_NAME,
            metadata=OWN,
            units=image.units[-2:],
            opacity=0.6,
            colormap=colormap,
            **where,
        )
        self._layer.contour = 2
        self._layer.editable = False
        # Painting goes on where it was.
        viewer.layers.selection.active = active


def _middle(region: Region, side: int) -> Region:
    height, width = min(region.height, side), min(region.width, side)
    return Region(
        region.y + (region.height - height) // 2, region.x + (region.width - width) // 2, height, width
    )
