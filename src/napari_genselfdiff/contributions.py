"""What npe2 calls: each a few lines over the rooms that do the work."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_genselfdiff.errors import UserError

if TYPE_CHECKING:
    from napari_genselfdiff.slides.slide import Slide

LayerData = tuple[Any, dict[str, Any], str]
SLIDE_KEY = "genselfdiff_slide"
"""Where a layer's metadata keeps its ``Slide``."""


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]]:
    """Return the function that reads a slide file, or several, one layer each."""
    return read_slides


def read_slides(path: str | Sequence[str]) -> list[LayerData]:
    """Open slide files, or addresses, as multiscale RGB layers."""
    paths = [path] if isinstance(path, str) else path
    return [as_layer(open_as_preferred(one)) for one in paths]


def open_as_preferred(path: str | Path) -> Slide:
    """Open a slide, in the colours that Preferences ask for.

    A profile that cannot be used is no reason not to see the slide: it is warned of.
    """
    from napari_genselfdiff.slides import open_slide

    slide, wishes = open_slide(path), preferences()
    if slide.icc_profile is None or wishes is None or not wishes.use_colour_profile:
        return slide
    try:
        return slide.with_icc()
    except UserError as error:
        warnings.warn(f"{error.what}, {error.which}, its colours are shown as they are", stacklevel=2)
        return slide


def preferences(section: str = "slides") -> Any | None:
    """A section of Preferences; None where this is not installed as a plugin of napari."""
    try:
        from napari.settings import get_plugin_settings

        return getattr(get_plugin_settings("napari-genselfdiff"), section)
    except (ImportError, KeyError, AttributeError):
        return None


def as_layer(slide: Slide) -> LayerData:
    """Return a slide as an image layer, in micrometres when its resolution is known.

    In a window its levels answer at once and sharpen; without one they are lazy arrays.
    """
    options: dict[str, Any] = {
        "name": slide.name,
        "rgb": True,
        "multiscale": True,
        "metadata": {SLIDE_KEY: slide},
    }
    if slide.mpp is not None:
        options |= {"scale": (slide.mpp, slide.mpp), "units": ("um", "um")}
    return _levels(slide), options, "image"


def _levels(slide: Slide) -> list[Any]:
    try:
        from qtpy.QtWidgets import QApplication
    except ImportError:
        return list(slide.levels)
    in_window = QApplication.instance() is not None
    if not in_window or threading.current_thread() is not threading.main_thread():
        return list(slide.levels)
    from napari_genselfdiff.widgets.sharpening import progressive_levels

    return progressive_levels(slide)


def cmu_small_region() -> list[LayerData]:
    """Sample data: an H&E slide, fetched once, after asking."""
    from napari_genselfdiff.samples import fetch_cmu_slide

    return read_slides(str(fetch_cmu_slide(confirm=_ask)))


def ihc_pyramid() -> list[LayerData]:
    """Sample data: scikit-image's immunohistochemistry image."""
    from napari_genselfdiff.samples import ihc_slide

    return [as_layer(ihc_slide())]


def _ask(question: str) -> bool:
    """Ask in a window; where there is none, whoever called has decided."""
    try:
        from qtpy.QtWidgets import QApplication, QMessageBox
    except ImportError:
        return True
    if QApplication.instance() is None:
        return True
    answer = QMessageBox.question(QApplication.activeWindow(), "GenSelfDiff", question)
    return bool(answer == QMessageBox.StandardButton.Yes)
