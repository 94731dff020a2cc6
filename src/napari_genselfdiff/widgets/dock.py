"""The dock "GenSelfDiff": slide, segment, correct, fine-tune, see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox
from napari.layers import Image
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QFileDialog, QWidget

from napari_genselfdiff.contributions import open_as_preferred
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Event, Finished, LossPoint, Progress, TileDone
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models import library
from napari_genselfdiff.models.versions import Round
from napari_genselfdiff.session import FINE_TUNE_SECONDS, Session, default_folder
from napari_genselfdiff.widgets.corrections import CorrectionWindow
from napari_genselfdiff.widgets.export import ask_and_export
from napari_genselfdiff.widgets.layers import SessionLayers
from napari_genselfdiff.widgets.sections import (
    CorrectSection,
    FineTuneSection,
    SegmentSection,
    SlideSection,
    StatusSection,
    stack_scrolled,
)
from napari_genselfdiff.widgets.slides import add_slide, described, slide_of_layer
from napari_genselfdiff.workers import Job, warm_up_in_background

if TYPE_CHECKING:
    from napari.viewer import Viewer
    from qtpy.QtGui import QCloseEvent

REFRESH_MS = 100
NOT_IN_VIEW = "The slide is not in view: press Home to see all of it."


class GenSelfDiffDock(QWidget):
    """Shows one session and forwards clicks to it.

    Parameters
    ----------
    napari_viewer : Viewer
        napari passes it by this name.
    session_folder : Path, optional
        Where the session lies; a folder of the user's application data by default.
    """

    def __init__(self, napari_viewer: Viewer, session_folder: Path | None = None) -> None:
        super().__init__()
        # napari wraps the viewer for plugins. Layers that come out of the wrapping are wrapped anew each
        # time, so that `layer in viewer.layers` and `is` would not hold.
        self.viewer: Viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self.session_folder = session_folder
        self.session: Session | None = None
        self.layers: SessionLayers | None = None
        self.job: Job | None = None
        self._cancel = CancelToken()
        self._tuning = False
        self._segment_next = False
        self._looked_at: tuple[float, float] | None = None

        self._slides = ComboBox(label="slide", choices=self._rgb_layers, nullable=True)
        self._slides.native.setToolTip("the RGB image layer to work on")
        self.slide_section = SlideSection(self._slides.native)
        self.segment_section = SegmentSection()
        self.correct_section = CorrectSection()
        self.fine_tune_section = FineTuneSection()
        self.status = StatusSection()
        stack_scrolled(
            self,
            self.slide_section,
            self.segment_section,
            self.correct_section,
            self.fine_tune_section,
            self.status,
        )
        self._connect()
        self._tile_timer = QTimer(self)
        self._tile_timer.setSingleShot(True)
        self._tile_timer.setInterval(REFRESH_MS)
        self._tile_timer.timeout.connect(self._refresh)
        self._show_state()
        warm_up_in_background()
        self._layers_changed()

    @property
    def editing(self) -> CorrectionWindow | None:
        """The editable window, while there is one."""
        return self.layers.editing if self.layers is not None else None

    def open_slide(self, path: str | Path) -> None:
        """Open a slide file or address and begin, or go on with, its session."""
        try:
            self._slides.value = add_slide(self.viewer, open_as_preferred(path))
        except UserError as error:
            self.status.show_idle(str(error))

    def _rgb_layers(self, _widget: Any = None) -> list[Image]:
        return [layer for layer in self.viewer.layers if isinstance(layer, Image) and layer.rgb]

    def _layers_changed(self, _event: Any = None) -> None:
        """Follow layers that came or went."""
        self._slides.reset_choices()
        if self.layers is not None:
            self.layers.forget_removed()
            if self.layers.image not in self.viewer.layers:
                self.shut()
                self._choose_layer(self._slides.value)
        elif self._slides.value is None and (layers := self._rgb_layers()):
            self._slides.value = layers[-1]
        self._show_state()

    def _choose_layer(self, layer: Image | None) -> None:
        current = self.layers.image if self.layers is not None else None
        if layer is current or (layer is not None and layer not in self.viewer.layers):
            return
        self.shut()
        if layer is None:
            return
        try:
            slide = slide_of_layer(layer)
            session = Session(self.session_folder or default_folder(slide), slide)
        except UserError as error:
            self.status.show_idle(str(error))
            return
        self.session = session
        message = session.annotations.recovered or "Ready."
        if session.annotations.read_only:
            message = "This session is open in another window: it can be looked at here, not changed."
        self.status.show_idle(message)
        if session.current is None:
            self._use_model(library.DEFAULT_SEGMENTER)
        self.layers = SessionLayers(
            self.viewer, session, layer, on_message=self._tell, on_change=self._show_state
        )
        if session.slide.mpp is not None and session.slide.mpp != slide.mpp:
            self.layers.rescale(session.slide.mpp)
        self.slide_section.show_sensitivity(session.tissue.sensitivity)
        self._show_tissue(self.slide_section.tissue.isChecked())
        session.model_changed.connect(self._model_changed)
        session.mpp_changed.connect(self._mpp_changed)
        self.layers.restore_view()
        self._model_changed(session.current or "")

    def _ask_for_slide(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Open a slide")
        if name:
            self.open_slide(name)

    def _give_mpp(self, mpp: float) -> None:
        if self.session is not None:
            self.session.set_mpp(mpp)
            self.status.show_idle("Ready.")

    def _mpp_changed(self, mpp: float) -> None:
        if self.layers is not None:
            self.layers.rescale(mpp)
        self._show_state()

    def _show_tissue(self, shown: bool) -> None:
        if self.layers is not None:
            self.layers.show_tissue(shown)

    def _tell(self, message: str) -> None:
        if self.job is None:
            self.status.show_idle(message)

    def _set_sensitivity(self, sensitivity: float) -> None:
        if self.session is not None:
            self.session.set_tissue_sensitivity(sensitivity)
            self._show_tissue(self.slide_section.tissue.isChecked())

    def shut(self) -> None:
        """Stop what runs and finish writing; the session can be reopened."""
        self._tile_timer.stop()
        if self.job is not None:
            self.job.close()
            self.job = None
        layers, self.layers = self.layers, None
        if layers is not None:
            layers.keep_view()
            layers.remove()
        session, self.session = self.session, None
        if session is not None:
            session.close()

    def closeEvent(self, event: QCloseEvent | None) -> None:
        """Finish writing when the dock is closed."""
        self.shut()
        super().closeEvent(event)

    def segment_view(self) -> None:
        """Segment what is on the screen."""
        region = self.layers.visible_region() if self.layers is not None else None
        if self.session is not None and region is None:
            self.status.show_idle(NOT_IN_VIEW)
        elif region is not None:
            self._segment(region)

    def segment_slide(self) -> None:
        """Segment all of the slide's tissue, where the user looks first; go on where it was stopped."""
        if self.session is not None:
            self._segment(Region(0, 0, *self.session.slide.shape), slide_wide=True)

    def _segment(self, region: Region, *, slide_wide: bool = False) -> None:
        assert self.session is not None
        self.segment_section.compare.setChecked(False)
        self._cancel = CancelToken()
        try:
            self.session.scale()
        except UserError:
            self.status.show_idle("Say the slide's resolution first (micrometres per pixel).")
            return
        self._look()
        self._run(
            self.session.segment(
                region, centre=lambda: self._looked_at, slide_wide=slide_wide, cancel=self._cancel
            )
        )

    def _look(self, _event: Any = None) -> None:
        """Remember what is looked at, for the thread that segments."""
        region = self.layers.visible_region() if self.layers is not None else None
        self._looked_at = region.centre if region is not None else None

    def _use_model(self, name: str | None) -> None:
        if self.session is None or name is None:
            return
        try:
            self.session.use_model(name)
        except UserError as error:
            self.status.show_idle(str(error))
        self._show_state()

    def _model_changed(self, _name: str) -> None:
        if self.session is None or self.layers is None:
            return
        self.correct_section.show_classes(self.session.classes)
        self.segment_section.show_models(library.choices(self.session.versions), self.session.current)
        self.segment_section.compare.setChecked(False)
        self.layers.refresh()
        self._show_state()

    def _compare(self, before: bool) -> None:
        if self.layers is not None and self.layers.overlay is not None and self.session is not None:
            self.layers.overlay.show_version(self.session.previous if before else None)

    def correct_here(self) -> None:
        """Make the view editable."""
        if self.layers is None:
            return
        if not self.layers.correct_here():
            self.status.show_idle(NOT_IN_VIEW)
            return
        self.status.show_idle("Paint what is missing (key 1), erase what is wrong (key 0), then Fine-tune.")
        self._show_state()

    def _accept(self) -> None:
        if self.editing is not None:
            self.editing.accept()
            self.status.show_idle("This view counts as right: training will learn from all of it.")

    def _step(self, step: Callable[[SessionLayers], None]) -> None:
        if self.layers is not None:
            step(self.layers)

    def _choose_class(self, label: int) -> None:
        if self.editing is not None:
            self.editing.layer.selected_label = label

    def fine_tune(self) -> None:
        """Train a copy of the model on the corrections."""
        if self.session is None:
            return
        if self.layers is not None:
            self.layers.finish_edits()
        self.fine_tune_section.curve.clear()
        self.fine_tune_section.answer.setText("Training on your corrections; you can go on correcting.")
        self._cancel = CancelToken()
        self._tuning = True
        self._run(self.session.fine_tune(seconds=FINE_TUNE_SECONDS, cancel=self._cancel))

    def _tuned(self, event: Finished) -> None:
        self.fine_tune_section.answer.setText(event.message)
        self.status.show_idle(event.message)
        if self.session is not None and isinstance(event.result, Round):
            self.session.adopt(event.result)
            self.segment_section.show_models(library.choices(self.session.versions), self.session.current)
            self._segment_next = event.result.accepted

    def _run(self, events: Iterator[Event]) -> None:
        self.status.show_running("starting", None, None)
        self.job = Job(
            events, self._cancel, on_event=self._on_event, on_error=self._on_error, on_end=self._on_end
        )
        self._show_state()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Progress):
            share = event.done / event.total if event.total else None
            self.status.show_running(event.message, share, event.seconds_left)
        elif isinstance(event, TileDone):
            if not self._tile_timer.isActive():
                self._tile_timer.start()
        elif isinstance(event, LossPoint):
            self.fine_tune_section.curve.add(event.seconds, event.loss)
        elif self._tuning:
            self._tuned(event)
        else:
            self._refresh()
            stopped = "Stopped; what is done is kept: " if event.cancelled else "Segmented: "
            self.status.show_idle(stopped + event.message)

    def _on_error(self, message: str) -> None:
        self.status.show_idle(message)
        if self._tuning:
            self.fine_tune_section.answer.setText(message)

    def _on_end(self) -> None:
        self.job = None
        self._tuning = False
        self._show_state()
        if self._segment_next:
            self._segment_next = False
            self.segment_view()

    def _refresh(self) -> None:
        if self.layers is not None:
            self.layers.refresh()

    def _show_state(self, _event: Any = None) -> None:
        session, running = self.session, self.job is not None
        there = session is not None
        editable = session is not None and not session.annotations.read_only
        self.segment_section.segment_button.setEnabled(there and not running)
        self.segment_section.slide_button.setEnabled(there and not running)
        self.segment_section.models.setEnabled(there and not running)
        has_previous = session is not None and session.previous is not None
        self.segment_section.previous_button.setEnabled(has_previous and not running)
        self.segment_section.compare.setEnabled(has_previous)
        self.correct_section.correct_button.setEnabled(there)
        self.correct_section.accept_button.setEnabled(self.editing is not None and editable)
        self.correct_section.undo_button.setEnabled(session is not None and session.annotations.can_undo)
        self.correct_section.redo_button.setEnabled(session is not None and session.annotations.can_redo)
        corrected = session is not None and session.annotations.position > 0
        self.fine_tune_section.show_state(corrected=corrected, ready=editable and not running)
        self.status.export_button.setEnabled(there and not running)
        if session is None:
            return
        info, warning = described(session.slide)
        self.slide_section.show_slide(info, ask_mpp=session.slide.mpp is None, warning=warning)

    def _export(self) -> None:
        region = self.layers.visible_region() if self.layers is not None else None
        if self.session is None or region is None:
            self.status.show_idle(NOT_IN_VIEW)
            return
        assert self.layers is not None
        self.layers.finish_edits()
        try:
            self.status.show_idle(ask_and_export(self, self.session, region))
        except UserError as error:
            self.status.show_idle(str(error))

    def _connect(self) -> None:
        self._slides.changed.connect(self._choose_layer)
        self.viewer.layers.events.inserted.connect(self._layers_changed)
        self.viewer.layers.events.removed.connect(self._layers_changed)
        self.slide_section.open_clicked.connect(self._ask_for_slide)
        self.slide_section.mpp_given.connect(self._give_mpp)
        self.slide_section.tissue_toggled.connect(self._show_tissue)
        self.slide_section.sensitivity_chosen.connect(self._set_sensitivity)
        self.viewer.scene.camera.events.connect(self._look)
        self.segment_section.segment_clicked.connect(self.segment_view)
        self.segment_section.slide_clicked.connect(self.segment_slide)
        self.segment_section.model_chosen.connect(self._use_model)
        self.segment_section.previous_clicked.connect(
            lambda: self._use_model(self.session.previous if self.session else None)
        )
        self.segment_section.compare_toggled.connect(self._compare)
        self.correct_section.correct_clicked.connect(self.correct_here)
        self.correct_section.accept_clicked.connect(self._accept)
        self.correct_section.undo_clicked.connect(lambda: self._step(SessionLayers.undo))
        self.correct_section.redo_clicked.connect(lambda: self._step(SessionLayers.redo))
        self.correct_section.class_chosen.connect(self._choose_class)
        self.fine_tune_section.fine_tune_clicked.connect(self.fine_tune)
        self.status.cancel_clicked.connect(lambda: self._cancel.cancel())
        self.status.export_clicked.connect(self._export)
        application = QApplication.instance()
        assert application is not None
        # napari quits without closing the docks in its window.
        application.aboutToQuit.connect(self.shut)
