"""One slide of a session: what a person drew on it, what models said, and how it is looked at."""

from __future__ import annotations

import glob
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.geometry import Region, layer_shape
from napari_genselfdiff.session.state import SlideState
from napari_genselfdiff.slides import Slide, open_slide
from napari_genselfdiff.slides.fingerprint import slide_fingerprint
from napari_genselfdiff.slides.tissue import SlideTissue

if TYPE_CHECKING:
    from napari_genselfdiff.annotations import Annotations
    from napari_genselfdiff.segmentation.network import SegmenterSpec
    from napari_genselfdiff.segmentation.store import PredictionStore


class SessionSlide:
    """A slide of a session. Its file and its annotations are opened when they are asked for, in any thread.

    Parameters
    ----------
    state : SlideState
        Shared with the session, which writes it down.
    session_folder : Path
    slide : Slide, optional
        When it is open already.
    read_only : bool
        Another window writes into the session.
    author : str
        Written into the journal.

    Attributes
    ----------
    state : SlideState
    """

    def __init__(
        self,
        state: SlideState,
        session_folder: Path,
        slide: Slide | None = None,
        *,
        read_only: bool = False,
        author: str = "",
    ) -> None:
        self.state = state
        self.folder = session_folder / state.folder
        self._read_only, self._author = read_only, author
        self._slide: Slide | None = None
        self._tissue: SlideTissue | None = None
        self._annotations: Annotations | None = None
        self._stores: dict[str, PredictionStore] = {}
        self._lock = threading.RLock()
        if slide is not None:
            self.take(slide)

    @property
    def name(self) -> str:
        """The slide's name."""
        return self.state.name

    @property
    def fingerprint(self) -> str:
        """What identifies the slide."""
        return self.state.fingerprint

    @property
    def slide(self) -> Slide:
        """The slide, opened from where it was last.

        Raises
        ------
        UserError
            If it is not there any more, cannot be read, or is not the same file.
        """
        with self._lock:
            if self._slide is None:
                if self.state.path is None:
                    raise UserError(
                        "this image was not a file", self.name, "open it in the window again, then go on"
                    )
                try:
                    slide = open_slide(self.state.path)
                except UserError as error:
                    raise UserError(
                        f"the slide cannot be opened where it was ({error.what})",
                        self.state.path,
                        "open it from where it is now: what was drawn on it is kept",
                    ) from error
                if slide_fingerprint(slide) != self.fingerprint:
                    raise UserError(
                        "the slide file was changed since it was annotated",
                        self.state.path,
                        "put the old file back; what was drawn on it is kept",
                    )
                self.take(slide)
            assert self._slide is not None
            return self._slide

    def take(self, slide: Slide) -> None:
        """Work on a slide that was opened elsewhere; it may have moved."""
        state = self.state
        with self._lock:
            if slide.mpp is None and state.mpp is not None:
                slide = slide.with_mpp(state.mpp)
            if slide.mpp != state.mpp:
                self._stores.clear()
            state.name, state.mpp, state.shape = slide.name, slide.mpp, list(slide.shape)
            state.path = str(slide.path or slide.url or "") or state.path
            self._slide = slide
            self._tissue = None

    @property
    def tissue(self) -> SlideTissue:
        """Where the slide's tissue is."""
        if self._tissue is None:
            self._tissue = SlideTissue(self.slide)
            self._tissue.sensitivity = self.state.tissue_sensitivity
        return self._tissue

    @property
    def annotations(self) -> Annotations:
        """What a person drew; reading it does not need the slide's file.

        Raises
        ------
        UserError
            If the folder is damaged beyond recovery.
        """
        from napari_genselfdiff.annotations import Annotations

        with self._lock:
            if self._annotations is None:
                height, width = self.state.shape or self.slide.shape
                self._annotations = Annotations.open(
                    self.folder / "annotations",
                    shape=(height, width),
                    slide_id=self.fingerprint,
                    author=self._author,
                    read_only=self._read_only,
                )
            return self._annotations

    @property
    def corrected(self) -> bool:
        """Whether something was drawn or accepted, without opening anything."""
        from napari_genselfdiff.annotations.journal import JOURNAL_NAME

        if self._annotations is not None:
            return self._annotations.position > 0
        try:
            return (self.folder / "annotations" / JOURNAL_NAME).stat().st_size > 0
        except OSError:
            return False

    @property
    def changes(self) -> int:
        """How many changes were made, where the annotations are open; else 0."""
        return self._annotations.position if self._annotations is not None else 0

    @property
    def missing(self) -> bool:
        """Whether the slide's file is not where it was, without opening it."""
        path = self.state.path
        return self._slide is None and (path is None or ("://" not in path and not Path(path).exists()))

    def has_predictions(self, version: str) -> bool:
        """Whether a version of the model segmented some of it."""
        folders = self._prediction_folders(version)
        return any(next((folder / "labels" / "0" / "c").glob("*"), None) for folder in folders)

    def predictions(self, version: str, spec: SegmenterSpec) -> PredictionStore:
        """What a version of the model said, and where its next predictions go: into memory for looking only.

        Raises
        ------
        MissingScaleError
            If the slide does not say its resolution and the model needs it.
        """
        from napari_genselfdiff.segmentation.store import PredictionStore

        with self._lock:
            if version not in self._stores:
                slide = self.slide
                scale = spec.scale_for(slide.mpp, slide.where)
                # Another resolution of the slide means another grid: its predictions do not mix.
                folder = self.folder / "predictions" / f"{version}-{scale:.4f}.zarr"
                opened = PredictionStore.looked_at if self._read_only else PredictionStore.reopened
                self._stores[version] = opened(folder, slide.shape, scale, mpp=slide.mpp)
            return self._stores[version]

    def labels(
        self, layer: int, box: Region, version: str | None, spec: SegmenterSpec | None
    ) -> NDArray[np.uint8]:
        """Class of each pixel: what a person drew, else what a version of the model said, else 0.

        Parameters
        ----------
        layer : int
            Pixels are ``2**layer`` level-0 pixels wide.
        box : Region
            In the layer's pixels; parts beyond the slide are cut off.
        version, spec : str, SegmenterSpec, optional
            Whose predictions; none by default.
        """
        from napari_genselfdiff.annotations import classes_of

        region = box.clipped(*layer_shape(self.slide.shape, layer))
        if region is None:
            return np.zeros((0, 0), np.uint8)
        drawn = self.annotations.read(layer, region)
        predicted = self._predicted(layer, region, version, spec)
        classes = np.where(predicted > 0, predicted - 1, 0)
        return np.where(drawn > 0, classes_of(drawn), classes).astype(np.uint8)

    def accept(
        self,
        layer: int,
        box: Region,
        seen: NDArray[np.uint8],
        version: str | None,
        spec: SegmenterSpec | None,
    ) -> float:
        """Accept as right what a person saw of a view; what was drawn by hand stays as it is.

        Tissue of which the model said nothing yet looks like background: where a part of the view is
        segmented, the rest is left out. Where nothing is, all of it was meant. What is said now and was not
        yet when the person looked (tiles that came since) is left out, too.

        Parameters
        ----------
        layer : int
            Pixels are ``2**layer`` level-0 pixels wide.
        box : Region
            The view, in the layer's pixels; on the slide.
        seen : ndarray of uint8, shape (box.height, box.width)
            The class of each pixel as it was shown.
        version, spec : str, SegmenterSpec, optional
            Whose predictions were shown; none by default.

        Returns
        -------
        float
            Part of the view that was left out, 0 to 1.

        Raises
        ------
        UserError
            If it cannot be written; nothing has changed then.
        """
        from napari_genselfdiff.annotations import encode

        # Asked first: of tiles that come just now, `labels` says what was not seen.
        silent = self._predicted(layer, box, version, spec) == 0
        left_out = self.labels(layer, box, version, spec) != seen
        if silent.any() and not silent.all():
            undrawn = self.annotations.read(layer, box) == 0
            left_out |= silent & undrawn & self.tissue.find().read(layer, box)
        self.annotations.accept(layer, box, encode(np.where(left_out, -1, seen.astype(np.int16))))
        return float(left_out.mean())

    def _predicted(
        self, layer: int, region: Region, version: str | None, spec: SegmenterSpec | None
    ) -> NDArray[np.uint8]:
        """What a version said, as its store keeps it: 0 is nothing, which is all without a scale."""
        if version is None or spec is None or (self.slide.mpp is None and spec.mpp is not None):
            return np.zeros((region.height, region.width), np.uint8)
        return self.predictions(version, spec).read(layer, region)

    def forget_predictions(self, version: str) -> None:
        """Delete what a version said."""
        import shutil

        with self._lock:
            self._stores.pop(version, None)
            for folder in self._prediction_folders(version):
                shutil.rmtree(folder, ignore_errors=True)

    def _prediction_folders(self, version: str) -> list[Path]:
        """Folders of a version's predictions, at whatever scale."""
        found = (self.folder / "predictions").glob(f"{glob.escape(version)}-*.zarr")
        start, end = f"{version}-", ".zarr"
        # A version's name may begin with another's.
        return [p for p in found if p.name.removeprefix(start).removesuffix(end).replace(".", "").isdigit()]

    def close(self) -> None:
        """Finish writing; what was drawn can still be read."""
        with self._lock:
            self._read_only = True
            if self._annotations is not None:
                self._annotations.close()
