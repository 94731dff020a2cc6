"""The state of one annotation session and what can be done in it; psygnal events, no Qt.

A session is a folder: ``session.json`` (slide by reference and fingerprint, resolution, versions),
``annotations/`` (the journal and what a person drew), ``predictions/`` (one pyramid a model) and ``models/``
(the versions that fine-tuning made).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Event, Finished
from napari_genselfdiff.files import write_text
from napari_genselfdiff.geometry import Region, layer_count, layer_shape
from napari_genselfdiff.models import library
from napari_genselfdiff.models.versions import Round, Version, judge
from napari_genselfdiff.slides.fingerprint import slide_fingerprint
from napari_genselfdiff.slides.tissue import SlideTissue

if TYPE_CHECKING:
    from napari_genselfdiff.annotations import Annotations
    from napari_genselfdiff.compute import Compute
    from napari_genselfdiff.segmentation.network import Segmenter
    from napari_genselfdiff.segmentation.pace import Pace
    from napari_genselfdiff.segmentation.store import PredictionStore
    from napari_genselfdiff.slides import Slide

FINE_TUNE_SECONDS = 25.0
FORMAT = 1


class Session:
    """One slide, its corrections, and the versions of its model.

    Parameters
    ----------
    folder : Path
        Where the session lies; made when it does not exist, reopened when it does.
    slide : Slide
    compute : Compute, optional
        Chosen automatically by default.
    author : str
        Written into the journal.

    Attributes
    ----------
    slide : Slide
    annotations : Annotations
    versions : list of Version
    model_changed, mpp_changed : Signal
        Emitted in the thread that changed them.

    Notes
    -----
    `segment` and `fine_tune` are generators that may run in another thread; the other methods belong to the
    thread that owns the session.
    """

    model_changed = Signal(str)
    mpp_changed = Signal(float)

    def __init__(
        self, folder: Path, slide: Slide, *, compute: Compute | None = None, author: str = ""
    ) -> None:
        from napari_genselfdiff.annotations import Annotations

        self.folder = Path(folder)
        self.slide = slide
        self._compute = compute
        self._segmenters: dict[str, Segmenter] = {}
        self._stores: dict[str, PredictionStore] = {}
        self._pace: Pace | None = None
        self.versions: list[Version] = []
        self.current: str | None = None
        self.previous: str | None = None
        self.view: dict[str, Any] = {}
        self.tissue = SlideTissue(slide)
        self._fingerprint = slide_fingerprint(slide)
        self._load()
        self.annotations: Annotations = Annotations.open(
            self.folder / "annotations", shape=slide.shape, slide_id=self._fingerprint, author=author
        )
        self.save()

    @property
    def compute(self) -> Compute:
        """Device, precision and threads."""
        if self._compute is None:
            from napari_genselfdiff.compute import choose_compute

            self._compute = choose_compute()
        return self._compute

    @property
    def model(self) -> Version | None:
        """The version in use."""
        return self._version(self.current) if self.current else None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of the model in use, the background first."""
        return self.segmenter().spec.classes if self.current else ("background", "foreground")

    def set_mpp(self, mpp: float) -> None:
        """Say the slide's resolution, in micrometres per level-0 pixel; kept with the session."""
        self.slide = self.slide.with_mpp(mpp)
        self._stores.clear()
        self.save()
        self.mpp_changed.emit(mpp)

    def use_model(self, name: str) -> None:
        """Choose a version of the session, or a model of the library or a file.

        Raises
        ------
        UserError
            If there is none, or it is not a segmenter.
        """
        from napari_genselfdiff.segmentation.network import load_segmenter

        if name not in {version.name for version in self.versions}:
            path = library.resolve(name)
            segmenter = load_segmenter(path)
            name = path.stem
            self._segmenters[name] = segmenter
            self.versions.append(Version(name, str(path.resolve())))
        if name != self.current:
            self.previous, self.current = self.current, name
            self.save()
            self.model_changed.emit(name)

    def segmenter(self, name: str | None = None) -> Segmenter:
        """The network of a version, the one in use by default."""
        from napari_genselfdiff.segmentation.network import load_segmenter

        name = name or self.current
        if name is None:
            raise UserError("no model is chosen", self.slide.name, "choose a model from the list")
        if name not in self._segmenters:
            self._segmenters[name] = load_segmenter(self.folder / self._version(name).path)
        return self._segmenters[name]

    def scale(self) -> float:
        """Level-0 pixels a pixel of the model in use.

        Raises
        ------
        MissingScaleError
            If the slide does not say its resolution and the model needs it.
        """
        return self.segmenter().spec.scale_for(self.slide.mpp, self.slide.where)

    def save(self) -> None:
        """Write ``session.json``."""
        if not hasattr(self, "annotations") or not self.annotations.read_only:
            values = {
                "format": FORMAT,
                "slide": {
                    "name": self.slide.name,
                    "path": str(self.slide.path or self.slide.url or "") or None,
                    "fingerprint": self._fingerprint,
                    "mpp": self.slide.mpp,
                },
                "versions": [asdict(version) for version in self.versions],
                "current": self.current,
                "previous": self.previous,
                "view": self.view,
                "tissue_sensitivity": self.tissue.sensitivity,
            }
            write_text(self.folder / "session.json", json.dumps(values, indent=1))

    def close(self) -> None:
        """Finish writing and release the session's folder."""
        self.save()
        self.annotations.close()

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
        from napari_genselfdiff.compute import with_fallback
        from napari_genselfdiff.segmentation.pace import Pace
        from napari_genselfdiff.verbs.streaming import stream_region

        self._pace = self._pace or Pace(with_fallback(self.compute))
        clipped = region.clipped(*self.slide.shape)
        if clipped is None:
            raise UserError(
                "the view shows no part of the slide", self.slide.name, "move the slide into view"
            )
        yield from stream_region(
            self.segmenter(),
            self.slide,
            clipped,
            self._store(self.current or ""),
            compute=self.compute,
            pace=self._pace,
            centre=centre,
            tissue=self.tissue.find() if slide_wide else None,
            objects=slide_wide,
            cancel=cancel,
        )

    def fine_tune(
        self,
        *,
        seconds: float = FINE_TUNE_SECONDS,
        steps: int | None = None,
        seed: int = 0,
        cancel: CancelToken | None = None,
    ) -> Iterator[Event]:
        """Train a copy of the model in use on the corrections.

        The new version is written to disk; `adopt` puts it to use.

        Yields
        ------
        Event
            As the fine-tune loop does; the result is a `Round`, or None when it was cancelled.

        Raises
        ------
        UserError
            If nothing was corrected yet.
        """
        from napari_genselfdiff.finetuning.corrections import correction_examples
        from napari_genselfdiff.finetuning.loop import FineTuneResult, FineTuneSettings, fine_tune
        from napari_genselfdiff.segmentation.network import save_segmenter

        parent, segmenter = self.current, self.segmenter()
        position = self.annotations.position
        training, held_out = correction_examples(
            self.slide, self.annotations, segmenter, scale=self.scale(), compute=self.compute
        )
        settings = FineTuneSettings(seed=seed, learning_rate=5e-4, fixed_statistics=True)
        for event in fine_tune(
            segmenter,
            training,
            held_out,
            compute=self.compute,
            settings=settings,
            seconds=seconds,
            steps=steps,
            cancel=cancel,
        ):
            if not isinstance(event, Finished):
                yield event
                continue
            if event.cancelled:
                yield Finished(None, "stopped; the model stays as it was", cancelled=True)
                return
            result = event.result
            assert isinstance(result, FineTuneResult)
            accepted, message = judge(result.before, result.after)
            name = self._next_name()
            version = Version(
                name,
                f"models/{name}{library.SUFFIX}",
                parent,
                result.before,
                result.after,
                position,
                result.steps,
                seed,
                round(result.seconds, 1),
                datetime.now(UTC).isoformat(timespec="seconds"),
            )
            save_segmenter(
                result.segmenter,
                self.folder / version.path,
                parent=parent,
                corrections=position,
                steps=result.steps,
                seed=seed,
                scores={"dice_before": result.before, "dice_after": result.after},
            )
            self._segmenters[name] = result.segmenter.eval()
            yield Finished(Round(version, accepted, message), message)

    def adopt(self, outcome: Round) -> None:
        """Keep a fine-tune's version, and put it to use if it was accepted."""
        self.versions.append(outcome.version)
        self.save()
        if outcome.accepted:
            self.use_model(outcome.version.name)

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
        from napari_genselfdiff.annotations import classes_of

        region = Region(y, x, height, width).clipped(*layer_shape(self.slide.shape, layer))
        if region is None:
            return np.zeros((0, 0), np.uint8)
        drawn = self.annotations.read(layer, region)
        version = version or self.current
        if version is None or (self.slide.mpp is None and not self._can_scale(version)):
            classes = np.zeros(drawn.shape, np.uint8)
        else:
            predicted = self._store(version).read(layer, region)
            classes = np.where(predicted > 0, predicted - 1, 0).astype(np.uint8)
        return np.where(drawn > 0, classes_of(drawn), classes).astype(np.uint8)

    def layer_count(self) -> int:
        """Number of power-of-two layers of the slide."""
        return layer_count(self.slide.shape)

    def _can_scale(self, version: str) -> bool:
        return self.segmenter(version).spec.mpp is None

    def _version(self, name: str) -> Version:
        return next(version for version in self.versions if version.name == name)

    def _next_name(self) -> str:
        taken = {version.name for version in self.versions}
        return next(name for i in range(1, 10_000) if (name := f"round-{i}") not in taken)

    def _store(self, version: str) -> PredictionStore:
        from napari_genselfdiff.segmentation.store import PredictionStore

        if version not in self._stores:
            scale = self.segmenter(version).spec.scale_for(self.slide.mpp, self.slide.where)
            # Another resolution of the slide means another grid: its predictions do not mix.
            folder = self.folder / "predictions" / f"{version}-{scale:.4f}.zarr"
            self._stores[version] = PredictionStore(folder, self.slide.shape, scale, mpp=self.slide.mpp)
        return self._stores[version]

    def _load(self) -> None:
        path = self.folder / "session.json"
        if not path.exists():
            return
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            versions = [Version(**entry) for entry in values["versions"]]
            saved = values["slide"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError("the session file is damaged", path, "restore it from a copy") from error
        if saved["fingerprint"] != self._fingerprint:
            raise UserError(
                "the session belongs to another slide", path, f"open {saved['path'] or saved['name']}"
            )
        self.versions = [v for v in versions if (self.folder / v.path).exists()]
        names = {version.name for version in self.versions}
        self.current = values["current"] if values["current"] in names else None
        self.previous = values["previous"] if values["previous"] in names else None
        self.view = values.get("view", {})
        self.tissue.sensitivity = values.get("tissue_sensitivity", 0.5)
        if self.slide.mpp is None and saved["mpp"] is not None:
            self.slide = self.slide.with_mpp(saved["mpp"])


def default_folder(slide: Slide) -> Path:
    """Where a slide's session lies unless the user says otherwise."""
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in slide.name)
    return library.user_folder().parent / "sessions" / f"{safe}-{slide_fingerprint(slide)[:12]}"
