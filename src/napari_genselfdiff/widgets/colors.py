"""Colours of the classes, which colour-blind people can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.utils.colormaps import DirectLabelColormap

# Found by a search over the RGB cube for the largest least difference (CIEDE2000) between any two as people
# with normal vision, protanopia, deuteranopia and tritanopia see them (Machado et al. 2009): 19 among the
# first 8, 12 among the first 12, 10 among all; and 12 to the colours of hematoxylin and eosin.
# tests/widgets/test_colors.py measures it.
PALETTE = (
    "#E1FA4B",
    "#96FAC8",
    "#E16400",
    "#196464",
    "#C8AFFA",
    "#963219",
    "#AF32FA",
    "#7D967D",
    "#323232",
    "#4BC87D",
    "#640000",
    "#64644B",
    "#4B004B",
    "#AFC800",
    "#AF7DE1",
    "#7D7D7D",
)


PAINTED_BACKGROUND = 255
"""Label of background that a person painted, where that is shown."""
BACKGROUND_COLOR = "#FFFFFF"


def class_color(label: int, colors: Sequence[str] = ()) -> str:
    """Colour of a class (1 to 16), as ``#RRGGBB``.

    Parameters
    ----------
    label : int
    colors : sequence of str
        What the user chose for classes 1, 2 and so on; empty where nothing was chosen.
    """
    own = colors[label - 1] if 0 < label <= len(colors) else ""
    return own or PALETTE[(label - 1) % len(PALETTE)]


def label_colormap(classes: int, colors: Sequence[str] = ()) -> DirectLabelColormap:
    """Colormap of a labels layer: the background is transparent.

    Parameters
    ----------
    classes : int
        How many there are, the background counted.
    colors : sequence of str
        See `class_color`.
    """
    from napari.utils.colormaps import DirectLabelColormap

    table: dict[int | None, str] = {label: class_color(label, colors) for label in range(1, classes)}
    return DirectLabelColormap(
        color_dict=table | {0: "transparent", None: "transparent", PAINTED_BACKGROUND: BACKGROUND_COLOR}
    )
