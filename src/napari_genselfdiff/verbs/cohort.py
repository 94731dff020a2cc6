"""Segment many slides into one folder: on this machine, or on a Dask cluster.

Each slide becomes a label pyramid, see `PredictionStore`, and a manifest beside them says how far they are.
The same call again does only what is missing: the stores know which cells are finished.
"""

from __future__ import annotations

import logging
import statistics
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from napari_genselfdiff.compute import available_cores, choose_compute
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Clock, Event, Finished, Progress
from napari_genselfdiff.models import library
from napari_genselfdiff.models.weights import sha256_of
from napari_genselfdiff.verbs import cluster
from napari_genselfdiff.verbs.cells import Cell, Plan, Work, ancestors, explained, plan_slide
from napari_genselfdiff.verbs.inputs import check_mpp, find_slides
from napari_genselfdiff.verbs.manifest import NAME, Entry, Manifest, State, join, place

if TYPE_CHECKING:
    from napari_genselfdiff.segmentation.store import PredictionStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cohort:
    """What came of it.

    Attributes
    ----------
    manifest : str
        File or address of the manifest.
    done : list of str
        Slides that are done, those of earlier runs included.
    failed : dict of str to str
        Why the others are not, by slide.
    """

    manifest: str
    done: list[str]
    failed: dict[str, str]


@dataclass(frozen=True)
class Job:
    """A slide that is to be done; ``known`` is its fingerprint if it was done before."""

    entry: Entry
    work: Work
    known: str | None


