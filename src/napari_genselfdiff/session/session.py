"""One annotation session: its slides, its task and the versions of its model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Event
from napari_genselfdiff.geometry import Region, layer_count
from napari_genselfdiff.session.model import SessionModel
from napari_genselfdiff.session.slide import SessionSlide
from napari_genselfdiff.session.slides import SessionSlides
from napari_genselfdiff.slides import Slide
from napari_genselfdiff.slides.tissue import SlideTissue

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_genselfdiff.annotations import Annotations
    from napari_genselfdiff.compute import Compute
    from napari_genselfdiff.segmentation.network import SegmenterSpec
    from napari_genselfdiff.segmentation.pace import Pace
    from napari_genselfdiff.segmentation.store import PredictionStore

FINE_TUNE_SECONDS = 40.0


class Session(SessionModel):
    """Slides, what a person drew on them, and the versions of one model that learns from all of them.

    A session is a folder: ``session.json`` (slides by reference and fingerprint, task, versions), ``slides/``
    with a folder for each (``annotations/``: the journal and what a person drew; ``predictions/``: a pyramid
    a model), and ``models/`` (the versions that were made here).

    Parameters
    ----------
    folder : Path
        Where the session lies; made when it does not exist, reopened when it does.
    slide : Slide, optional
        Added to the session if it is not in it yet, and looked at.
    compute : Compute, optional
        Chosen automatically by default.
    author : str
        Written into the journals.

    Attributes
    ----------
    folder : Path
    read_only : bool
        Another window writes into the session, or it cannot be written.
    why_read_only : UserError or None
    slides : SessionSlides
    versions : Versions
    notices : list of str
        What the user should know after opening.
    model_changed, mpp_changed, slide_changed, slides_changed, task_changed : Signal
        Emitted in the thread that changed them; ``slide_changed`` is about which one is looked at.

    Raises
    ------
    UserError
        If the session file is damaged, or a slide's file was changed since it was annotated.

    Notes
    -----
    Generators (`segment`, `fine_tune`) may run in another thread; the other methods belong to the thread that
    owns the session.
    """

    mpp_changed = Signal(float)
    slide_changed = Signal(str)
    slides_changed = Signal()

    def __init__(
        self,
        folder: Path,
        slide: Slide | None = None,
        *,
        compute: Compute | None = None,
        author: str = "",
    ) -> None:
        self._compute = compute
        self._pace: Pace | None = None
        super().__init__(Path(folder))
        self.model_changed.connect(self._name_model)
        self.slides = SessionSlides(self.folder, self._state, read_only=self.read_only, author=author)
        self._active = self.slides.find(self._state.active)
        try:
            if slide is not None:
                self.activate(self.add_slide(slide))
        except BaseException:
            self.close()
            raise

    @property
    def compute(self) -> Compute:
        """Device, precision and threads."""
        if self._compute is None:
            from napari_genselfdiff.compute import choose_compute

            self._compute = choose_compute()
        return self._compute

    @property
    def active(self) -> SessionSlide:
        """The slide that is looked at.

        Raises
        ------
        UserError
            If the session has none.
        """
        if self._active is None:
            raise UserError("the session has no slide", self.folder, "open a slide first")
        return self._active

    @property
    def slide(self) -> Slide:
        """The slide that is looked at."""
        return self.active.slide

    @property
    def annotations(self) -> Annotations:
        """What a person drew on the slide that is looked at."""
        return self.active.annotations

    @property
    def tissue(self) -> SlideTissue:
        """Where the tissue of the slide is that is looked at."""
        return self.active.tissue

    @property
    def view(self) -> dict[str, Any]:
        """The camera over the slide that is looked at."""
        return self.active.state.view

    @view.setter
    def view(self, view: dict[str, Any]) -> None:
        self.active.state.view = view

    def add_slide(self, slide: Slide) -> SessionSlide:
        """Add a slide to the session, or say where one of it lies now.

        Raises
        ------
        UserError
            If its file was changed since it was annotated here.
        """
        known = self.slides.add(slide)
        self._save_or_look()
        self.slides_changed.emit()
        return known

    def activate(self, slide: SessionSlide) -> None:
        """Look at a slide of the session.

        Raises
        ------
        UserError
            If its file or its annotations cannot be opened.
        """
        _ = slide.slide  # what is missing is told before anything changes
        slide.annotations.model = self.model_tag()
        if slide.annotations.why_read_only is not None and not self.read_only:
            self.read_only, self.why_read_only = True, slide.annotations.why_read_only
        if slide is self._active and self._state.active == slide.fingerprint:
            return
        self._active, self._state.active = slide, slide.fingerprint
        self._save_or_look()
        self.slide_changed.emit(slide.fingerprint)

    def set_mpp(self, mpp: float) -> None:
        """Say the slide's resolution, in micrometres per level-0 pixel; kept with the session."""
        self.active.take(self.slide.with_mpp(mpp))
        try:
            self.save()
        finally:  # in this window it holds, also where it cannot be kept
            self.mpp_changed.emit(mpp)

    def set_tissue_sensitivity(self, sensitivity: float) -> None:
        """Say how pale tissue may be, 0 to 1; kept with the session."""
        self.tissue.sensitivity = self.active.state.tissue_sensitivity = sensitivity
        self.save()

    def delete_version(self, name: str) -> None:
        """Delete a version, its weights and what it said; it cannot be undone.

        Raises
        ------
        UserError
            If it is in use, or segments a slide, or the file cannot be deleted.
        """
        self.versions.delete(name)
        self.save()
        for slide in self.slides:
            slide.forget_predictions(name)

    def scale(self) -> float:
        """Level-0 pixels a pixel of the model in use, or of the task.

        Raises
        ------
        MissingScaleError
            If the slide does not say its resolution and the model needs it.
        """
        return self.starting_segmenter().spec.scale_for(self.slide.mpp, self.slide.where)

    def _name_model(self) -> None:
        """Let the journal name the model in use in what is drawn from now on."""
        if self._active is not None:
            self._active.annotations.model = self.model_tag()

    def close(self) -> None:
        """Finish writing and release the session's folder, whatever happens; safe to call twice.

        Raises
        ------
        UserError
            If the disk does not take it; what was drawn is in the journals.
        """
        try:
            if self._lock is not None:
                self.save()
        finally:
            try:
                self.slides.close()
            finally:
                self._release()

    def segment(
        self,
        region: Region,
        *,
        centre: Callable[[], tuple[float, float] | None] = lambda: None,
        slide_wide: bool = False,
        cancel: CancelToken | None = None,
    ) -> Iterator[Event]:
        """Segment a region with the model in use; every tile is kept as soon as it is done.

        Parameters
        ----------
        region : Region
        centre : callable, optional
            ``(y, x)`` in level-0 pixels of what is looked at now; the nearest tiles come first.
        slide_wide : bool
            Leave out what is not tissue, and number the objects.
        cancel : CancelToken, optional

        Yields
        ------
        Event
            As `stream_region` does. Tiles that an earlier call finished are not computed again.
        """
        from napari_genselfdiff.session.work import segment_slide

        return segment_slide(self, self.active, region, centre=centre, slide_wide=slide_wide, cancel=cancel)

    def fine_tune(
        self,
        *,
        seconds: float | None = FINE_TUNE_SECONDS,
        steps: int | None = None,
        seed: int = 0,
        cancel: CancelToken | None = None,
    ) -> Iterator[Event]:
        """Train a copy of the model in use, or the pretext, on the corrections of all slides.

        A model that came into use while it was too early to tell is left behind again: training begins at the
        one before (`Versions.proven`), so that small changes do not add up. The new version is written to
        disk; `adopt` puts it to use. A fine-tune that was stopped goes on.

        Yields
        ------
        Event
            As `train_round` does; the result is a `Round`, or None when it was cancelled.

        Raises
        ------
        UserError
            If nothing was corrected yet.
        """
        from napari_genselfdiff.session.work import fine_tune_model

        parent = self.versions.proven(self.current)
        return fine_tune_model(self, parent, seconds=seconds, steps=steps, seed=seed, cancel=cancel)

    def next_place(self, *, cancel: CancelToken | None = None) -> Iterator[Event]:
        """Find the window, on any slide, that is most useful to correct.

        Yields
        ------
        Event
            `Progress`, then `Finished` with ``(slide, region)``, in level-0 pixels, or None where all that is
            segmented was seen; the message says why. `visit` remembers it.

        Raises
        ------
        UserError
            If there is no model, or nothing is segmented.
        """
        from napari_genselfdiff.session.cohorts import suggest_place

        return suggest_place(self, cancel)

    def visit(self, slide: SessionSlide, region: Region) -> None:
        """Remember that a place was suggested: the next one will be another."""
        slide.state.visited.append([region.y, region.x, region.height, region.width])
        self.save()

    def check_domain(self, *, cancel: CancelToken | None = None) -> Iterator[Event]:
        """Compare the slide that is looked at with what the pretext was trained on; see `check_domain`."""
        from napari_genselfdiff.session.cohorts import check_slide

        return check_slide(self, cancel)

    def adapt(
        self,
        *,
        seconds: float,
        steps: int | None = None,
        seed: int = 0,
        cancel: CancelToken | None = None,
    ) -> Iterator[Event]:
        """Continue the pretext on unlabelled tissue of all slides; what was stopped goes on.

        Yields the events of `adaptation.adapt`; the result is the path of the new pretext, relative to the
        session, or None when it is not kept. `use_pretext` puts it to use.
        """
        from napari_genselfdiff.session.cohorts import adapt_pretext

        return adapt_pretext(self, seconds=seconds, steps=steps, seed=seed, cancel=cancel)

    def predictions(self, version: str | None = None) -> PredictionStore:
        """What a version, by default the one in use, said about the slide that is looked at.

        Raises
        ------
        MissingScaleError
            If the slide does not say its resolution and the model needs it.
        """
        name = version or self.current or ""
        return self.active.predictions(name, self.segmenter(version).spec)

    def labels(
        self, layer: int, y: int, x: int, height: int, width: int, *, version: str | None = None
    ) -> NDArray[np.uint8]:
        """Class of each pixel: what a person drew, else what the model said, else 0.

        Parameters
        ----------
        layer : int
            Pixels are ``2**layer`` level-0 pixels wide.
        y, x, height, width : int
            In the layer's pixels; parts beyond the slide are cut off.
        version : str, optional
            Whose predictions; those of the model in use by default.
        """
        return self.active.labels(layer, Region(y, x, height, width), *self._shown(version))

    def accept(self, layer: int, box: Region, seen: NDArray[np.uint8]) -> float:
        """Accept as right what a person saw of the slide that is looked at; see `SessionSlide.accept`."""
        return self.active.accept(layer, box, seen, *self._shown(None))

    def _shown(self, version: str | None) -> tuple[str | None, SegmenterSpec | None]:
        """Whose predictions are shown, the model's in use by default, and how it segments."""
        name = version or self.current
        return name, self.segmenter(name).spec if name else None

    def layer_count(self) -> int:
        """Number of power-of-two layers of the slide."""
        return layer_count(self.slide.shape)

    def pace(self) -> Pace:
        """How the device likes to segment, tried once a session."""
        from napari_genselfdiff.compute import with_fallback
        from napari_genselfdiff.segmentation.pace import Pace

        self._pace = self._pace or Pace(with_fallback(self.compute))
        return self._pace
