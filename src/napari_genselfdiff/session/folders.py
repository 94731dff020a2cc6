"""Where sessions lie."""

from __future__ import annotations

from pathlib import Path

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.models.library import user_folder
from napari_genselfdiff.session.state import FILE_NAME, read_state
from napari_genselfdiff.slides import Slide
from napari_genselfdiff.slides.fingerprint import slide_fingerprint


def default_folder(slide: Slide) -> Path:
    """Where a slide's session lies unless the user says otherwise: the one that knows it, or a new one."""
    fingerprint = slide_fingerprint(slide)
    return find_session(fingerprint) or sessions_folder() / own_folder(slide.name, fingerprint)


def sessions_folder() -> Path:
    """Folder of all sessions that were made without naming one."""
    return user_folder().parent / "sessions"


def find_session(fingerprint: str) -> Path | None:
    """The session in the user's folder that was saved last of those that hold a slide."""
    files = sorted(sessions_folder().glob(f"*/{FILE_NAME}"), key=lambda file: -file.stat().st_mtime)
    for file in files:
        try:
            if read_state(file.parent).slide(fingerprint) is not None:
                return file.parent
        except UserError:
            continue  # a damaged one is named when it is opened
    return None


def own_folder(name: str, fingerprint: str) -> str:
    """A folder name for a slide, which people recognise and no two slides share."""
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    return f"{safe}-{fingerprint[:12]}"
