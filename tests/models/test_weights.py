"""Weights files."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.models.weights import read_card, read_weights, save_weights, sha256_of

CARD = {"kind": "pretext", "classes": ["background", "tumour µ"], "mpp": 0.5, "nothing": None}


def test_tensors_and_card_come_back(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "w.safetensors"
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5), "c": torch.tensor(2.5)}
    save_weights(path, tensors, CARD)
    read, card = read_weights(path)
    assert card == CARD == read_card(path)
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_half_precision_is_widened_when_read(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    tensors = {"a": torch.randn(1000), "b": torch.arange(5), "nchw": torch.randn(2, 3, 4, 4)}
    tensors["nchw"] = tensors["nchw"].contiguous(memory_format=torch.channels_last)
    save_weights(path, tensors, {}, half=True)
    read, _ = read_weights(path)
    assert read["a"].dtype == torch.float32
    assert 0 < (read["a"] - tensors["a"]).abs().max() < 1e-3 * tensors["a"].abs().max()
    assert torch.equal(read["b"], tensors["b"])
    assert torch.equal(read["nchw"], tensors["nchw"].half().float())
    assert path.stat().st_size < 3000


@pytest.mark.parametrize("damage", ["missing", "folder", "empty", "cut", "noise", "pickle"])
def test_files_that_cannot_be_read_are_told(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "w.safetensors"
    if damage == "folder":
        path.mkdir()
    elif damage == "empty":
        path.touch()
    elif damage == "cut":
        save_weights(path, {"a": torch.zeros(100)}, CARD)
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "noise":
        path.write_bytes(bytes(range(256)) * 10)
    elif damage == "pickle":
        torch.save({"a": torch.zeros(3)}, path)
    for read in (read_card, read_weights):
        with pytest.raises(UserError, match=r"w\.safetensors"):
            read(path)


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    path = tmp_path / "w.safetensors"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError):
        read_weights(path)
    torch.save(Trap(), path)
    with pytest.raises(UserError):
        read_weights(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"card": "{"}, {"card": "[1]"}])
def test_safetensors_of_others_are_told(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(3)}, path, metadata=metadata)
    with pytest.raises(UserError, match="card"):
        read_card(path)
    with pytest.raises(UserError, match="card"):
        read_weights(path)


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.zeros(3)}, {"version": 1})
    before = path.read_bytes()

    def full(*args: Any, **options: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(UserError, match=r"could not be written .*No space left.*w\.safetensors"):
        save_weights(path, {"a": torch.ones(3)}, {"version": 2})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_card_is_plain_json_in_the_header(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.zeros(3)}, CARD)
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert json.loads(header["__metadata__"]["card"]) == CARD
