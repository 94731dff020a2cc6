"""Slides and napari's image layers."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from napari_genselfdiff.contributions import SLIDE_KEY, as_layer
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides import Slide, slide_from_arrays

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.viewer import Viewer


def add_slide(viewer: Viewer, slide: Slide) -> Image:
    """Show a slide as an image layer."""
    levels, options, _ = as_layer(slide)
    return viewer.add_image(levels, **options)


def slide_of_layer(layer: Image) -> Slide:
    """The slide that a layer shows: ours, or an adapter of any RGB image.

    Raises
    ------
    UserError
        If the layer is not an RGB image.
    """
    slide = layer.metadata.get(SLIDE_KEY)
    if isinstance(slide, Slide):
        return slide
    if not layer.rgb or layer.ndim != 2:
        raise UserError("this layer is not a flat RGB image", layer.name, "choose an RGB image layer")
    levels = list(layer.data) if layer.multiscale else [layer.data]
    return slide_from_arrays(levels, name=layer.name, mpp=_mpp(layer))


@lru_cache(maxsize=1)  # the one that is open
def described(slide: Slide) -> tuple[str, str]:
    """What there is to say about a slide, and a warning if the models may be wrong on it."""
    from napari_genselfdiff.slides.stain import looks_like_he

    resolution = f"{slide.mpp:.4g} µm/px" if slide.mpp else "resolution not known"
    info = f"{slide.name}: {slide.shape[1]:,} x {slide.shape[0]:,} px, {resolution}"
    warning = "" if looks_like_he(slide) else "This does not look like H&E: the model may be wrong here."
    return info, warning


def _mpp(layer: Image) -> float | None:
    """Micrometres per pixel, when the layer has a physical unit."""
    pixel = [scale * unit for scale, unit in zip(layer.scale[-2:], layer.units[-2:], strict=True)]
    if not all(side.check("[length]") for side in pixel):
        return None
    return float(np.mean([side.to("micrometer").magnitude for side in pixel]))
