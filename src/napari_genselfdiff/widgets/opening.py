"""Which project and which slide are open, and the layers that show them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox
from napari.layers import Image
from qtpy.QtCore import QObject, QTimer, Signal

from napari_genselfdiff.contributions import SLIDE_KEY, open_as_preferred, preferences
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models import library
from napari_genselfdiff.session import Session, default_folder
from napari_genselfdiff.session.state import read_state
from napari_genselfdiff.slides import Slide
from napari_genselfdiff.widgets.layers import SessionLayers
from napari_genselfdiff.widgets.slides import add_slide, slide_of_layer
from napari_genselfdiff.widgets.view import show_region

if TYPE_CHECKING:
    from napari.viewer import Viewer


class Opening(QObject):
    """Opens projects and slides, one of each at a time.

    Parameters
    ----------
    viewer : Viewer
    session_folder : Path or None
        Where the first session lies; one of the user's application data by default.
    tell : callable
        Called with what the user should know.
    explain : callable
        Called with why something that the user wanted cannot be done.
    on_change : callable
        Called when a stroke is stored, taken back or done again.

    Attributes
    ----------
    session : Session or None
    layers : SessionLayers or None
        Those of the slide that is looked at.
    chooser : ComboBox
        The RGB image layers of the viewer.
    """

    leaving = Signal()
    """The slide's layers are about to be taken away."""
    closing = Signal()
    """The project is about to be closed: stop what works on it."""
    entered = Signal()
    """Another slide is looked at."""
    closed = Signal()
    """No project is open any more."""

    def __init__(
        self,
        viewer: Viewer,
        session_folder: Path | None,
        *,
        tell: Callable[[str], None],
        explain: Callable[[str], None],
        on_change: Callable[[], None],
    ) -> None:
        super().__init__()
        self.viewer, self.session_folder = viewer, session_folder
        self._tell, self._explain, self._on_change = tell, explain, on_change
        self.session: Session | None = None
        self.layers: SessionLayers | None = None
        self._not_kept = ""  # what went wrong as the last session was closed, until the next one is opened
        self.chooser = ComboBox(label="slide", choices=self._rgb_layers, nullable=True)
        self.chooser.native.setToolTip("the RGB image layer to work on")
        self.chooser.changed.connect(self._choose_layer)
        # While napari says that a layer was removed it is still removing: no other may be removed then. And
        # what goes together, such as everything, is looked at once.
        self._removed = QTimer(self.chooser.native)  # which goes with the window
        self._removed.setSingleShot(True)
        self._removed.timeout.connect(self.follow)
        viewer.layers.events.inserted.connect(self.follow)
        viewer.layers.events.removed.connect(self._follow_soon)

    def open_slide(self, path: str | Path) -> None:
        """Open a slide file or address, and begin, or go on with, its session."""
        self.guarded(lambda: self._show_slide(open_as_preferred(path)))

    def open_files(self, paths: list[Path]) -> None:
        """Add slide files to the project, and look at the last one."""
        for path in paths:
            self.open_slide(path)

    def look_at(self, fingerprint: str) -> bool:
        """Look at a slide of the project; returns whether it could be opened."""
        known = self.session.slides.find(fingerprint) if self.session is not None else None
        return known is not None and self.guarded(lambda: self._show_slide(known.slide))

    def follow(self, _event: Any = None) -> None:
        """Follow layers that came or went."""
        self.chooser.reset_choices()
        if self.layers is not None:
            self.layers.forget_removed()
            if self.layers.image not in self.viewer.layers:
                self._choose_layer(self.chooser.value)
        elif self.chooser.value is None and (layers := self._rgb_layers()):
            self.chooser.value = layers[-1]
        self._on_change()

    def open_project(self, folder: Path) -> None:
        """Open the project in a folder, or begin one there with the slide in view."""
        if self.session is not None and self.session.folder.resolve() == folder.resolve():
            return
        image = self.layers.image if self.layers is not None else None

        def switch() -> None:
            # Refused before the one that is open is left; read only, as it may be a wrong folder.
            begun = len(read_state(folder).slides) > 0
            if not begun and image is None:
                raise UserError(
                    "the folder holds no project", folder, "open a slide first to begin one there"
                )
            self.shut()
            self.session_folder = folder
            if begun:
                opened = self._open_session(folder, None)
                # One that is gone must not keep the others from being looked at.
                slides = sorted(opened.slides, key=lambda slide: slide is not opened.active)
                any(self.look_at(slide.fingerprint) for slide in slides)
            elif image is not None:
                self._enter(image)

        self.guarded(switch)
        self._on_change()

    def guarded(self, step: Callable[[], None]) -> bool:
        """Do something, or say why it cannot be done; returns whether it was."""
        try:
            step()
        except UserError as error:
            self._explain(str(error))
            return False
        return True

    def shut(self) -> None:
        """Stop what runs and finish writing; the session can be reopened."""
        self.closing.emit()
        self._leave()
        session, self.session = self.session, None
        if session is not None:
            try:
                session.close()
            except UserError as error:
                self._not_kept = str(error)
                self._tell(self._not_kept)
            self.closed.emit()

    def close(self) -> None:
        """Shut, and follow the viewer no more."""
        self.viewer.layers.events.inserted.disconnect(self.follow)
        self.viewer.layers.events.removed.disconnect(self._follow_soon)
        self._removed.stop()
        self.shut()

    def _follow_soon(self, _event: Any = None) -> None:
        self._removed.start(0)

    def _show_slide(self, slide: Slide) -> None:
        """Look at a slide, in the layer that shows it already or in a new one."""
        if self._removed.isActive():  # what went is no choice any more
            self._removed.stop()
            self.follow()
        same = slide.where if slide.path or slide.url else None
        shown = next((layer for layer in self._rgb_layers() if _shows(layer, slide, same)), None)
        self.chooser.value = shown if shown is not None else add_slide(self.viewer, slide)

    def _rgb_layers(self, _widget: Any = None) -> list[Image]:
        return [layer for layer in self.viewer.layers if isinstance(layer, Image) and layer.rgb]

    def _choose_layer(self, layer: Image | None) -> None:
        """Look at the slide of a layer: in the project that is open, or in the slide's own."""
        current = self.layers.image if self.layers is not None else None
        if (layer is current and layer is not None) or (
            layer is not None and layer not in self.viewer.layers
        ):
            return
        if layer is None:
            self.shut()
        else:
            self._leave()
            self.guarded(lambda: self._enter(layer, another=current is not None))
        self._on_change()

    def _enter(self, layer: Image, *, another: bool = False) -> None:
        slide = slide_of_layer(layer)
        if self.session is None:
            self._open_session(self.session_folder or default_folder(slide), slide)
        else:
            known = len(self.session.slides)
            self.session.activate(self.session.add_slide(slide))
            count = len(self.session.slides)
            self._tell("Ready." if count == known else f"Added to the project, which has {count} slides now.")
        session = self.session
        assert session is not None
        for other in self._rgb_layers():
            other.visible = other is layer
        self.layers = SessionLayers(
            self.viewer, session, layer, on_message=self._tell, on_change=self._on_change
        )
        if session.slide.mpp is not None and session.slide.mpp != slide.mpp:
            self.layers.rescale(session.slide.mpp)  # it was said in an earlier session
        if another and not session.view:  # the camera is where the slide before was looked at
            show_region(self.viewer, layer, Region(0, 0, *session.slide.shape))
        self.layers.restore_view()
        self.entered.emit()

    def _open_session(self, folder: Path, slide: Slide | None) -> Session:
        wishes = preferences("sessions")
        session = Session(folder, slide, author=wishes.author if wishes is not None else "")
        self.session = session
        notices = [self._not_kept, *session.notices, session.annotations.recovered or ""]
        self._not_kept = ""
        if session.why_read_only is not None:
            notices.append(f"It can be looked at here, not changed: {session.why_read_only}")
        self._tell(" ".join(filter(None, notices)) or "Ready.")
        if session.current is None and session.task is None:
            self.guarded(lambda: session.use_model(library.DEFAULT_SEGMENTER))
        return session

    def _leave(self) -> None:
        """Take the slide's layers away; the project stays open."""
        self.leaving.emit()
        layers, self.layers = self.layers, None
        if layers is not None:
            layers.keep_view()
            layers.remove()


def _shows(layer: Image, slide: Slide, place: object) -> bool:
    """Whether a layer shows a slide, as it is or from the same file."""
    shown = layer.metadata.get(SLIDE_KEY)
    return shown is slide or (isinstance(shown, Slide) and place is not None and shown.where == place)
