"""Fixtures of tests with real windows."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.models.weights import save_weights
from napari_genselfdiff.segmentation.network import SegmenterSpec, build_segmenter, save_segmenter

Wait = Callable[..., None]
TINY = replace(COMPACT, name="tiny", widths=(8, 16), full_width=8)


@pytest.fixture(autouse=True)
def imports_are_no_garbage() -> Iterator[None]:
    """napari's fixture collects garbage seven times around a viewer, and most of what it looks through are
    modules: what is left after the first window is left out from then on."""
    yield
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()


@pytest.fixture
def library_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user folder of its own, in which a tiny random model is called nuclei."""
    home = tmp_path / "home"
    monkeypatch.setenv("GENSELFDIFF_HOME", str(home))
    spec = SegmenterSpec(TINY, ("background", "nucleus"), mpp=0.5, instances=True)
    save_segmenter(build_segmenter(spec, start=None, seed=1), home / "models" / "nuclei.safetensors")
    return home


@pytest.fixture
def tissue() -> np.ndarray[Any, Any]:
    """An RGB image with dark discs on pink, 600 x 800."""
    rows, columns = np.mgrid[:600, :800]
    discs = (rows % 40 - 20) ** 2 + (columns % 40 - 20) ** 2 < 80
    image = np.full((600, 800, 3), (235, 190, 215), np.uint8)
    image[discs] = (90, 60, 140)
    return image


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """Let the event loop run until a condition holds."""
    from napari_genselfdiff.widgets.demo import wait_for as wait

    return partial(wait, seconds=120)


@pytest.fixture
def dock(make_napari_viewer: Callable[..., Any], library_home: Path, tmp_path: Path) -> Iterator[Any]:
    """A dock in a shown window, with a session folder of its own."""
    from napari_genselfdiff.widgets.dock import GenSelfDiffDock

    viewer = make_napari_viewer(show=True)
    widget = GenSelfDiffDock(viewer, tmp_path / "session")
    viewer.window.add_dock_widget(widget, name="GenSelfDiff")
    yield widget
    widget.end()


@pytest.fixture
def files(tmp_path: Path, tissue: Any) -> list[Path]:
    """Two image files that differ."""
    paths = []
    for number in range(2):
        path = tmp_path / f"slide-{number}.png"
        Image.fromarray(np.roll(tissue, 10 * number, axis=0)).save(path)
        paths.append(path)
    return paths


@pytest.fixture
def project(dock: Any, files: list[Path]) -> Any:
    """A dock with a project of two slides; the second is looked at."""
    for path in files:
        dock.open_slide(path)
        if dock.session.slide.mpp is None:
            dock.session.set_mpp(0.5)
    return dock


def paint(dock: Any, label: int, top: int, wait_for: Wait) -> None:
    """A square in the middle of the view, and wait until it is stored: its record comes before its pixels."""
    window, stored = dock.editing, []
    window.committed.connect(lambda: stored.append(True))
    y, x = (side // 2 for side in window.layer.data.shape)
    inside = np.zeros(window.layer.data.shape, bool)
    inside[y + top : y + top + 20, x : x + 20] = True
    window.layer.data_setitem(np.nonzero(inside), label or window.background)
    window.commit()
    wait_for(lambda: bool(stored))


@pytest.fixture
def small_pretext(library_home: Path) -> None:
    """A tiny random network that is called pretext."""
    network = UNet(TINY)
    card = {"kind": "pretext", "config": TINY.to_dict(), "name": "pretext"}
    save_weights(library_home / "models" / "pretext.safetensors", network.state_dict(), card)
