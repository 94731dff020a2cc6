"""A cohort on a Dask cluster: one graph over the cells of all slides.

Cells are tasks, and so are the chunks of the coarser layers, which wait for the finer ones that they are made
of. A task writes whole chunks that are its own. This process opens the stores, writes down what is finished,
and hands out slide after slide, so that the scheduler holds the tasks of a few of them and not of thousands.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_genselfdiff import __version__
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Progress
from napari_genselfdiff.verbs.cells import (
    Cell,
    Grid,
    Plan,
    ancestors,
    coarsen,
    explained,
    plan_slide,
    segment_cell,
)

if TYPE_CHECKING:
    from distributed import Client, Future

    from napari_genselfdiff.segmentation.store import PredictionStore
    from napari_genselfdiff.verbs.cohort import Book, Job

THREADS, LOCAL = "threads", "local:"
RETRIES = 2
"""How often a task is tried again after an error. Dask itself counts workers that died, three by default."""
AHEAD = 4
"""Cells that a thread has waiting at least, as long as there are any."""
PATIENCE = 15.0
"""Seconds in which a scheduler must answer."""
ONE_EACH = {"distributed.scheduler.worker-saturation": 1.0}
"""Setting of a scheduler: no cell waits on a worker that computes another. It would gain nothing, cells take
seconds, and it would be blamed as well where that other one kills the worker."""
LOOK = 0.2
"""Seconds after which a wish to stop is heard at the latest."""
# A terminal sends Ctrl-C to the workers too, and it is for this process to say what becomes of them.
_DEAF = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"

Then = Callable[["Future[Any]"], None]


def local_workers(scheduler: str) -> int | None:
    """How many processes ``local:N`` means; None for an address.

    Raises
    ------
    UserError
        If it is neither.
    """
    number = scheduler.removeprefix(LOCAL)
    if number != scheduler and number.isdecimal() and int(number) > 0:
        return int(number)
    if "://" not in scheduler:
        raise UserError(
            "this is no scheduler", f"--scheduler {scheduler}", "give threads, local:4, or tcp://host:8786"
        )
    return None


@contextmanager
def connected(scheduler: str) -> Iterator[Client]:
    """A client of a scheduler, which is started for ``local:N``, and stopped with its workers in the end.

    Raises
    ------
    UserError
        If ``distributed`` is not installed, or nobody answers.
    """
    workers = local_workers(scheduler)
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise UserError(
            "the package distributed is not installed",
            f"--scheduler {scheduler}",
            'pip install "napari-genselfdiff[cluster]"',
        ) from error
    if workers is None:
        try:
            with Client(scheduler, timeout=PATIENCE, set_as_default=False) as client:
                yield client
        except (OSError, ValueError) as error:
            raise UserError(
                f"the scheduler does not answer ({error})", scheduler, "check the address"
            ) from error
        return
    with (
        dask.config.set(ONE_EACH),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",  # any free port: there may be other clusters
            memory_limit=None,
            silence_logs=logging.CRITICAL,  # errors are told by this process, in its own way
            preload=[_DEAF],
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def run(client: Client, jobs: Sequence[Job], book: Book, cancel: CancelToken) -> Iterator[Progress]:
    """Segment slides on a cluster.

    Parameters
    ----------
    client : Client
    jobs : sequence of Job
    book : Book
        Is told of what is done.
    cancel : CancelToken
        Honoured at once; cells that are being computed are not waited for.

    Yields
    ------
    Progress

    Raises
    ------
    UserError
        If the workers have another version of this package or none, or the scheduler is lost.
    """
    cohort = _Run(client, book, cancel)
    try:
        if (yield from cohort.greet()):
            yield from cohort.go(list(jobs))
    finally:
        cohort.close()


def version() -> str:
    """The version of this package, as a worker sees it."""
    return __version__


@dataclass(eq=False)
class _Slide:
    """A slide whose tasks the scheduler has."""

    job: Job
    grid: Grid
    store: PredictionStore
    waiting: int = 0
    coarse: set[tuple[int, Cell]] = field(default_factory=set)
    finished: list[Cell] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class _Run:
    def __init__(self, client: Client, book: Book, cancel: CancelToken) -> None:
        self.client, self.book, self.cancel = client, book, cancel
        self._answers: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._pending: dict[Any, tuple[_Slide | None, Future[Any], Then]] = {}
        self._slides: set[_Slide] = set()
        self._cells = self._plans = 0
        self._threads, self._counted = 0, float("-inf")

    def greet(self) -> Generator[Progress, None, bool]:
        """Wait for a worker, and see that it has this package; returns whether to go on."""
        answered: list[Future[Any]] = []
        future = self.client.submit(version, pure=False, retries=RETRIES)
        self._submit(None, [future], [answered.append])
        while not answered and not self.cancel.cancelled:
            yield self._progress()
            self._collect()
        if self.cancel.cancelled:
            return False
        reply, option = answered[0], "--scheduler"
        todo = f"install {__version__} where the scheduler and its workers run"
        if reply.status == "error":
            what = f"the workers cannot run napari-genselfdiff ({reply.exception()})"
            raise UserError(what, option, todo)
        if reply.result() != __version__:
            what = f"the workers have version {reply.result()} of napari-genselfdiff"
            raise UserError(what, option, todo)
        return True

    def go(self, jobs: list[Job]) -> Iterator[Progress]:
        """Keep the workers busy until everything is done."""
        jobs.reverse()
        while (jobs or self._pending) and not self.cancel.cancelled:
            threads = self._count_threads()
            while jobs and self._cells < AHEAD * max(1, threads) and self._plans < max(1, threads):
                self._plan(jobs.pop())
            yield self._progress()
            self._collect()
        yield self._progress()

    def close(self) -> None:
        """Leave the stores as they should be, whatever happened."""
        while not self._answers.empty():
            self._handle(self._answers.get())
        pending = [future for _, future, _ in self._pending.values()]
        self._pending.clear()
        if pending and self.client.status == "running":
            self.client.cancel(pending)
        for slide in list(self._slides):
            self._finish(slide, stopped=True)

    def _plan(self, job: Job) -> None:
        self._plans += 1

        def planned(future: Future[Any]) -> None:
            self._plans -= 1
            if future.status == "error":
                self.book.fail(job, future.exception())
                return
            try:
                self._open(job, future.result())
            except Exception as error:  # noqa: BLE001 - one bad slide does not stop the others
                self.book.fail(job, error)

        # Before the cells of other slides: while these are computed, the next ones are being looked at.
        future = self.client.submit(plan_slide, job.work, job.known, pure=False, retries=RETRIES, priority=1)
        self._submit(None, [future], [planned])

    def _open(self, job: Job, plan: Plan) -> None:
        """Hand out the tasks of a slide."""
        store, todo = self.book.begin(job, plan)
        slide = _Slide(job, plan.grid, store)
        # Of all cells, not of those that are left: whoever was killed may have left holes.
        for cell in plan.cells:
            slide.coarse.update(ancestors(cell, len(store.layers)))
        options: dict[str, Any] = {"work": job.work, "grid": plan.grid, "pure": False, "retries": RETRIES}
        futures = self.client.map(segment_cell, todo, **options)
        self._submit(slide, futures, [partial(self._cell_done, slide, cell) for cell in todo])
        self._cells += len(todo)
        made: dict[Cell, Future[Any]] = dict(zip(todo, futures, strict=True))
        for layer in sorted({layer for layer, _ in slide.coarse}):
            chunks = sorted(chunk for of, chunk in slide.coarse if of == layer)
            finer = [[made[part] for part in _parts(chunk) if part in made] for chunk in chunks]
            futures = self.client.map(coarsen, chunks, finer, layer=layer, **options)
            self._submit(slide, futures, [partial(self._coarse_done, slide, (layer, c)) for c in chunks])
            made = dict(zip(chunks, futures, strict=True))
        self._slides.add(slide)

    def _cell_done(self, slide: _Slide, cell: Cell, future: Future[Any]) -> None:
        self._cells -= 1
        if future.status == "error":
            slide.errors.append(f"{slide.grid.place(cell)}: {explained(future.exception())}")
        else:
            slide.finished.append(cell)

    def _coarse_done(self, slide: _Slide, chunk: tuple[int, Cell], future: Future[Any]) -> None:
        # Where a cell has failed, those that waited for it fail too, and are made in the end.
        if future.status == "finished":
            slide.coarse.discard(chunk)

    def _finish(self, slide: _Slide, *, stopped: bool = False) -> None:
        """Leave a slide's store as it should be, and write down how it went."""
        self._slides.discard(slide)
        self._remember(slide)
        try:
            for layer, chunk in sorted(slide.coarse):
                slide.store.coarsen(layer, *chunk)
        except OSError as error:
            slide.errors.append(explained(error))
        if slide.errors:
            more = f" and {len(slide.errors) - 1} more" if len(slide.errors) > 1 else ""
            self.book.fail(slide.job, UserError(f"{slide.errors[0]}{more}", slide.job.work.slide))
        elif not stopped:
            self.book.finish(slide.job)

    def _remember(self, slide: _Slide) -> None:
        if slide.finished:
            slide.store.finish_all(slide.finished)
            self.book.cells_done(len(slide.finished))
            slide.finished.clear()

    def _submit(self, slide: _Slide | None, futures: Sequence[Future[Any]], thens: Sequence[Then]) -> None:
        for future, then in zip(futures, thens, strict=True):
            self._pending[future.key] = slide, future, then
            future.add_done_callback(self._answers.put)
            if slide is not None:
                slide.waiting += 1

    def _collect(self) -> None:
        """Wait for answers, but not for long, and deal with all that are there."""
        try:
            self._handle(self._answers.get(timeout=LOOK))
        except queue.Empty:
            return
        while not self._answers.empty():
            self._handle(self._answers.get())
        for slide in list(self._slides):
            self._remember(slide)  # of all that came at once in one go: a store may be far away
            if not slide.waiting:
                self._finish(slide)

    def _handle(self, future: Future[Any]) -> None:
        slide, _, then = self._pending.pop(future.key, (None, None, None))
        if then is None:
            return
        if future.status not in ("finished", "error"):
            raise UserError(
                "the scheduler was lost", self.book.folder, "give the same command again to go on from there"
            )
        if slide is not None:
            slide.waiting -= 1
        then(future)

    def _progress(self) -> Progress:
        return self.book.progress() if self._count_threads() else self.book.progress("waiting for workers")

    def _count_threads(self) -> int:
        if time.monotonic() - self._counted > 2 and self.client.status == "running":
            self._threads, self._counted = sum(self.client.nthreads().values()), time.monotonic()
        return self._threads


def _parts(chunk: Cell) -> list[Cell]:
    """What a chunk of a coarser layer is made of."""
    return [(2 * chunk[0] + row, 2 * chunk[1] + column) for row in (0, 1) for column in (0, 1)]
