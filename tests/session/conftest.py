"""A small session on drawn tissue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_genselfdiff.annotations import encode
from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.diffusion.pretraining import PretrainSettings
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.events import Event, Finished
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models.weights import save_weights
from napari_genselfdiff.segmentation.network import SegmenterSpec, build_segmenter, save_segmenter
from napari_genselfdiff.session import Session
from napari_genselfdiff.slides import slide_from_arrays

CPU = Compute(device="cpu", autocast=None, threads=1)
TINY = replace(COMPACT, name="tiny", widths=(8, 16), full_width=8)
SETTINGS = PretrainSettings(
    patch=32, batch=4, learning_rate=3e-3, warmup=3, zoom=(1.6, 3.2), ema=0.9, objective="features"
)


@pytest.fixture
def tissue() -> np.ndarray[Any, Any]:
    """Dark discs on pink, 300 x 400."""
    rows, columns = np.mgrid[:300, :400]
    discs = (rows % 40 - 20) ** 2 + (columns % 40 - 20) ** 2 < 80
    image = np.full((300, 400, 3), (235, 190, 215), np.uint8)
    image[discs] = (90, 60, 140)
    return image


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of its own with a tiny random model."""
    folder = tmp_path / "home"
    monkeypatch.setenv("GENSELFDIFF_HOME", str(folder))
    spec = SegmenterSpec(TINY, ("background", "nucleus"), mpp=0.5)
    save_segmenter(build_segmenter(spec, start=None, seed=3), folder / "models" / "tiny.safetensors")
    return folder


@pytest.fixture
def session(home: Path, tissue: np.ndarray[Any, Any], tmp_path: Path) -> Iterator[Session]:
    """A session on the tissue with the tiny model."""
    made = Session(tmp_path / "session", slide_from_arrays(tissue, name="tissue", mpp=0.5), compute=CPU)
    made.use_model("tiny")
    yield made
    made.close()


def last(events: Iterator[Event]) -> Finished:
    """The last event."""
    *_, end = events
    assert isinstance(end, Finished)
    return end


@pytest.fixture
def pretext(home: Path) -> Path:
    """A tiny random network that is the library's pretext."""
    path = home / "models" / "pretext.safetensors"
    torch.manual_seed(0)
    card = {"kind": "pretext", "config": TINY.to_dict(), "settings": asdict(SETTINGS), "name": "pretext"}
    save_weights(path, UNet(TINY).state_dict(), card, half=True)
    return path


def correct(session: Session, region: Region) -> None:
    """Accept the truth: what is dark is class 1."""
    rgb = session.slide.read(region.y, region.x, region.height, region.width)
    session.annotations.accept(0, region, encode((rgb[..., 0] < 150).astype(np.uint8)))
