"""Which layers of the viewer the plugin works on, and which are the user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Image

if TYPE_CHECKING:
    from napari.layers import Layer

OWN = {"genselfdiff_own": True}
"""Metadata of the layers that the plugin adds over a slide."""


def is_ours(layer: Layer) -> bool:
    """Whether the plugin added a layer, or it is an RGB image: it may be chosen as the slide."""
    return OWN.items() <= layer.metadata.items() or (isinstance(layer, Image) and layer.rgb)
