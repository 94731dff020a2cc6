"""Open napari with the dock."""

from __future__ import annotations

import os
import sys

from napari_genselfdiff.errors import UserError

PLUGIN = "napari-genselfdiff"
DOCK = "GenSelfDiff"


def open_window() -> None:
    """Open napari with the dock; returns when the window is closed.

    Raises
    ------
    UserError
        If there is no display or no Qt binding.
    """
    named = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in named):
        raise UserError("there is no display to open a window on", None, "use a verb, see --help")
    try:
        import napari

        viewer = napari.Viewer()
    except ImportError as error:
        raise UserError(
            f"napari could not open its window ({error})", None, 'pip install "napari-genselfdiff[all]"'
        ) from error
    viewer.window.add_plugin_dock_widget(PLUGIN, DOCK)
    napari.run()
