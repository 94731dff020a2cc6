"""``napari-genselfdiff`` without arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import napari
import pytest

from napari_genselfdiff.cli import main
from napari_genselfdiff.widgets import launch

pytestmark = [pytest.mark.gui, pytest.mark.xdist_group("gui")]


@pytest.mark.usefixtures("library_home")
def test_napari_opens_with_the_dock(
    make_napari_viewer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = make_napari_viewer()
    monkeypatch.setattr(napari, "Viewer", lambda: viewer)
    started: list[list[str]] = []
    monkeypatch.setattr(napari, "run", lambda: started.append(list(viewer.window.dock_widgets)))
    assert main([]) == 0
    assert [[launch.DOCK in name for name in names] for names in started] == [[True]]
