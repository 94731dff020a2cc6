"""What the model before said, beside what the one in use says."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject

from napari_genselfdiff.widgets.opening import Opening
from napari_genselfdiff.widgets.sections import SegmentSection

if TYPE_CHECKING:
    from napari.layers import Labels


class Comparing(QObject):
    """Shows the version before in the overlay, and hides the editable window meanwhile.

    Parameters
    ----------
    opening : Opening
    section : SegmentSection
    explain : callable
        Called with why something that the user wanted cannot be done.
    """

    def __init__(self, opening: Opening, section: SegmentSection, explain: Callable[[str], None]) -> None:
        super().__init__()
        self.opening, self.section, self._explain = opening, section, explain
        self._hidden: Labels | None = None
        section.compare_toggled.connect(self._toggle)

    def stop(self) -> None:
        """Show the model in use again."""
        self.section.compare.setChecked(False)

    def refuse(self) -> bool:
        """Whether the user did not see what is to count; then it is shown, and said."""
        compared = self.section.compare.isChecked()
        if compared:
            self.stop()
            self._explain("You saw what the model before said. Look at what there is now, then say it again.")
        return compared

    def check(self) -> None:
        """Show the model in use again if the version that is shown was deleted."""
        session, layers = self.opening.session, self.opening.layers
        shown = layers.overlay.version if layers is not None and layers.overlay is not None else None
        if session is not None and shown is not None and shown not in session.versions:
            self.stop()

    def _toggle(self, before: bool) -> None:
        session, layers = self.opening.session, self.opening.layers
        hidden, self._hidden = self._hidden, None
        if hidden is not None:
            hidden.visible = True
        if session is None or layers is None or layers.overlay is None:
            return
        editing = layers.editing
        if before and editing is not None and editing.layer.visible:
            self._hidden = editing.layer
            self._hidden.visible = False
        layers.overlay.show_version(session.previous if before else None)
