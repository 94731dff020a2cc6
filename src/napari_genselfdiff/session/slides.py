"""The slides of a session, in the order in which they came."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.session.folders import own_folder
from napari_genselfdiff.session.slide import SessionSlide
from napari_genselfdiff.session.state import SessionState, SlideState
from napari_genselfdiff.slides import Slide
from napari_genselfdiff.slides.fingerprint import slide_fingerprint

FOLDER = "slides"


class SessionSlides:
    """All slides of a session. Iterating gives them in the order in which they came.

    Parameters
    ----------
    folder : Path
        Of the session; each slide has its own in ``slides/`` in it.
    state : SessionState
        Changed in place; whoever calls writes it down.
    read_only : bool
        Another window writes into the session.
    author : str
        Written into the journals.
    """

    def __init__(self, folder: Path, state: SessionState, *, read_only: bool, author: str) -> None:
        self._folder, self._state = folder, state
        self._read_only, self._author = read_only, author
        self._all = [self._made(entry) for entry in state.slides]

    def __iter__(self) -> Iterator[SessionSlide]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def corrected(self) -> list[SessionSlide]:
        """Those on which something was drawn or accepted."""
        return [slide for slide in self._all if slide.corrected]

    def find(self, fingerprint: str | None) -> SessionSlide | None:
        """The slide with this fingerprint."""
        return next((slide for slide in self._all if slide.fingerprint == fingerprint), None)

    def add(self, slide: Slide) -> SessionSlide:
        """Add a slide, or say where one of the session lies now.

        Raises
        ------
        UserError
            If its file was changed since it was annotated here.
        """
        fingerprint = slide_fingerprint(slide)
        known = self.find(fingerprint)
        if known is not None:
            known.take(slide)
            return known
        place = str(slide.path or slide.url or "")
        if place and any(entry.path == place for entry in self._state.slides):
            raise UserError(
                "the slide file was changed since it was annotated",
                place,
                "put the old file back, what was drawn is kept; the new one needs another session",
            )
        entry = SlideState(
            slide.name, place or None, fingerprint, f"{FOLDER}/{own_folder(slide.name, fingerprint)}"
        )
        known = self._made(entry, slide)
        self._all.append(known)
        self._state.slides.append(entry)
        return known

    def close(self) -> None:
        """Finish writing.

        Raises
        ------
        UserError
            Of the first slide whose disk did not take it; the others are closed all the same.
        """
        # The last error is the one that is raised, so they are closed from the last slide to the first.
        with ExitStack() as all_of_them:
            for slide in self._all:
                all_of_them.callback(slide.close)

    def _made(self, entry: SlideState, slide: Slide | None = None) -> SessionSlide:
        return SessionSlide(entry, self._folder, slide, read_only=self._read_only, author=self._author)
