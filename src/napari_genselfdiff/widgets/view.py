"""What part of a slide is on the screen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_genselfdiff.geometry import Region

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer


def visible_region(viewer: Viewer, layer: Image, shape: tuple[int, int]) -> Region | None:
    """The part of a slide that is on the screen, in level-0 pixels; None when nothing of it is."""
    half = np.array(viewer.canvas.size) / viewer.scene.camera.zoom / 2
    centre = np.array(viewer.scene.camera.center[-2:])
    corners = [layer.world_to_data(centre - half), layer.world_to_data(centre + half)]
    top, left = (math.floor(value) for value in np.min(corners, axis=0)[-2:])
    bottom, right = (math.ceil(value) + 1 for value in np.max(corners, axis=0)[-2:])
    return Region(top, left, bottom - top, right - left).clipped(*shape)


def pixels_per_screen_pixel(viewer: Viewer, layer: Image) -> float:
    """Level-0 pixels across one screen pixel."""
    return float(1 / (viewer.scene.camera.zoom * layer.scale[-1]))


def show_region(viewer: Viewer, layer: Image, region: Region) -> None:
    """Move the camera so that a region fills the view."""
    world_centre = layer.data_to_world(region.centre)
    viewer.scene.camera.center = tuple(world_centre)
    canvas = viewer.canvas.size
    size = np.array([region.height, region.width]) * np.array(layer.scale[-2:])
    viewer.scene.camera.zoom = float(min(canvas[0] / size[0], canvas[1] / size[1]))
