"""The dock "GenSelfDiff": slide, segment, correct, fine-tune, see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox
from napari.layers import Image
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication, QFileDialog, QScrollArea, QVBoxLayout, QWidget

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Event, Finished, LossPoint, Progress, TileDone
from napari_genselfdiff.models import library
from napari_genselfdiff.session import FINE_TUNE_SECONDS, Round, Session, default_folder
from napari_genselfdiff.widgets.corrections import CorrectionWindow, window_at_view
from napari_genselfdiff.widgets.overlay import Overlay
from napari_genselfdiff.widgets.sections import (
    CorrectSection,
    FineTuneSection,
    SegmentSection,
    SlideSection,
    StatusSection,
)
from napari_genselfdiff.widgets.slides import add_slide, slide_of_layer
from napari_genselfdiff.widgets.view import visible_region
from napari_genselfdiff.workers import Job

if TYPE_CHECKING:
    from napari.viewer import Viewer
    from qtpy.QtGui import QCloseEvent

REFRESH_MS = 100


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
        # napari wraps the viewer for plugins; layers that come out of the wrapping are wrapped anew each time,
        # so that `layer in viewer.layers` and `is` would not hold.
        self.viewer: Viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self.session_folder = session_folder
        self.session: Session | None = None
        self.overlay: Overlay | None = None
        self.editing: CorrectionWindow | None = None
        self.job: Job | None = None
        self._cancel = CancelToken()
        self._tuning = False
        self._segment_next = False
        self._image: Image | None = None

        self._layers = ComboBox(label="slide", choices=self._rgb_layers, nullable=True)
        self._layers.native.setToolTip("the RGB image layer to work on")
        self.slide_section = SlideSection(self._layers.native)
        self.segment_section = SegmentSection()
        self.correct_section = CorrectSection()
        self.fine_tune_section = FineTuneSection()
        self.status = StatusSection()
        self._lay_out()
        self._connect()
        self._tile_timer = QTimer(self)
        self._tile_timer.setSingleShot(True)
        self._tile_timer.setInterval(REFRESH_MS)
        self._tile_timer.timeout.connect(self._refresh_labels)
        self._show_state()
        self._layers_changed()

    # ------------------------------------------------------------------ slide

    def open_slide(self, path: str | Path) -> None:
        """Open a slide file and begin, or go on with, its session."""
        from napari_genselfdiff.slides import open_slide

        try:
            self._layers.value = add_slide(self.viewer, open_slide(path))
        except UserError as error:
            self.status.show_idle(str(error))

    def _rgb_layers(self, _widget: Any = None) -> list[Image]:
        return [layer for layer in self.viewer.layers if isinstance(layer, Image) and layer.rgb]

    def _layers_changed(self, _event: Any = None) -> None:
        """Follow layers that came or went."""
        if self.editing is not None and self.editing.layer not in self.viewer.layers:
            self._close_window()
        if self.overlay is not None and self.overlay.layer not in self.viewer.layers:
            self.overlay = None
        self._layers.reset_choices()
        if self._image is not None and self._image not in self.viewer.layers:
            self._close_session()
            self._choose_layer(self._layers.value)
        elif self._image is None and self._layers.value is None and (layers := self._rgb_layers()):
            self._layers.value = layers[-1]
        self._show_state()

    def _choose_layer(self, layer: Image | None) -> None:
        if layer is self._image or (layer is not None and layer not in self.viewer.layers):
            return
        self._close_session()
        if layer is None:
            return
        try:
            slide = slide_of_layer(layer)
            self.session = Session(self.session_folder or default_folder(slide), slide)
        except UserError as error:
            self.status.show_idle(str(error))
            return
        self._image = layer
        self.session.model_changed.connect(self._model_changed)
        self.session.mpp_changed.connect(self._mpp_changed)
        if self.session.slide.mpp != slide.mpp:
            self._mpp_changed(self.session.slide.mpp or 1.0)
        if self.session.current is None:
            self._use_model(library.DEFAULT_SEGMENTER)
        else:
            self._model_changed(self.session.current)
        if self.session.view:
            self.viewer.scene.camera.center = tuple(self.session.view["center"])
            self.viewer.scene.camera.zoom = self.session.view["zoom"]
        message = self.session.annotations.recovered or "Ready."
        if self.session.annotations.read_only:
            message = "This session is open in another window: it can be looked at here, not changed."
        self.status.show_idle(message)
        self._show_state()

    def _ask_for_slide(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Open a slide")
        if name:
            self.open_slide(name)

    def _give_mpp(self, mpp: float) -> None:
        if self.session is not None:
            self.session.set_mpp(mpp)
            self.status.show_idle("Ready.")

    def _mpp_changed(self, mpp: float) -> None:
        if self._image is not None:
            self._image.scale = (mpp, mpp)
            self._image.units = ("micrometer", "micrometer")
        self._make_overlay()
        self._show_state()

    def _close_session(self) -> None:
        self._tile_timer.stop()
        if self.job is not None:
            self.job.close()
            self.job = None
        self._close_window()
        if self.overlay is not None and self.overlay.layer in self.viewer.layers:
            self.viewer.layers.remove(self.overlay.layer)
        self.overlay = None
        if self.session is not None:
            camera = self.viewer.scene.camera
            self.session.view = {"center": [float(c) for c in camera.center], "zoom": float(camera.zoom)}
            self.session.close()
        self.session, self._image = None, None

    def shut(self) -> None:
        """Stop what runs and finish writing; the session can be reopened."""
        self._close_session()

    def closeEvent(self, event: QCloseEvent | None) -> None:
        """Finish writing when the dock is closed."""
        self.shut()
        super().closeEvent(event)

    # ---------------------------------------------------------------- segment

    def segment_view(self) -> None:
        """Segment what is on the screen."""
        if self.session is None or self._image is None:
            return
        region = visible_region(self.viewer, self._image, self.session.slide.shape)
        if region is None:
            self.status.show_idle("The slide is not in view: press Home to see all of it.")
            return
        if self.overlay is None:
            self._make_overlay()
        self.segment_section.compare.setChecked(False)
        self._cancel = CancelToken()
        try:
            self.session.scale()
        except UserError:
            self.status.show_idle("Say the slide's resolution first (micrometres per pixel).")
            return
        self._run(self.session.segment(region, centre=region.centre, cancel=self._cancel))

    def _use_model(self, name: str) -> None:
        if self.session is None:
            return
        try:
            self.session.use_model(name)
        except UserError as error:
            self.status.show_idle(str(error))
        self._show_state()

    def _use_previous(self) -> None:
        if self.session is not None and self.session.previous is not None:
            self._use_model(self.session.previous)

    def _model_changed(self, _name: str) -> None:
        if self.session is None:
            return
        self.correct_section.show_classes(self.session.classes)
        if self.overlay is None:
            self._make_overlay()
        self.segment_section.compare.setChecked(False)
        self._refresh_labels()
        self._show_state()

    def _compare(self, before: bool) -> None:
        if self.overlay is not None and self.session is not None:
            self.overlay.show_version(self.session.previous if before else None)

    # ---------------------------------------------------------------- correct

    def correct_here(self) -> None:
        """Make the view editable."""
        if self.session is None or self._image is None:
            return
        self._close_window()
        self.editing = window_at_view(self.viewer, self.session, self._image)
        if self.editing is None:
            self.status.show_idle("The slide is not in view: press Home to see all of it.")
            return
        if self.overlay is not None:
            self.overlay.hole = self.editing.region
            self.overlay.refresh()
        self.viewer.layers.selection.active = self.editing.layer
        self.editing.committed.connect(self._show_state)
        self.status.show_idle("Paint what is missing (key 1), erase what is wrong (key 0), then Fine-tune.")
        self._show_state()

    def _close_window(self) -> None:
        if self.editing is not None:
            self.editing.commit()
            layer = self.editing.layer
            self.editing = None
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        if self.overlay is not None:
            self.overlay.hole = None

    def _accept(self) -> None:
        if self.editing is not None:
            self.editing.accept()
            self.status.show_idle("This window counts as right: training will learn from all of it.")
            self._show_state()

    def _undo(self) -> None:
        self._step(lambda s: s.annotations.undo(), lambda w: w.undo())

    def _redo(self) -> None:
        self._step(lambda s: s.annotations.redo(), lambda w: w.redo())

    def _step(self, on_session: Any, on_window: Any) -> None:
        if self.editing is not None:
            on_window(self.editing)
        elif self.session is not None:
            on_session(self.session)
        self._refresh_labels()
        self._show_state()

    def _choose_class(self, label: int) -> None:
        if self.editing is not None:
            self.editing.layer.selected_label = label

    # -------------------------------------------------------------- fine-tune

    def fine_tune(self) -> None:
        """Train a copy of the model on the corrections."""
        if self.session is None:
            return
        if self.editing is not None:
            self.editing.commit()
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
            self._segment_next = event.result.accepted

    # ------------------------------------------------------------------- work

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
            self._refresh_labels()
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

    # ---------------------------------------------------------------- showing

    def _make_overlay(self) -> None:
        if self.session is None or self._image is None:
            return
        if self.overlay is not None and self.overlay.layer in self.viewer.layers:
            self.viewer.layers.remove(self.overlay.layer)
        self.overlay = Overlay(self.viewer, self.session, self._image)

    def _refresh_labels(self) -> None:
        if self.editing is not None:
            self.editing.commit()
            self.editing.reload()
        if self.overlay is not None:
            self.overlay.refresh()

    def _show_state(self, _event: Any = None) -> None:
        session, running = self.session, self.job is not None
        there = session is not None
        editable = session is not None and not session.annotations.read_only
        self.segment_section.segment_button.setEnabled(there and not running)
        self.segment_section.models.setEnabled(there and not running)
        has_previous = session is not None and session.previous is not None
        self.segment_section.previous_button.setEnabled(has_previous and not running)
        self.segment_section.compare.setEnabled(has_previous)
        self.correct_section.correct_button.setEnabled(there)
        self.correct_section.accept_button.setEnabled(self.editing is not None and editable)
        self.correct_section.undo_button.setEnabled(session is not None and session.annotations.can_undo)
        self.correct_section.redo_button.setEnabled(session is not None and session.annotations.can_redo)
        corrected = session is not None and session.annotations.position > 0
        self.fine_tune_section.button.setEnabled(corrected and editable and not running)
        self.status.export_button.setEnabled(there and not running)
        if session is None:
            return
        slide = session.slide
        resolution = f"{slide.mpp:.4g} µm/px" if slide.mpp else "resolution not known"
        self.slide_section.show_slide(
            f"{slide.name}: {slide.shape[1]:,} x {slide.shape[0]:,} px, {resolution}",
            ask_mpp=slide.mpp is None,
            warning=""
            if self._looks_right()
            else "This does not look like H&E: the model may be wrong here.",
        )
        names = [version.name for version in session.versions]
        names += [e.name for e in library.list_models() if e.kind == "segmenter" and e.name not in names]
        self.segment_section.show_models(names, [self._detail(name) for name in names], session.current)

    def _detail(self, name: str) -> str:
        version = next((v for v in self.session.versions if v.name == name), None) if self.session else None
        if version is None or version.parent is None:
            return f"{name}: a model of the library"
        scores = "" if version.after is None else f", Dice {version.before:.2f} -> {version.after:.2f}"
        return f"{name}: trained from {version.parent} on {version.corrections} strokes{scores}"

    def _looks_right(self) -> bool:
        from napari_genselfdiff.slides.stain import looks_like_he

        if self.session is None:
            return True
        if getattr(self, "_judged", None) is not self.session:
            self._judged, self._judgement = self.session, looks_like_he(self.session.slide)
        return self._judgement

    def _export(self) -> None:
        from napari_genselfdiff.widgets.export import export_view

        if self.session is None or self._image is None:
            return
        name, _ = QFileDialog.getSaveFileName(
            self,
            "Export the view's labels",
            f"{self.session.slide.name}.geojson",
            "QuPath GeoJSON (*.geojson);;Mask (*.png *.tif);;OME-Zarr (*.zarr);;Table (*.csv)",
        )
        region = visible_region(self.viewer, self._image, self.session.slide.shape)
        if name and region is not None:
            try:
                self.status.show_idle(export_view(self.session, region, Path(name)))
            except UserError as error:
                self.status.show_idle(str(error))

    def _lay_out(self) -> None:
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(4, 4, 4, 4)
        for part in (
            self.slide_section,
            self.segment_section,
            self.correct_section,
            self.fine_tune_section,
            self.status,
        ):
            column.addWidget(part)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inner)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scroll)
        self.setMinimumWidth(330)

    def _connect(self) -> None:
        self._layers.changed.connect(self._choose_layer)
        self.viewer.layers.events.inserted.connect(self._layers_changed)
        self.viewer.layers.events.removed.connect(self._layers_changed)
        self.slide_section.open_clicked.connect(self._ask_for_slide)
        self.slide_section.mpp_given.connect(self._give_mpp)
        self.segment_section.segment_clicked.connect(self.segment_view)
        self.segment_section.model_chosen.connect(self._use_model)
        self.segment_section.previous_clicked.connect(self._use_previous)
        self.segment_section.compare_toggled.connect(self._compare)
        self.correct_section.correct_clicked.connect(self.correct_here)
        self.correct_section.accept_clicked.connect(self._accept)
        self.correct_section.undo_clicked.connect(self._undo)
        self.correct_section.redo_clicked.connect(self._redo)
        self.correct_section.class_chosen.connect(self._choose_class)
        self.fine_tune_section.fine_tune_clicked.connect(self.fine_tune)
        self.status.cancel_clicked.connect(lambda: self._cancel.cancel())
        self.status.export_clicked.connect(self._export)
        application = QApplication.instance()
        assert application is not None
        # napari quits without closing the docks in its window.
        application.aboutToQuit.connect(self.shut)
