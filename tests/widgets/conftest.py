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

from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.segmentation.network import SegmenterSpec, build_segmenter, save_segmenter

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
    widget.shut()
