"""Frozen features of parts of images, one after the other, while there is memory."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from napari_genselfdiff.compute import Compute, is_out_of_memory, release_memory
from napari_genselfdiff.diffusion.folding import folded
from napari_genselfdiff.diffusion.frozen import Levels, image_levels
from napari_genselfdiff.events import CancelToken, Clock, Event, Progress
from napari_genselfdiff.finetuning.feature_tiles import KNOWN
from napari_genselfdiff.segmentation.network import Segmenter

Kept = TypeVar("Kept")


def looked_at(
    parts: Sequence[NDArray[np.uint8]],
    segmenter: Segmenter,
    keep: Callable[[int, Levels], Kept],
    message: str,
    *,
    compute: Compute,
    cancel: CancelToken,
) -> Generator[Event, None, list[Kept] | None]:
    """Features of parts of images.

    Parameters
    ----------
    parts : sequence of ndarray of uint8, shape (height, width, 3)
        At the resolution of the model.
    segmenter : Segmenter
    keep : callable
        Makes of a part's number and features what is kept; on the device, where memory may be short.
    message : str
        What is being done, in plain words.
    compute : Compute
    cancel : CancelToken

    Yields
    ------
    Event
        `Progress`.

    Returns
    -------
    list or None
        What was kept of each; None when memory is short or it was cancelled.
    """
    device, clock, kept = compute.apply(), Clock(), list[Kept]()
    timestep = segmenter.spec.timestep
    network = folded(segmenter.unet.eval(), timestep).to(device)
    for done, rgb in enumerate(parts):
        if cancel.cancelled:
            return None
        yield Progress(done, len(parts), message, clock.left(done, len(parts)))
        try:
            with torch.inference_mode(), compute.autocasting():
                kept.append(keep(done, image_levels(network, rgb, timestep, known=KNOWN)))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            release_memory(compute)
            return None
    return kept
