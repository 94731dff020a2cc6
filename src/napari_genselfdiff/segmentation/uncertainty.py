"""Where a model is unsure, over all that it segmented, from what the store of its predictions keeps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.events import CancelToken, Clock, Event, Finished, Progress
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.segmentation.store import CHUNK, STEP, PredictionStore

BLOCK = 32
"""Side in model pixels of what one value of the map stands for."""
BATCH = 32
"""Chunks that are read between two events."""
MOST_CHUNKS = 600
"""Of a slide of which more is segmented, so many chunks stand for all, evenly chosen: a second or two."""


@dataclass(frozen=True)
class UncertaintyMap:
    """How unsure a model is, block by block.

    Attributes
    ----------
    values : ndarray of float32, shape (rows, columns)
        One minus the probability of the predicted class, averaged over the predicted pixels of a block: 0 is
        sure. NaN where nothing was predicted, or the block was not read.
    scale : float
        Width of a block in level-0 pixels; the first block begins at level-0 pixel (0, 0).
    complete : bool
        Whether all that was predicted was read.
    """

    values: NDArray[np.float32]
    scale: float
    complete: bool


def uncertainty_map(
    store: PredictionStore,
    *,
    most: int = MOST_CHUNKS,
    sample: int = 0,
    cancel: CancelToken | None = None,
) -> Iterator[Event]:
    """Map a model's uncertainty over a slide, from its confidence alone.

    Parameters
    ----------
    store : PredictionStore
    most : int
        Chunks to read at most.
    sample : int
        Which chunks are taken where there are more; another number takes others.
    cancel : CancelToken, optional

    Yields
    ------
    Event
        `Progress`, then `Finished` with an `UncertaintyMap`.

    Notes
    -----
    It tells places with errors about as well as entropy does, and better than the disagreement of time steps
    or of flips, which cost further passes of the network (``docs/benchmarks/uncertainty.json``).
    """
    cancel = cancel or CancelToken()
    rows, columns = (-(-side // BLOCK) for side in store.grid)
    values = np.full((rows, columns), np.nan, np.float32)
    there = _predicted_chunks(store)
    chosen = there
    if len(there) > most:
        chosen = sorted(sorted(there, key=lambda chunk: _order(chunk, sample))[:most])
    clock = Clock()
    for done, (row, column) in enumerate(chosen):
        if done % BATCH == 0:
            if cancel.cancelled:
                break
            left = clock.left(done, len(chosen))
            yield Progress(done, len(chosen), "looking where the model is unsure", left)
        box = Region(row * CHUNK, column * CHUNK, CHUNK, CHUNK).clipped(*store.grid)
        assert box is not None
        part = block_means(store.confidence(box))
        top, left_column = row * CHUNK // BLOCK, column * CHUNK // BLOCK
        values[top : top + part.shape[0], left_column : left_column + part.shape[1]] = part
    yield Finished(
        UncertaintyMap(values, BLOCK * store.scale, len(chosen) == len(there)), cancelled=cancel.cancelled
    )


def block_means(confidence: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean uncertainty of each block of `BLOCK` pixels; NaN where nothing was predicted in it."""
    height, width = confidence.shape
    padded = np.pad(confidence, ((0, -height % BLOCK), (0, -width % BLOCK)))
    blocks = padded.reshape(padded.shape[0] // BLOCK, BLOCK, -1, BLOCK)
    counted = (blocks > 0).sum(axis=(1, 3), dtype=np.int32)
    # Kept in steps, rounded down: half a step is added.
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = blocks.sum(axis=(1, 3), dtype=np.int64) / counted + STEP / 2
        return np.where(counted > 0, np.maximum(255 - mean, 0) / 255, np.nan).astype(np.float32)


def _predicted_chunks(store: PredictionStore) -> list[tuple[int, int]]:
    """Chunks in which something was predicted, by the coarsest layer, of which a pixel is enough."""
    coarse = store.layers[-1]
    width = 2 ** (len(store.layers) - 1)
    ys, xs = np.nonzero(np.asarray(coarse[:]))
    return sorted({(int(y) * width // CHUNK, int(x) * width // CHUNK) for y, x in zip(ys, xs, strict=True)})


def _order(chunk: tuple[int, int], sample: int) -> bytes:
    return hashlib.sha256(f"{sample}:{chunk[0]}:{chunk[1]}".encode()).digest()
