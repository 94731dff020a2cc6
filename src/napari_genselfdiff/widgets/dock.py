"""The dock "GenSelfDiff": slide, segment, correct, fine-tune, see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog, QTabWidget, QVBoxLayout

from napari_genselfdiff.models import library
from napari_genselfdiff.session import Session, Task
from napari_genselfdiff.widgets.answering import Answering
from napari_genselfdiff.widgets.cohort import CohortSection
from napari_genselfdiff.widgets.comparing import Comparing
from napari_genselfdiff.widgets.corrections import CorrectionWindow
from napari_genselfdiff.widgets.export import Exporting
from napari_genselfdiff.widgets.finetuning import FineTuneSection
from napari_genselfdiff.widgets.gestures import Gesture
from napari_genselfdiff.widgets.layers import SessionLayers
from napari_genselfdiff.widgets.learning import Learning
from napari_genselfdiff.widgets.opening import Opening
from napari_genselfdiff.widgets.panel import Panel
from napari_genselfdiff.widgets.project import ProjectSection
from napari_genselfdiff.widgets.running import Runner
from napari_genselfdiff.widgets.sections import (
    CorrectSection,
    SegmentSection,
    SlideSection,
    StatusSection,
    scrolled,
)
from napari_genselfdiff.widgets.segmenting import NOT_IN_VIEW, Segmenting
from napari_genselfdiff.widgets.shortcuts import Key, Shortcuts
from napari_genselfdiff.widgets.slides import described
from napari_genselfdiff.widgets.task import TaskSection
from napari_genselfdiff.widgets.versions import VersionsSection
from napari_genselfdiff.workers import Job, warm_up_in_background

if TYPE_CHECKING:
    from napari.viewer import Viewer


LEARNED = "A class that a model has learned stays; start a new task to go on without it."


class GenSelfDiffDock(Panel):
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
        self.status = StatusSection()
        self.runner = Runner(self.status)
        explain = self.runner.explain
        self.opening = Opening(
            self.viewer, session_folder, tell=self._tell, explain=explain, on_change=self._show_state
        )
        self.slide_section = SlideSection(self.opening.chooser.native)
        self.segment_section = SegmentSection()
        self.correct_section = CorrectSection()
        self.fine_tune_section = FineTuneSection()
        self.project_section = ProjectSection()
        self.versions_section = VersionsSection(explain)
        self.task_section = TaskSection()
        self.cohort_section = CohortSection()
        self.segmenting = Segmenting(self.opening, self.runner, self.segment_section)
        self.comparing = Comparing(self.opening, self.segment_section, explain)
        self.answering = Answering(
            self.opening, self.correct_section, correct_here=self.correct_here, tell=self._tell
        )
        self.learning = Learning(
            self.opening, self.runner, self.fine_tune_section, self.cohort_section, tell=self._tell
        )
        self.exporting = Exporting(self.opening, self.runner)
        self.shortcuts = Shortcuts(self.viewer, self._keys())
        self.tabs = QTabWidget()
        self.tabs.addTab(
            scrolled(self.slide_section, self.segment_section, self.correct_section, self.fine_tune_section),
            "Annotate",
        )
        self.tabs.addTab(
            scrolled(self.project_section, self.versions_section, self.task_section, self.cohort_section),
            "Project",
        )
        self.tabs.addTab(scrolled(self.shortcuts), "Keys ?")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2, 2, 2, 2)
        layout.addWidget(self.tabs, 1)
        layout.addWidget(self.status)
        self.setMinimumWidth(340)
        self._connect()
        self._show_state()
        warm_up_in_background()
        self.opening.follow()

    @property
    def session(self) -> Session | None:
        """The project that is open."""
        return self.opening.session

    @property
    def layers(self) -> SessionLayers | None:
        """The layers of the slide that is looked at."""
        return self.opening.layers

    @property
    def editing(self) -> CorrectionWindow | None:
        """The editable window, while there is one."""
        return self.layers.editing if self.layers is not None else None

    @property
    def job(self) -> Job | None:
        """The long work that runs now."""
        return self.runner.job

    def open_slide(self, path: str | Path) -> None:
        """Open a slide file or address, and begin, or go on with, its session."""
        self.opening.open_slide(path)

    def _entered(self) -> None:
        """Show the slide that is looked at now."""
        session = self.session
        assert session is not None
        session.model_changed.connect(self._model_changed, unique=True)
        session.mpp_changed.connect(self._mpp_changed, unique=True)
        self.slide_section.show_sensitivity(session.tissue.sensitivity)
        self._show_tissue(self.slide_section.tissue.isChecked())
        self._model_changed(session.current or "")

    def shut(self) -> None:
        """Stop what runs and finish writing; the session can be reopened."""
        self.opening.shut()

    def _ask_for_slide(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Open a slide")
        if name:
            self.open_slide(name)

    def _give_mpp(self, mpp: float) -> None:
        session = self.session
        if session is not None and self.opening.guarded(lambda: session.set_mpp(mpp)):
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
        session = self.session
        if session is not None:
            self.opening.guarded(lambda: session.set_tissue_sensitivity(sensitivity))
            self._show_tissue(self.slide_section.tissue.isChecked())

    def finish(self) -> None:
        """Finish writing, and follow the viewer no more."""
        self.shortcuts.release()
        self.opening.close()
        self.segmenting.close()
        self.learning.close()

    def segment_view(self) -> None:
        """Segment what is on the screen."""
        self.segmenting.segment_view()

    def _use_model(self, name: str | None) -> None:
        session = self.session
        if session is not None and name:
            self.opening.guarded(lambda: session.use_model(name))
            self._show_state()

    def _model_changed(self, _name: str) -> None:
        if self.session is None or self.layers is None:
            return
        self._show_classes()
        self._show_project()
        self._show_background()
        self.comparing.stop()
        self.layers.recolour()
        self.layers.refresh()
        self._show_state()

    def _show_project(self) -> None:
        """Show slides and versions as they are now."""
        session = self.session
        self.project_section.show_session(session)
        self.versions_section.show_session(session)
        if session is not None:
            self.segment_section.show_models(library.choices(session.versions), session.current)

    def correct_here(self) -> None:
        """Make the view editable."""
        if self.layers is None:
            return
        self.comparing.stop()
        if not self.layers.correct_here():
            self.runner.explain(NOT_IN_VIEW)
            return
        layers = self.layers
        assert layers.editing is not None
        assert layers.gestures is not None
        self._show_background()
        self.correct_section.show_gesture(None)  # a new window begins with the brush
        layers.gestures.chosen.connect(self._gesture_chosen)
        self._tell("Paint what is missing (key 1), erase what is wrong (key 0), then Fine-tune.")
        self._show_state()

    def _show_background(self, _event: Any = None) -> None:
        """Let painted background be seen where it is an example like any other, and paint it with key 0."""
        if self.editing is not None and self.session is not None:
            wanted = self.session.current is None or self.correct_section.instant.isChecked()
            self.editing.show_background(wanted)
            self.correct_section.classes.follow(self.editing.layer, background=self.editing.background)

    def _gesture_chosen(self, gesture: Gesture | None) -> None:
        self.correct_section.show_gesture(gesture)
        if gesture is not None:
            self._tell(f"{gesture.name.capitalize()}: {gesture.how}. Esc goes back to the brush.")

    def accept_view(self) -> None:
        """Say that what is in view is right as it stands."""
        if self.comparing.refuse():
            return
        if self.editing is None:
            self.correct_here()
        if self.answering.shown:  # it is what is seen
            self.answering.keep()
        elif self.editing is not None and not self.editing.accept(told=self._accepted):
            self.runner.explain(NOT_IN_VIEW)

    def _accepted(self, left_out: float) -> None:
        said = "This view counts as right; what is not marked in it is background."
        if left_out:
            said = f"{left_out:.0%} of this view was not segmented yet: left out. The rest counts as right."
        self.runner.explain(said)

    def _step(self, step: Callable[[SessionLayers], None]) -> None:
        if self.layers is not None:
            step(self.layers)

    def _choose_gesture(self, gesture: Gesture | None) -> None:
        if self.layers is not None and self.layers.gestures is not None:
            self.layers.gestures.choose(gesture)

    def _show_classes(self) -> None:
        if self.session is not None:
            fixed = self.session.read_only
            self.correct_section.classes.show_classes(
                self.session.classes[1:], self.session.colours, fixed=fixed
            )

    def _edit_classes(self, classes: list[tuple[str, str]]) -> None:
        """Take over colours, names and further classes."""
        session, layers = self.session, self.layers
        if session is None or layers is None:
            return
        names = [name for name, _ in classes]
        if names != list(session.classes[1:]) and self.runner.job is not None:
            self._show_classes()
            self.runner.explain("Classes can be changed when what is running has ended.")
            return

        def change() -> None:
            session.set_colours(dict(classes))
            session.change_classes(names)

        before = session.current
        if not self.opening.guarded(change):
            self._show_classes()
        layers.recolour()
        if session.current != before:
            self.segment_view()

    def _start_task(self, task: Task, colours: dict[str, str]) -> None:
        session = self.session

        def begin() -> None:
            assert session is not None
            session.set_colours(colours)
            session.start_task(task)

        if session is not None and self.opening.guarded(begin):
            self.tabs.setCurrentIndex(0)
            self.correct_here()
            self._tell("Paint a few of each class, and some background (0); then Fine-tune.")

    def _show_state(self, _event: Any = None) -> None:
        session, running = self.session, self.job is not None
        there = session is not None
        with_model = session is not None and session.current is not None
        editable = session is not None and not session.read_only
        self.segment_section.segment_button.setEnabled(with_model and not running)
        self.segment_section.slide_button.setEnabled(with_model and not running)
        self.segment_section.models.setEnabled(there and not running)
        has_previous = session is not None and session.previous is not None
        self.segment_section.previous_button.setEnabled(has_previous and not running)
        self.segment_section.compare.setEnabled(has_previous)
        self.correct_section.correct_button.setEnabled(there)
        self.correct_section.accept_button.setEnabled(self.editing is not None and editable)
        self.correct_section.undo_button.setEnabled(session is not None and session.annotations.can_undo)
        self.correct_section.redo_button.setEnabled(session is not None and session.annotations.can_redo)
        corrected = session is not None and bool(session.slides.corrected)
        self.fine_tune_section.show_state(corrected=corrected, ready=editable and not running)
        self.fine_tune_section.next_button.setEnabled(with_model and not running)
        self.cohort_section.show_state(ready=there and not running, editable=editable)
        self.task_section.show_state(ready=editable and not running, corrected=corrected)
        for made in self.correct_section.gestures.values():
            made.setEnabled(self.editing is not None and editable)
        self.correct_section.instant.setEnabled(editable)
        self.correct_section.keep_button.setEnabled(editable and self.correct_section.instant.isChecked())
        self.status.export_button.setEnabled(there and not running)
        if session is None or self.layers is None:
            return
        info, warning = described(session.slide)
        self.slide_section.show_slide(info, ask_mpp=session.slide.mpp is None, warning=warning)

    def _keys(self) -> list[Key]:
        return [
            Key("G", "segment the view", self.segment_view),
            Key("Shift+G", "segment the slide", self.segmenting.segment_slide),
            Key("H", "correct here", self.correct_here),
            Key("A", "this view is right", self.accept_view),
            Key("T", "train: fine-tune on the corrections", self.fine_tune_section.button.click),
            Key("N", "next place to correct", self.fine_tune_section.next_button.click),
            Key("Shift+N", "see what the fine-tune left out", self.fine_tune_section.left_out.look.click),
            Key("Shift+A", "what was left out here is right", self.fine_tune_section.left_out.right.click),
            Key("I", "instant answer, on or off", self.correct_section.instant.click),
            Key("K", "keep the instant answer of this view", self.correct_section.keep_button.click),
            Key("O", "show what the model before said", self.segment_section.compare.click),
            Key("Shift+Esc", "cancel what runs", self.runner.cancel, always=True),
            Key("?", "this list, and back", self._show_keys, always=True),
        ]

    def _show_keys(self) -> None:
        """Show the list of keys, or go back from it."""
        last = self.tabs.count() - 1
        self.tabs.setCurrentIndex(0 if self.tabs.currentIndex() == last else last)

    def _connect(self) -> None:
        self.opening.entered.connect(self._entered)
        self.opening.closing.connect(self.runner.close)
        self.opening.closed.connect(self._show_project)
        self.runner.changed.connect(self._show_state)
        self.project_section.slide_chosen.connect(self.opening.look_at)
        self.project_section.files_chosen.connect(self.opening.open_files)
        self.project_section.folder_chosen.connect(self.opening.open_project)
        self.versions_section.use_clicked.connect(self._use_model)
        for then in (self._show_project, self.comparing.check, self._show_state):
            self.versions_section.edited.connect(then)
        self.slide_section.open_clicked.connect(self._ask_for_slide)
        self.slide_section.mpp_given.connect(self._give_mpp)
        self.slide_section.tissue_toggled.connect(self._show_tissue)
        self.slide_section.sensitivity_chosen.connect(self._set_sensitivity)
        self.segmenting.segmented.connect(self._show_project)
        self.segment_section.model_chosen.connect(self._use_model)
        self.segment_section.previous_clicked.connect(
            lambda: self._use_model(self.session.previous if self.session else None)
        )
        self.correct_section.correct_clicked.connect(self.correct_here)
        self.correct_section.accept_clicked.connect(self.accept_view)
        self.correct_section.undo_clicked.connect(lambda: self._step(SessionLayers.undo))
        self.correct_section.redo_clicked.connect(lambda: self._step(SessionLayers.redo))
        self.correct_section.gesture_clicked.connect(self._choose_gesture)
        self.correct_section.classes.classes_edited.connect(self._edit_classes)
        self.correct_section.classes.said.connect(self.runner.explain)
        self.correct_section.classes.may_remove = lambda _label: LEARNED
        self.correct_section.instant.toggled.connect(self._show_background)
        self.correct_section.instant.toggled.connect(self._show_state)
        self.task_section.started.connect(self._start_task)
        self.task_section.classes.said.connect(self.runner.explain)
        self.learning.unlike.connect(self.slide_section.show_notice)
        self.segmenting.segmented.connect(self.learning.notice)
        self.learning.correct_wanted.connect(self.correct_here)
        self.learning.adopted.connect(self._show_project)
        self.learning.improved.connect(self.segment_view)
