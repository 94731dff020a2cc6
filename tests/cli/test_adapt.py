"""``adapt``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.cli.conftest import TINY

from napari_genselfdiff.diffusion.pretraining import PretrainSettings, load_pretext
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.finetuning import few_labels
from napari_genselfdiff.models.weights import save_weights

Cli = Callable[..., Any]


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    folder = tmp_path / "slides"
    folder.mkdir()
    for seed in range(3):
        small = np.random.default_rng(seed).integers(60, 200, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(small).resize((320, 320), Image.Resampling.BICUBIC).save(folder / f"{seed}.png")
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.safetensors"
    settings = PretrainSettings(
        patch=32, batch=4, learning_rate=3e-3, warmup=3, zoom=(1.6, 3.2), ema=0.9, objective="features"
    )
    torch.manual_seed(0)
    card = {"kind": "pretext", "config": TINY.to_dict(), "settings": asdict(settings)}
    save_weights(path, UNet(TINY).state_dict(), card, half=True)
    return path


def test_a_folder_of_slides_becomes_weights(cli: Cli, slides: Path, base: Path, tmp_path: Path) -> None:
    output = tmp_path / "ours.safetensors"
    said = cli(
        "adapt", slides, "--base", base, "--output", output, "--mpp", 0.5, "--steps", 60, "--device", "cpu"
    )
    assert said.status == 0, said.err
    assert said.out.startswith(f"{output}: 60 steps in")
    assert "kept: denoising error" in said.out
    assert load_pretext(output)[1]["command"].startswith("napari-genselfdiff adapt")


def test_labels_are_the_second_half_of_the_gate(
    cli: Cli, slides: Path, base: Path, tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few_labels, "STEPS", 3)
    output = tmp_path / "ours.safetensors"
    check = ("--check-images", tiles / "images", "--check-labels", tiles / "masks")
    given = ("--base", base, "--output", output, "--mpp", 0.5, "--steps", 60, "--device", "cpu")
    said = cli("adapt", slides, *given, *check)
    assert "after short fine-tunes on few labels" in said.out + said.err
    assert (said.status == 0) == output.exists()


def test_bad_input_is_told_in_one_line(cli: Cli, slides: Path, base: Path, tmp_path: Path) -> None:
    output = tmp_path / "ours.safetensors"
    for wrong, word in (
        (("adapt", slides, "--base", base, "--output", output), "resolution"),
        (("adapt", tmp_path / "none.svs", "--output", output), "no such slide"),
        (("adapt", slides, "--base", base, "--output", base, "--mpp", 0.5), "the base itself"),
        (("adapt", slides, "--base", base, "--output", tmp_path / "a.txt", "--mpp", 0.5), ".safetensors"),
        (("adapt", slides, "--output", output, "--check-images", slides), "--check-labels"),
    ):
        said = cli(*wrong, "--device", "cpu")
        assert said.status == 2
        assert word in said.err
        assert said.err.count("\n") == 1
    assert not output.exists()
