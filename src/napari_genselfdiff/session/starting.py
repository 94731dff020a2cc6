"""The network that a task without a model begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_genselfdiff.models import library
from napari_genselfdiff.session.task import Task

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from napari_genselfdiff.segmentation.network import Segmenter, SegmenterSpec


def untrained_segmenter(task: Task, pretext: str | Path | None = None) -> Segmenter:
    """The pretext's network with a new output layer for the task's classes.

    Parameters
    ----------
    task : Task
    pretext : str or Path, optional
        In place of the task's own.

    Raises
    ------
    UserError
        If there is no such pretext.
    """
    from napari_genselfdiff.diffusion.pretraining import load_pretext
    from napari_genselfdiff.segmentation.network import SegmenterSpec

    path = library.resolve(pretext or task.pretext)
    network, card = load_pretext(path)
    spec = SegmenterSpec(network.config, task.classes, task.mpp, task.instances)
    segmenter = pretext_segmenter(spec, network.state_dict())
    segmenter.card = {"pretext": card.get("name", path.stem), "licence": card.get("licence")}
    return segmenter


def pretext_segmenter(spec: SegmenterSpec, weights: dict[str, Tensor]) -> Segmenter:
    """A network with a pretext's weights and a new output layer."""
    from napari_genselfdiff.segmentation.network import build_segmenter

    return build_segmenter(spec, start=weights).eval()
