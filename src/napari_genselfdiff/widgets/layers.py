"""The layers of one session in the viewer: the slide, the overlay, and the editable window."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from napari_genselfdiff.geometry import Region
from napari_genselfdiff.widgets.corrections import CorrectionWindow, window_at_view
from napari_genselfdiff.widgets.overlay import Overlay
from napari_genselfdiff.widgets.tissue import TissueOutline
from napari_genselfdiff.widgets.view import visible_region

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer

    from napari_genselfdiff.session import Session


class SessionLayers:
    """Shows a session's labels over its slide, and keeps them current.

    Parameters
    ----------
    viewer : Viewer
    session : Session
    image : Image
        Layer of the slide.

    Attributes
    ----------
    overlay : Overlay or None
        None after the user removed its layer, until something is segmented.
    editing : CorrectionWindow or None
    """

    def __init__(self, viewer: Viewer, session: Session, image: Image) -> None:
        self.viewer, self.session, self.image = viewer, session, image
        self.editing: CorrectionWindow | None = None
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
        if self.editing is not None:
            self.editing.commit()
        self.session.annotations.undo()
        self.refresh()

    def redo(self) -> None:
        """Do again what was taken back."""
        if self.editing is not None:
            self.editing.commit()
        self.session.annotations.redo()
        self.refresh()

    def refresh(self) -> None:
        """Show what changed; the overlay comes back when it was removed."""
        if self.editing is not None:
            self.editing.commit()
            self.editing.reload()
        self._refresh_overlay()

    def show_tissue(self, shown: bool, on_message: Callable[[str], None]) -> None:
        """Show the outline of the tissue as it is now, or take it away."""
        if not shown:
            if self.tissue is not None:
                self.tissue.remove()
            return
        if self.tissue is None:
            self.tissue = TissueOutline(self.viewer, self.session, self.image, on_message)
        self.tissue.find()

    def correct_here(self) -> bool:
        """Make the view editable; False when the slide is not in view."""
        self.stop_editing()
        self.editing = window_at_view(self.viewer, self.session, self.image)
        if self.editing is None:
            return False
        self._refresh_overlay()
        # A new overlay lies on top: the window goes back above it.
        self.viewer.layers.move(self.viewer.layers.index(self.editing.layer), len(self.viewer.layers))
        self.viewer.layers.selection.active = self.editing.layer
        return True

    def stop_editing(self) -> None:
        """Commit and remove the editable window."""
        editing, self.editing = self.editing, None
        if editing is not None:
            editing.commit()
            self._remove(editing.layer)
        if self.overlay is not None:
            self.overlay.hole = None

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
        self.stop_editing()
        self._close_tissue()
        overlay, self.overlay = self.overlay, None
        if overlay is not None:
            self._remove(overlay.layer)

    def _refresh_overlay(self) -> None:
        if self.overlay is None:
            self.overlay = Overlay(self.viewer, self.session, self.image)
        self.overlay.hole = self.editing.region if self.editing is not None else None
        self.overlay.refresh()

    def _close_tissue(self) -> None:
        tissue, self.tissue = self.tissue, None
        if tissue is not None:
            tissue.close()

    def _remove(self, layer: object) -> None:
        if layer in self.viewer.layers:
            self.viewer.layers.remove(layer)
