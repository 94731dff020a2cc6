"""One click segments: the view or the whole slide, shown while it is done."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_genselfdiff.errors import MissingScaleError, UserError
from napari_genselfdiff.events import Event, Finished, TileDone
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.widgets.opening import Opening
from napari_genselfdiff.widgets.running import Runner
from napari_genselfdiff.widgets.sections import SegmentSection

REFRESH_MS = 100
NOT_IN_VIEW = "The slide is not in view: press Home to see all of it."


class Segmenting(QObject):
    """Runs segmentations and shows their tiles as they come.

    Parameters
    ----------
    opening : Opening
    runner : Runner
    section : SegmentSection
    """

    segmented = Signal()
    """Something was segmented."""

    def __init__(self, opening: Opening, runner: Runner, section: SegmentSection) -> None:
        super().__init__()
        self.opening, self.runner, self.section = opening, runner, section
        self._looked_at: tuple[float, float] | None = None
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(REFRESH_MS)
        self._soon.timeout.connect(self._refresh)
        opening.leaving.connect(self._soon.stop)
        opening.viewer.scene.camera.events.connect(self._look)
        section.segment_clicked.connect(self.segment_view)
        section.slide_clicked.connect(self.segment_slide)

    def close(self) -> None:
        """Follow the viewer no more."""
        self.opening.viewer.scene.camera.events.disconnect(self._look)

    def segment_view(self) -> None:
        """Segment what is on the screen."""
        layers = self.opening.layers
        region = layers.visible_region() if layers is not None else None
        if region is not None:
            self._segment(region)
        elif self.opening.session is not None:
            self.runner.explain(NOT_IN_VIEW)

    def segment_slide(self) -> None:
        """Segment all of the slide's tissue, where the user looks first; go on where it was stopped."""
        if self.opening.session is not None and self.opening.layers is not None:
            self._segment(Region(0, 0, *self.opening.session.slide.shape), slide_wide=True)

    def _segment(self, region: Region, *, slide_wide: bool = False) -> None:
        session = self.opening.session
        assert session is not None
        if self.runner.job is not None:
            return
        self.section.compare.setChecked(False)
        try:
            session.segmenter()
            session.scale()
        except MissingScaleError:
            self.runner.status.show_idle("Say the slide's resolution first (micrometres per pixel).")
            return
        except UserError as error:
            self.runner.status.show_idle(str(error))
            return
        self._look()

        def finished(event: Finished) -> None:
            self._refresh()
            self.segmented.emit()
            stopped = "Stopped; what is done is kept: " if event.cancelled else "Segmented: "
            self.runner.status.show_idle(stopped + event.message)

        self.runner.start(
            lambda cancel: session.segment(
                region, centre=lambda: self._looked_at, slide_wide=slide_wide, cancel=cancel
            ),
            on_event=self._tile_done,
            on_finished=finished,
        )

    def _tile_done(self, event: Event) -> None:
        if isinstance(event, TileDone) and not self._soon.isActive():
            self._soon.start()

    def _look(self, _event: Any = None) -> None:
        """Remember what is looked at, for the thread that segments."""
        layers = self.opening.layers
        region = layers.visible_region() if layers is not None else None
        self._looked_at = region.centre if region is not None else None

    def _refresh(self) -> None:
        if self.opening.layers is not None:
            self.opening.layers.refresh()
