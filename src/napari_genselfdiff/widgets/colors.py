"""Colours of the classes, which colour-blind people can tell apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.utils.colormaps import DirectLabelColormap

# Okabe and Ito 2008, ordered by contrast against pink and purple tissue; then Tol's "light" scheme.
PALETTE = (
    "#F0E442",
    "#56B4E9",
    "#009E73",
    "#D55E00",
    "#E69F00",
    "#0072B2",
    "#CC79A7",
    "#FFFFFF",
    "#77AADD",
    "#99DDFF",
    "#44BB99",
    "#BBCC33",
    "#AAAA00",
    "#EEDD88",
    "#EE8866",
    "#FFAABB",
)


def class_color(label: int) -> str:
    """Colour of a class (1 to 16), as ``#RRGGBB``."""
    return PALETTE[(label - 1) % len(PALETTE)]


def label_colormap(classes: int) -> DirectLabelColormap:
    """Colormap of a labels layer: the background is transparent."""
    from napari.utils.colormaps import DirectLabelColormap

    colors: dict[int | None, str] = {label: class_color(label) for label in range(1, classes)}
    return DirectLabelColormap(color_dict=colors | {0: "transparent", None: "transparent"})
