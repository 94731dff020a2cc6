"""A round on disk while it runs, so that one that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.finetuning.sampling import CorrectionSampler
from napari_genselfdiff.finetuning.trainer import Trainer
from napari_genselfdiff.models.weights import read_weights, save_weights
from napari_genselfdiff.segmentation.network import Segmenter

KIND = "round"
HARDNESS = "hardness"
START_ANEW = "start the fine-tune anew without resuming"
ALIKE = ("settings", "classes", "fresh", "start", "mpp", "downsample", "instances")
"""Entries of a card in which a round that goes on is like the one that was stopped."""


def beginning(segmenter: Segmenter) -> dict[str, Any]:
    """What a card says of the weights that a round starts from: a hash of them, and how they see a slide."""
    digest = hashlib.sha256()
    for name, value in sorted(segmenter.state_dict().items()):
        # As they are on disk: a model that was opened again is the same one.
        plain = value.half() if value.is_floating_point() else value
        digest.update(name.encode() + plain.cpu().contiguous().numpy().tobytes())
    spec = segmenter.spec
    return {
        "start": digest.hexdigest(),
        "mpp": spec.mpp,
        "downsample": spec.downsample,
        "instances": spec.instances,
    }


def save_round(path: Path, trainer: Trainer, sampler: CorrectionSampler, card: dict[str, Any]) -> None:
    """Write weights, moving average, the optimiser's memory and how hard the examples were, atomically.

    Parameters
    ----------
    path : Path
        A ``.safetensors`` file.
    trainer : Trainer
    sampler : CorrectionSampler
    card : dict
        Plain values that the run is told by again: its settings, and what it was trained on.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    tensors = trainer.to_tensors() | {HARDNESS: torch.from_numpy(sampler.hardness)}
    save_weights(path, tensors, card | {"kind": KIND, "step": trainer.step, "micro": trainer.micro})


def load_round(
    path: Path, trainer: Trainer, sampler: CorrectionSampler, card: dict[str, Any]
) -> dict[str, Any]:
    """Go on from what `save_round` wrote; returns the card.

    Parameters
    ----------
    path : Path
    trainer : Trainer
    sampler : CorrectionSampler
    card : dict
        What the run is told by; of it, what `ALIKE` names must be as in the file.

    Raises
    ------
    UserError
        If the file is missing or damaged, or is of another run.
    """
    tensors, found = read_weights(path)
    if found.get("kind") != KIND:
        raise UserError("this is not a fine-tune that was stopped", path, START_ANEW)
    plain = json.loads(json.dumps({key: card[key] for key in ALIKE}))
    different = sorted(key for key in plain if found.get(key) != plain[key])
    if different:
        raise UserError(
            f"the fine-tune that was stopped is of another kind ({', '.join(different)})", path, START_ANEW
        )
    hardness = tensors.pop(HARDNESS, torch.zeros(0))
    try:
        trainer.load(tensors, found["step"])
        trainer.micro = found["micro"]
    except (KeyError, RuntimeError) as error:
        raise UserError("the fine-tune that was stopped cannot be read", path, START_ANEW) from error
    # Groups of corrections that came since have no loss yet; where there are others, all begin anew.
    if len(hardness) == len(sampler.hardness):
        sampler.hardness = hardness.double().numpy().copy()
    return found