def segment_cohort(
    images: Sequence[str],
    output: str,
    *,
    model: str | Path = library.DEFAULT_SEGMENTER,
    mpp: float | None = None,
    device: str = "auto",
    scheduler: str = cluster.THREADS,
    cancel: CancelToken | None = None,
) -> Iterator[Event]:
    """Segment slides.

    Parameters
    ----------
    images : sequence of str
        Files, folders and patterns, see `find_slides`.
    output : str
        A folder, or an fsspec address such as ``s3://bucket/cohort``.
    model : str or Path
        Name in the library, or a file. Workers on other machines must find the same.
    mpp : float, optional
        Micrometres per pixel of all slides, in place of what the files say.
    device : str
        See `choose_compute`; asked for where it is computed.
    scheduler : str
        ``threads``: this process, slide after slide. ``local:N``: so many processes of this machine. Else the
        address of a Dask scheduler; the workers must see the slides and the output under the same paths.
    cancel : CancelToken, optional
        What is finished is kept.

    Yields
    ------
    Event
        `Progress` in cells, of which those of slides that nobody looked at yet are estimated, then `Finished`
        with a `Cohort`.

    Raises
    ------
    UserError
        If the input, the model, the output or the scheduler is not good. A bad slide does not stop the others
        and is told in the result.
    """
    from napari_genselfdiff.segmentation.network import load_segmenter

    cancel = cancel or CancelToken()
    check_mpp(mpp, "--mpp")
    threads = None
    if scheduler != cluster.THREADS:
        workers = cluster.local_workers(scheduler)
        threads = max(1, available_cores() // workers) if workers else None
    if scheduler == cluster.THREADS or threads:
        choose_compute(device)  # a device that is not there is told now, and not slide after slide
    folder = place(output)
    slides = [str(path) for path in find_slides(images, output=folder)]
    weights = library.resolve(model)
    load_segmenter(weights)
    sha256, run = sha256_of(weights), uuid.uuid4().hex
    # A bundled model lies elsewhere on another machine.
    name = str(model) if weights.parent == library.BUNDLED else str(weights.absolute())
    with Manifest.opened(folder, slides, model=weights.stem, sha256=sha256, mpp=mpp) as manifest:
        jobs = []
        for slide in slides:
            entry = manifest.entries[slide]
            store = manifest.address(entry)
            if not _exists(store):
                manifest.set(entry, State.waiting, fingerprint=None, cells=0)
            known = entry.fingerprint if entry.state == State.done else None
            jobs.append(Job(entry, Work(slide, store, name, sha256, mpp, device, threads, run), known))
        book = Book(manifest, len(jobs))
        if scheduler == cluster.THREADS:
            yield from _one_by_one(jobs, book, cancel)
        else:
            yield Progress(0, 0, "starting")
            with cluster.connected(scheduler) as client:
                yield from cluster.run(client, jobs, book, cancel)
        entries = [job.entry for job in jobs]
        failed = {e.slide: e.error or "" for e in entries if e.state == State.failed}
        done = [entry.slide for entry in entries if entry.state == State.done]
        stopped = len(done) + len(failed) < len(entries)
        message = f"{len(done)} of {len(entries)} slides"
        if stopped:
            message = f"stopped: {message} are done, the same command goes on"
        yield Finished(Cohort(join(folder, NAME), done, failed), message, cancelled=stopped)


@dataclass
class Book:
    """How far a run is, in the manifest and in numbers.

    Attributes
    ----------
    manifest : Manifest
    slides : int
        How many there are.
    """

    manifest: Manifest
    slides: int
    _todo: list[int] = field(default_factory=list)
    _cells: int = 0
    _ended: int = 0
    _clock: Clock = field(default_factory=Clock)

    @property
    def folder(self) -> str:
        """Where the manifest lies."""
        return self.manifest.folder

    def begin(self, job: Job, plan: Plan) -> tuple[PredictionStore, list[Cell]]:
        """Open the store of a slide that was looked at; returns it and the cells that are left to do.

        Raises
        ------
        UserError
            If the store is of another slide.
        """
        entry = job.entry
        if entry.fingerprint not in (None, plan.fingerprint):
            raise UserError(
                "the slide is not the one that was segmented before", entry.slide, f"remove {job.work.output}"
            )
        if not plan.he:
            logger.warning(
                "%s does not look like an H&E stain, which the models were trained on", entry.slide
            )
        store = plan.grid.open(job.work.output)
        todo = [cell for cell in plan.cells if not store.is_finished(*cell)]
        self._todo.append(len(todo))
        if plan.cells:
            self.manifest.set(entry, State.started, fingerprint=plan.fingerprint, cells=len(plan.cells))
        return store, todo

    def cells_done(self, count: int = 1) -> None:
        """Count cells."""
        self._cells += count

    def finish(self, job: Job) -> None:
        """Say that a slide is done."""
        self._ended += 1
        self.manifest.set(job.entry, State.done)

    def fail(self, job: Job, error: BaseException | None) -> None:
        """Say that a slide cannot be done."""
        self._ended += 1
        self.manifest.set(job.entry, State.failed, explained(error))

    def progress(self, message: str = "segmenting") -> Progress:
        """How far all slides are; those that nobody looked at yet count like the others."""
        known = sum(self._todo)
        unseen = self.slides - max(self._ended, len(self._todo))
        total = known + unseen * statistics.mean(self._todo) if self._todo else 0
        message = f"{message}, {self._ended} of {self.slides} slides done"
        return Progress(self._cells, total, message, self._clock.left(self._cells, total))


def _one_by_one(jobs: Sequence[Job], book: Book, cancel: CancelToken) -> Iterator[Progress]:
    """Segment slides on this machine."""
    for job in jobs:
        if cancel.cancelled:
            return
        yield book.progress()
        try:
            yield from _streamed(job, book, cancel)
        except Exception as error:  # noqa: BLE001 - one bad slide does not stop the others
            book.fail(job, error)


def _streamed(job: Job, book: Book, cancel: CancelToken) -> Iterator[Progress]:
    from napari_genselfdiff.geometry import Region
    from napari_genselfdiff.segmentation.store import CELL
    from napari_genselfdiff.segmentation.streaming import segment_cells
    from napari_genselfdiff.verbs.cells import loaded_model, opened_slide

    plan = plan_slide(job.work, job.known)
    store, todo = book.begin(job, plan)
    # A run on a cluster that was killed may have left holes in the coarser layers.
    finished = set(plan.cells) - set(todo)
    layers = {chunk for cell in finished for chunk in ancestors(cell, len(store.layers))}
    for layer, chunk in sorted(layers):
        store.coarsen(layer, *chunk)
    if todo:
        slide, (segmenter, pace), wanted = opened_slide(job.work), loaded_model(job.work), set(todo)
        events = segment_cells(
            segmenter,
            lambda y, x, height, width: slide.read_scaled(y, x, height, width, scale=plan.grid.scale),
            Region(0, 0, *store.grid),
            store,
            compute=pace.way.compute,
            pace=pace,
            wanted=lambda part: (part.y // CELL, part.x // CELL) in wanted,
            cancel=cancel,
        )
        before = 0.0
        for event in events:
            if isinstance(event, Progress):
                book.cells_done(round(event.done - before))
                before = event.done
                yield book.progress()
            elif isinstance(event, Finished) and event.cancelled:
                return
    book.finish(job)


def _exists(store: str) -> bool:
    import zarr

    try:
        zarr.open_group(store, mode="r")
    except FileNotFoundError:
        return False
    except ValueError:
        pass  # damaged: whoever opens it says so, of this slide alone
    return True
