"""Tiny models and tiny data sets, and the command line in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from napari_genselfdiff.cli import main
from napari_genselfdiff.diffusion.config import UNetConfig
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.models.weights import save_weights
from napari_genselfdiff.segmentation.network import SegmenterSpec, build_segmenter, save_segmenter

TINY = UNetConfig(
    name="compact",
    widths=(8, 16),
    stem_stride=2,
    blocks=1,
    norm="pixel",
    attention=False,
    time_scale=True,
    resample_kernel=2,
    full_width=8,
)


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


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library with tiny random models: nuclei (0.5 um/px, objects), plain (3 classes), and a pretext."""
    home = tmp_path / "home"
    monkeypatch.setenv("GENSELFDIFF_HOME", str(home))
    folder = home / "models"
    nuclei = SegmenterSpec(TINY, ("background", "nucleus"), mpp=0.5, instances=True)
    save_segmenter(build_segmenter(nuclei, start=None, seed=1), folder / "nuclei.safetensors")
    plain = SegmenterSpec(TINY, ("background", "gland", "lumen"), mpp=None, downsample=2.0)
    save_segmenter(build_segmenter(plain, start=None, seed=2), folder / "plain.safetensors")
    card = {"kind": "pretext", "config": TINY.to_dict()}
    save_weights(folder / "pretext.safetensors", UNet(TINY).state_dict(), card)
    return folder


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
