"""What a worker does for a cohort: plan a slide, segment a cell, make a chunk of a coarser layer.

Each is a function of plain values, so that it can be sent to another process. What is costly to open (the
model, the slide, the store) is kept by the process for the next call.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_genselfdiff.compute import Compute, choose_compute
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides import Slide, open_slide

if TYPE_CHECKING:
    from napari_genselfdiff.segmentation.network import Segmenter
    from napari_genselfdiff.segmentation.pace import Pace
    from napari_genselfdiff.segmentation.store import PredictionStore

Cell = tuple[int, int]
"""Row and column in the grid of cells of a slide."""

_COMPUTING = threading.Lock()
"""One cell is computed at a time, with all threads of the process; others are read meanwhile."""


@dataclass(frozen=True)
class Work:
    """What is to be done with a slide.

    Attributes
    ----------
    slide, output : str
        The slide's file, and the folder or address of its store.
    model, sha256 : str
        Name or file of the segmenter, and what its file must be.
    mpp : float or None
        Micrometres per pixel, in place of what the slide says.
    device : str
    threads : int or None
        Threads of torch; those that the worker has by default.
    run : str
        What is kept open is not taken over from another run.
    """

    slide: str
    output: str
    model: str
    sha256: str
    mpp: float | None
    device: str
    threads: int | None
    run: str


@dataclass(frozen=True)
class Grid:
    """The model's grid on a slide, see `PredictionStore`."""

    shape: tuple[int, int]
    scale: float
    mpp: float | None

    def open(self, output: str, *, shared: bool = False) -> PredictionStore:
        """Open the store, or make it."""
        from napari_genselfdiff.segmentation.store import PredictionStore

        return PredictionStore(output, self.shape, self.scale, mpp=self.mpp, shared=shared)

    def place(self, cell: Cell) -> str:
        """Where a cell lies, in words."""
        from napari_genselfdiff.segmentation.store import CELL

        y, x = (round(number * CELL * self.scale) for number in cell)
        return f"cell {cell[0]}, {cell[1]} (from pixel y {y}, x {x} of level 0)"


@dataclass(frozen=True)
class Plan:
    """What a look at a slide says.

    Attributes
    ----------
    fingerprint : str
    grid : Grid
    cells : tuple of Cell
        Those with tissue; none where the slide is known.
    he : bool
        Whether it looks like H&E.
    """

    fingerprint: str
    grid: Grid
    cells: tuple[Cell, ...]
    he: bool = True


def plan_slide(work: Work, known: str | None = None) -> Plan:
    """Look at a slide.

    Parameters
    ----------
    work : Work
    known : str, optional
        Fingerprint of the slide that is done already: if it is this one, its tissue is not looked for.

    Raises
    ------
    UserError
        If the slide or the model is not good, or there is no tissue.
    """
    from napari_genselfdiff.segmentation.store import CELL
    from napari_genselfdiff.slides.fingerprint import slide_fingerprint
    from napari_genselfdiff.slides.stain import looks_like_he
    from napari_genselfdiff.slides.tissue import find_tissue

    slide = opened_slide(work)
    segmenter, _ = loaded_model(work)
    scale = segmenter.spec.scale_for(slide.mpp, work.slide)
    grid, fingerprint = Grid(slide.shape, scale, slide.mpp), slide_fingerprint(slide)
    if fingerprint == known:
        return Plan(fingerprint, grid, ())
    tissue, side = find_tissue(slide), CELL * scale
    rows, columns = (range(-(-int(np.ceil(length / scale)) // CELL)) for length in slide.shape)
    cells = [(r, c) for r in rows for c in columns if tissue.meets(r * side, c * side, side, side)]
    if not cells:
        raise UserError(
            "no tissue was found on the slide", work.slide, "segment a region of it with --region"
        )
    return Plan(fingerprint, grid, tuple(cells), looks_like_he(slide))


def segment_cell(cell: Cell, work: Work, grid: Grid) -> None:
    """Predict a cell and write its chunks; the layers of which others write chunks too are left alone."""
    from napari_genselfdiff.segmentation.inference import Tiling
    from napari_genselfdiff.segmentation.streaming import AroundReader, segment_cells

    slide, store = opened_slide(work), _store(work.output, grid, work.run)
    segmenter, pace = loaded_model(work)
    part = store.cell(*cell)
    # Read before it is this cell's turn: nobody waits for the file while computing.
    lead = Tiling.of(segmenter.spec.config).lead
    read = AroundReader(partial(slide.read_scaled, scale=grid.scale), part, lead, store.grid)
    with _COMPUTING:
        for _ in segment_cells(segmenter, read, part, store, compute=pace.way.compute, pace=pace):
            pass


def coarsen(chunk: Cell, finer: Sequence[None], *, layer: int, work: Work, grid: Grid) -> None:
    """Make a chunk of a coarser layer; ``finer`` are the tasks that it waited for."""
    _store(work.output, grid, work.run).coarsen(layer, *chunk)


def ancestors(cell: Cell, layers: int) -> list[tuple[int, Cell]]:
    """Chunks ``(layer, (row, column))`` that show a cell together with others, from fine to coarse."""
    from napari_genselfdiff.segmentation.store import OWN_LAYERS

    return [
        (layer, (cell[0] >> steps, cell[1] >> steps))
        for steps, layer in enumerate(range(OWN_LAYERS, layers), start=1)
    ]


def explained(error: BaseException | None) -> str:
    """An error in one line."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def opened_slide(work: Work) -> Slide:
    """The slide, opened by this process before or now."""
    return _cached_slide(work.slide, work.mpp, work.run)


@lru_cache(maxsize=4)
def _cached_slide(path: str, mpp: float | None, run: str) -> Slide:
    return open_slide(path, mpp=mpp)


@lru_cache(maxsize=4)
def _store(output: str, grid: Grid, run: str) -> PredictionStore:
    return grid.open(output, shared=True)


def loaded_model(work: Work) -> tuple[Segmenter, Pace]:
    """The segmenter, loaded by this process before or now, and how it computes."""
    with _COMPUTING:
        return _cached_model(work.model, work.sha256, work.device, work.threads)


@lru_cache(maxsize=1)
def _cached_model(name: str, sha256: str, device: str, threads: int | None) -> tuple[Segmenter, Pace]:
    from napari_genselfdiff.models import library
    from napari_genselfdiff.models.weights import sha256_of
    from napari_genselfdiff.segmentation.network import load_segmenter
    from napari_genselfdiff.segmentation.pace import Pace

    path = library.resolve(name)
    if sha256_of(path) != sha256:
        raise UserError(
            "the worker has another model of this name",
            path,
            "install the same version everywhere, or name the model's file on a disk that all can read",
        )
    compute = _worker_compute(device, threads)
    # Windows of one size, unless memory runs out: whoever computes a cell, its pixels are the same.
    return load_segmenter(path).to(compute.apply()).for_inference(), Pace([compute], calibrate=False)


def _worker_compute(device: str, threads: int | None) -> Compute:
    """Where this process computes: with the threads, and on the graphics card, that are its own."""
    name, own = _worker()
    compute = choose_compute(device, threads=threads or own)
    if compute.device == "cuda" and isinstance(name, int):
        import torch

        # The workers of one machine are numbered, and each may see all of its cards.
        return replace(compute, device=f"cuda:{name % torch.cuda.device_count()}")
    return compute


def _worker() -> tuple[Any, int | None]:
    """Name and threads of the worker that this is; None where it is none."""
    try:
        from distributed import get_worker

        worker = get_worker()
    except (ImportError, ValueError):
        return None, None
    return worker.name, worker.state.nthreads
