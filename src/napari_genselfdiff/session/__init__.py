"""The state of one annotation session and what can be done in it; psygnal events, no Qt."""

from napari_genselfdiff.session.folders import default_folder, find_session, own_folder
from napari_genselfdiff.session.session import FINE_TUNE_SECONDS, Session
from napari_genselfdiff.session.slide import SessionSlide
from napari_genselfdiff.session.task import STRUCTURES, Task

__all__ = [
    "FINE_TUNE_SECONDS",
    "STRUCTURES",
    "Session",
    "SessionSlide",
    "Task",
    "default_folder",
    "find_session",
    "own_folder",
]
