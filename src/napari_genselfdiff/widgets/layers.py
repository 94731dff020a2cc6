"""The layers of one session in the viewer: the slide, the overlay, and the editable window."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.geometry import Region
from napari_genselfdiff.widgets.colors import label_colormap
from napari_genselfdiff.widgets.corrections import CorrectionWindow
from napari_genselfdiff.widgets.gestures import Gestures
from napari_genselfdiff.widgets.objects import ObjectReader, Outlines
from napari_genselfdiff.widgets.overlay import Overlay
from napari_genselfdiff.widgets.tissue import TissueOutline
from napari_genselfdiff.widgets.view import visible_region
from napari_genselfdiff.workers import Queue

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_genselfdiff.annotations import Change
    from napari_genselfdiff.session import Session


class SessionLayers:
    """Shows a session's labels over its slide, and keeps them current.

    Parameters
    ----------
    viewer : Viewer
    session : Session
    image : Image
        Layer of the slide.
    on_message : callable
        Called with what the user should know.
    on_change : callable
        Called when a stroke is stored, taken back or done again.

    Attributes
    ----------
    overlay : Overlay or None
        None after the user removed its layer, until something is segmented.
    editing : CorrectionWindow or None
    edits : Queue
        Where strokes are written and pixels are read, in order.
    gestures : Gestures or None
        On single objects, while there is an editable window.
    """

    def __init__(
        self,
        viewer: Viewer,
        session: Session,
        image: Image,
        *,
        on_message: Callable[[str], None],
        on_change: Callable[[], None],
    ) -> None:
        self.viewer, self.session, self.image = viewer, session, image
        self._on_message, self._on_change = on_message, on_change
        self.edits = Queue()
        self.editing: CorrectionWindow | None = None
        self.gestures: Gestures | None = None
        self._outlines: Outlines | None = None
        self.overlay: Overlay | None = Overlay(viewer, session, image)
        self.tissue: TissueOutline | None = None
        # In screen pixels it would mean nothing.
        viewer.canvas.overlays.scale_bar.visible = session.slide.mpp is not None

    def visible_region(self) -> Region | None:
        """The part of the slide that is on the screen, in level-0 pixels."""
        return visible_region(self.viewer, self.image, self.session.slide.shape)

    def keep_view(self) -> None:
        """Remember in the session what is looked at."""
        camera = self.viewer.scene.camera
        self.session.view = {"center": [float(c) for c in camera.center], "zoom": float(camera.zoom)}

    def restore_view(self) -> None:
        """Look at what was looked at when the session was closed."""
        if self.session.view:
            self.viewer.scene.camera.center = tuple(self.session.view["center"])
            self.viewer.scene.camera.zoom = self.session.view["zoom"]

    def undo(self) -> None:
        """Take the last stroke back, wherever it was."""
        self._step(self.session.annotations.undo, "Taken back")

    def redo(self) -> None:
        """Do again what was taken back."""
        self._step(self.session.annotations.redo, "Done again")

    def finish_edits(self) -> None:
        """Return when every stroke is stored."""
        if self.editing is not None:
            self.editing.commit()
        self.edits.wait()

    def refresh(self) -> None:
        """Show what changed; the overlay comes back when it was removed."""
        if self.overlay is None:
            self.overlay = Overlay(self.viewer, self.session, self.image)
            self._raise_editing()
        if self.editing is not None:
            self.editing.reload()
        else:
            self.edits.submit(self._read_coarsest, self._show_coarsest, self._on_message)

    def show_tissue(self, shown: bool) -> None:
        """Show the outline of the tissue as it is now, or take it away."""
        if not shown:
            if self.tissue is not None:
                self.tissue.remove()
            return
        if self.tissue is None:
            self.tissue = TissueOutline(self.viewer, self.session, self.image, self._on_message)
        self.tissue.find()

    def correct_here(self) -> bool:
        """Make the view editable; False when the slide is not in view."""
        self.stop_editing()
        if self.visible_region() is None:
            return False
        editing = CorrectionWindow(
            self.viewer, self.session, self.image, self.edits, read_along=self._read_coarsest
        )
        editing.bind_history(self.undo, self.redo)
        editing.committed.connect(self._on_change)
        editing.shown.connect(self._show_coarsest)
        editing.failed.connect(self._refuse)
        self.editing = editing
        if self.overlay is None:
            self.overlay = Overlay(self.viewer, self.session, self.image)
        self._show_coarsest(self.overlay.read_coarsest())
        self._raise_editing()
        reader = ObjectReader(self.session, self.session.predictions)
        self._outlines = Outlines(self.viewer, editing, reader)
        self.gestures = Gestures(self.viewer, editing, reader, self._outlines)
        self.gestures.said.connect(self._on_message)
        self.viewer.layers.selection.active = editing.layer
        return True

    def recolour(self) -> None:
        """Show the classes in the colours that they have now."""
        colormap = label_colormap(len(self.session.classes), self.session.colours)
        for part in (self.overlay, self.editing):
            if part is not None:
                part.layer.colormap = colormap
        if self.editing is not None:
            self.editing.choice.check()

    def stop_editing(self) -> None:
        """Commit and remove the editable window."""
        editing, self.editing = self.editing, None
        if editing is not None:
            with self.viewer.layers.batched_update():  # napari collects garbage once and not for each layer
                self._close_gestures()
                editing.close()
                self.edits.wait()
                self._remove(editing.layer)
        if self.overlay is not None and self.overlay.hole is not None:
            self.overlay.hole = None
            self.overlay.refresh()

    def rescale(self, mpp: float) -> None:
        """Show the slide in micrometres."""
        self.stop_editing()
        self._close_tissue()
        self.image.scale = (mpp, mpp)
        self.image.units = ("micrometer", "micrometer")
        if self.overlay is not None:
            self._remove(self.overlay.layer)
        self.overlay = Overlay(self.viewer, self.session, self.image)
        self.viewer.canvas.overlays.scale_bar.visible = True

    def forget_removed(self) -> None:
        """Follow layers that the user removed."""
        if self.editing is not None and self.editing.layer not in self.viewer.layers:
            self.stop_editing()
        if self.overlay is not None and self.overlay.layer not in self.viewer.layers:
            self.overlay = None

    def remove(self) -> None:
        """Take the session's layers, but the slide, out of the viewer."""
        with self.viewer.layers.batched_update():  # garbage is collected once, as in `stop_editing`
            self._close_gestures()
            if self.editing is not None:
                self.editing.close()
            self.edits.close()
            overlay, self.overlay = self.overlay, None
            editing, self.editing = self.editing, None
            self._close_tissue()
            for part in (editing, overlay):
                if part is not None:
                    self._remove(part.layer)

    def _step(self, step: Callable[[], Change | None], what: str) -> None:
        """Take one step through the history, behind the strokes that are still being written."""
        if self.editing is not None:
            self.editing.commit()

        def done(change: Change | None) -> None:
            if change is not None:
                self._say_where(change, what)
                self.refresh()
            self._on_change()

        self.edits.submit(step, done, self._refuse)

    def _refuse(self, message: str) -> None:
        """Say, whatever else runs, that a stroke was not kept."""
        from napari.utils.notifications import show_error

        self._on_message(message)
        show_error(message)

    def _say_where(self, change: Change, what: str) -> None:
        """Say where something changed, if nobody can see it."""
        width, view = 2**change.layer, self.visible_region()
        place = Region(change.y * width, change.x * width, change.height * width, change.width * width)
        if view is None or place.intersection(view) is None:
            y, x = (f"{round(side):,}" for side in place.centre)
            self._on_message(f"{what} outside of the view: around x {x}, y {y} (pixels of the slide).")

    def _read_coarsest(self) -> NDArray[np.uint8] | None:
        overlay = self.overlay
        return overlay.read_coarsest() if overlay is not None else None

    def _show_coarsest(self, coarsest: NDArray[np.uint8] | None) -> None:
        """Show in the overlay what changed, but not where the editable window lies."""
        if self.overlay is not None:
            self.overlay.hole = self.editing.region if self.editing is not None else None
            self.overlay.refresh(coarsest)

    def _raise_editing(self) -> None:
        """Put the editable window above a new overlay."""
        if self.editing is not None:
            layers = self.viewer.layers
            layers.move(layers.index(self.editing.layer), len(layers))

    def _close_gestures(self) -> None:
        gestures, self.gestures = self.gestures, None
        outlines, self._outlines = self._outlines, None
        if gestures is not None:
            gestures.close()
        if outlines is not None:
            outlines.close()

    def _close_tissue(self) -> None:
        tissue, self.tissue = self.tissue, None
        if tissue is not None:
            tissue.close()

    def _remove(self, layer: object) -> None:
        if layer in self.viewer.layers:
            self.viewer.layers.remove(layer)
