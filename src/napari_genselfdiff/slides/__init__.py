"""A slide file becomes a :class:`Slide`: a lazy pyramid, micrometres per pixel, a name."""

from napari_genselfdiff.slides.arrays import slide_from_arrays
from napari_genselfdiff.slides.registry import open_slide, register_reader
from napari_genselfdiff.slides.slide import Slide

__all__ = ["Slide", "open_slide", "register_reader", "slide_from_arrays"]
