"""Tiny models and tiny data sets, and the command line in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from napari_genselfdiff import compute
from napari_genselfdiff.cli import main
from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.models.weights import save_weights
from napari_genselfdiff.segmentation.network import Segmenter, SegmenterSpec, build_segmenter, save_segmenter

TINY = replace(COMPACT, name="tiny", widths=(8, 16), full_width=8)


class Said(NamedTuple):
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command in this process."""

    def run(*arguments: Any) -> Said:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return Said(status, *capsys.readouterr())

    return run


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny networks on a busy machine wait for their threads rather than for their arithmetic."""
    monkeypatch.setattr(compute, "available_cores", lambda: 1)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library with tiny random models: nuclei (0.5 um/px, objects), plain (3 classes), and a pretext."""
    home = tmp_path / "home"
    monkeypatch.setenv("GENSELFDIFF_HOME", str(home))
    folder = home / "models"
    nuclei = SegmenterSpec(TINY, ("background", "nucleus"), mpp=0.5, instances=True)
    save_segmenter(_undecided(build_segmenter(nuclei, start=None, seed=1)), folder / "nuclei.safetensors")
    plain = SegmenterSpec(TINY, ("background", "gland", "lumen"), mpp=None, downsample=2.0)
    save_segmenter(build_segmenter(plain, start=None, seed=2), folder / "plain.safetensors")
    card = {"kind": "pretext", "config": TINY.to_dict()}
    save_weights(folder / "pretext.safetensors", UNet(TINY).state_dict(), card)
    return folder


def _undecided(segmenter: Segmenter) -> Segmenter:
    """Let a random network find nuclei in about half of a picture."""
    picture = np.random.default_rng(0).integers(90, 250, (1, 16, 16, 3), dtype=np.uint8)
    picture = picture.repeat(8, axis=1).repeat(8, axis=2)
    with torch.no_grad():
        logits, _ = segmenter(to_unit_range(picture))
        weight, bias = segmenter.unet.output.parameters()
        bias[0] += (logits[0, 1] - logits[0, 0]).median()
        weight.mul_(20)
        bias.mul_(20)
    return segmenter


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """Six drawn tiles of 96 x 80 pixels with dark discs.

    ``images``; ``masks`` (classes 0 and 1, a corner not labelled); ``ids`` (16 bits); ``binary`` (1 bit).
    """
    folder = tmp_path / "tiles"
    rows, columns = np.mgrid[:96, :80]
    rng = np.random.default_rng(3)
    for name in ("images", "masks", "ids", "binary"):
        (folder / name).mkdir(parents=True)
    for index in range(6):
        shift = int(rng.integers(12))
        discs = ((rows + shift) % 24 - 12) ** 2 + (columns % 24 - 12) ** 2 < 60
        ids = np.where(discs, (rows + shift) // 24 * 4 + columns // 24 + 1, 0).astype(np.uint16)
        rgb = np.where(discs[..., None], (90, 60, 140), (235, 190, 215)) + rng.integers(-9, 10, (96, 80, 3))
        classes = discs.astype(np.uint8)
        classes[:20, :20] = 255
        Image.fromarray(rgb.astype(np.uint8)).save(folder / "images" / f"t{index}.png")
        Image.fromarray(classes).save(folder / "masks" / f"t{index}.png")
        Image.fromarray(ids).save(folder / "ids" / f"t{index}.png")
        Image.fromarray(discs).save(folder / "binary" / f"t{index}.png")
    return folder
