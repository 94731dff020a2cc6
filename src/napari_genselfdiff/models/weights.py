"""Weights files: safetensors with a JSON card in the metadata."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.files import atomic_path

if TYPE_CHECKING:
    from torch import Tensor

CARD_KEY = "card"


def save_weights(
    path: str | Path, tensors: dict[str, Tensor], card: dict[str, Any], *, half: bool = False
) -> None:
    """Write weights and their card into one file, atomically.

    Parameters
    ----------
    path : str or Path
        A ``.safetensors`` file.
    tensors : dict of str to Tensor
    card : dict
        Plain JSON values: what the weights are and how they were made.
    half : bool
        Store floating-point tensors as float16 (half the size; they are widened again when loaded).

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    def stored(tensor: Tensor) -> Tensor:
        tensor = tensor.detach().to("cpu", copy=True)
        return (tensor.to(torch.float16) if half and tensor.is_floating_point() else tensor).contiguous()

    with atomic_path(path) as temporary:
        try:
            save_file(
                {name: stored(tensor) for name, tensor in tensors.items()},
                temporary,
                metadata={CARD_KEY: json.dumps(card, sort_keys=True)},
            )
        except SafetensorError as error:  # a full disk, too, is told in this way
            raise OSError(str(error)) from error


def read_card(path: str | Path) -> dict[str, Any]:
    """Read the card of a weights file, without its tensors.

    Raises
    ------
    UserError
        If the file is missing, damaged, or not one of ours.
    """
    with _open(path) as file:
        metadata = file.metadata() or {}
    if CARD_KEY not in metadata:
        raise UserError("the file has no model card", path, "it was not written by napari-genselfdiff")
    try:
        card = json.loads(metadata[CARD_KEY])
    except ValueError:
        card = None
    if not isinstance(card, dict):
        raise UserError("the model card cannot be read", path, "the file is damaged; export it anew")
    return card


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors (half precision widened to float32) and the card of a weights file.

    Raises
    ------
    UserError
        If the file is missing, damaged, or not one of ours.
    """
    import torch

    card = read_card(path)
    with _open(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    return {
        name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in tensors.items()
    }, card


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(path: str | Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt", device="cpu")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError("there is no such weights file", path, "check the path") from error
    except (SafetensorError, OSError) as error:
        raise UserError(
            "the weights file could not be read", path, "it is damaged or not a safetensors file"
        ) from error
