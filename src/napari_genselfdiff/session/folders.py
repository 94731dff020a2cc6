"""Where sessions lie."""

from __future__ import annotations

from pathlib import Path

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.models.library import user_folder
from napari_genselfdiff.session.state import FILE_NAME, read_state
from napari_genselfdiff.slides import Slide
from napari_genselfdiff.slides.fingerprint import slide_fingerprint

_LONGEST = 200


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
    return f"{safe_name(name)}-{fingerprint[:12]}"


def safe_name(name: str) -> str:
    """A name as every file system takes it, with room for what is put behind it."""
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    # File systems count bytes, 255 of them, and a letter may have four.
    return safe.encode()[:_LONGEST].decode(errors="ignore")
