"""A slide's layer is drawn again when its tiles have come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
import pytest
import tifffile

from napari_genselfdiff.contributions import as_layer
from napari_genselfdiff.slides import open_slide
from napari_genselfdiff.slides.cache import TILES

pytestmark = pytest.mark.gui


@pytest.fixture
def file(tmp_path: Path, tissue: np.ndarray) -> Path:
    """A tiled TIFF of 4,000 x 4,000 pixels with one coarser level."""
    whole = np.tile(tissue, (7, 5, 1))[:4000, :4000]
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(whole, tile=(256, 256), photometric="rgb", subifds=1)
        writer.write(whole[::4, ::4], tile=(256, 256), photometric="rgb", subfiletype=1)
    return path


def test_a_window_shows_in_the_end_what_an_array_in_memory_shows(
    make_napari_viewer: Callable[..., Any], wait_for: Callable[..., None], file: Path
) -> None:
    viewer = make_napari_viewer(show=True)
    levels, options, _ = as_layer(open_slide(file))
    layer = viewer.add_image(levels, **options)
    view = levels[0].slide

    def look(place: tuple[float, float], zoom: float) -> np.ndarray:
        viewer.scene.camera.zoom = zoom
        viewer.scene.camera.center = place
        viewer.screenshot(canvas_only=True, flash=False)  # draws
        wait_for(lambda: view.is_idle() and view.is_sharp() and view.is_shown())
        picture = np.asarray(viewer.screenshot(canvas_only=True, flash=False))
        y, x = picture.shape[0] // 2, picture.shape[1] // 2  # panels may push the canvas's borders
        return picture[y - 150 : y + 150, x - 200 : x + 200]

    places = [((2000.0, 2000.0), 1.0), ((3300.0, 900.0), 1.5), ((1000.0, 1000.0), 0.5)]
    shown = [look(*place) for place in places]
    truth = [reader.read(0, 0, *reader.size) for reader in view.readers]
    viewer.layers.remove(layer)
    viewer.add_image(truth, rgb=True, multiscale=True)
    for place, before in zip(places, shown, strict=True):
        after = look(*place)
        assert np.abs(before.astype(int) - after).mean() < 1
        assert before.std() > 10


def test_a_slide_is_drawn_again_in_a_window_that_is_not_in_front(
    make_napari_viewer: Callable[..., Any], wait_for: Callable[..., None], file: Path
) -> None:
    viewer = make_napari_viewer(show=True)
    levels, options, _ = as_layer(open_slide(file))
    layer = viewer.add_image(levels, **options)
    view = levels[0].slide
    wait_for(view.is_idle)
    front = make_napari_viewer(show=True)
    assert napari.current_viewer() is front
    drawn: list[Any] = []
    layer.events.data.connect(drawn.append)
    view.overview_loaded.emit()
    wait_for(lambda: bool(drawn))


def test_the_cache_is_as_large_as_preferences_say(
    make_napari_viewer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    from napari.settings import get_plugin_settings

    monkeypatch.setattr(TILES, "_max_bytes", TILES.max_bytes)
    make_napari_viewer(show=False)
    as_layer(open_slide(file))
    settings = get_plugin_settings("napari-genselfdiff").slides
    assert TILES.max_bytes == settings.cache_megabytes * 2**20
    before = settings.cache_megabytes
    try:
        settings.cache_megabytes = 100
        assert TILES.max_bytes == 100 * 2**20
    finally:
        settings.cache_megabytes = before


def test_damage_is_said(
    make_napari_viewer: Callable[..., Any], wait_for: Callable[..., None], file: Path
) -> None:
    from napari.utils.notifications import notification_manager

    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages[0]
        offsets, counts = page.dataoffsets, page.databytecounts
    viewer = make_napari_viewer(show=True)
    levels, options, _ = as_layer(open_slide(file))
    with file.open("r+b") as stream:  # the end is lost
        stream.truncate(offsets[len(offsets) // 2] + counts[0] // 2)
    viewer.add_image(levels, **options)
    viewer.scene.camera.zoom = 1.0
    viewer.scene.camera.center = (3500.0, 3500.0)
    notification_manager.records.clear()
    wait_for(lambda: any("could not be read" in str(r.message) for r in notification_manager.records))
