"""What the disk may refuse, while drawing and at the start: it is told, and what was drawn before is kept."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_genselfdiff.annotations import Annotations, encode
from napari_genselfdiff.annotations.journal import JOURNAL_NAME
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.geometry import Region

SHAPE = (3000, 3000)


Refusing = Callable[[Path, int], AbstractContextManager[None]]


def open_session(folder: Path) -> Annotations:
    return Annotations.open(folder, shape=SHAPE, slide_id="slide")


def paint(session: Annotations, y: int, x: int, number: int, *, side: int = 8) -> None:
    codes = np.full((side, side), encode(number), np.uint8)
    session.stroke(0, y, x, codes, np.ones((side, side), bool))


def drawn(session: Annotations, y: int, x: int) -> int:
    return int(session.read(0, Region(y, x, 1, 1))[0, 0])


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system itself refuses to let files of this process grow further."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of processes")
def test_a_disk_without_space_is_told_and_drawing_goes_on_when_there_is_some(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        paint(session, 0, 0, 1)
        session.checkpoint()
        size = (tmp_path / JOURNAL_NAME).stat().st_size
        with largest_file(size + 100):
            for _ in range(2):
                with pytest.raises(UserError, match=r"journal\.ndjson, free some space") as told:
                    paint(session, 0, 0, 2)
                assert "could not be written" in str(told.value)
        assert (tmp_path / JOURNAL_NAME).stat().st_size == size
        assert drawn(session, 0, 0) == encode(1)
        paint(session, 0, 0, 3)
        session.undo()
        assert drawn(session, 0, 0) == encode(1)
        assert session.verify().records == 3
    with open_session(tmp_path) as session:
        assert session.recovered is None
        assert drawn(session, 0, 0) == encode(1)


def test_a_part_of_a_record_that_cannot_be_removed_at_once_is_removed_before_the_next(
    tmp_path: Path,
) -> None:
    with open_session(tmp_path) as session:
        paint(session, 0, 0, 1)
        real = session._journal._file
        assert real is not None

        class Failing:
            """A disk that takes a part, and then nothing at all."""

            def write(self, data: Any) -> int:
                if len(data) < 50:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                return real.write(data[:-20])

            def truncate(self, size: int) -> int:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        session._journal._file = Failing()  # type: ignore[assignment]
        for _ in range(2):
            with pytest.raises(UserError, match="Input/output error"):
                paint(session, 0, 0, 2)
        session._journal._file = real
        paint(session, 0, 0, 3)
        assert session.verify().records == 2


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EROFS, "write-protected"), (errno.EACCES, "write-protected"), (errno.ENOSPC, "free some space")],
)
def test_a_folder_that_takes_no_writes_opens_for_looking_and_says_why(
    tmp_path: Path, refusing: Refusing, number: int, words: str
) -> None:
    folder = tmp_path / "session"
    with open_session(folder) as session:
        paint(session, 0, 0, 1)
    with refusing(folder, number), open_session(folder) as session:
        assert session.read_only
        assert os.strerror(number) in str(session.why_read_only)
        assert words in str(session.why_read_only)
        assert drawn(session, 0, 0) == encode(1)
        with pytest.raises(UserError, match=f"looking only.*{words}"):
            paint(session, 0, 0, 2)
    with open_session(folder) as session:
        assert not session.read_only
        assert session.why_read_only is None


def test_a_folder_that_becomes_read_only_while_drawing_keeps_what_was_drawn(
    tmp_path: Path, refusing: Refusing
) -> None:
    folder = tmp_path / "session"
    with open_session(folder) as session:
        paint(session, 0, 0, 1)
        with refusing(folder, errno.EROFS):
            with pytest.raises(UserError, match=r"Read-only file system.*write-protected"):
                paint(session, 0, 0, 2)  # the journal's file is open; the stored pixels cannot be replaced
            assert drawn(session, 0, 0) == encode(1)
        paint(session, 0, 0, 3)
        assert drawn(session, 0, 0) == encode(3)
    with open_session(folder) as session:
        assert drawn(session, 0, 0) == encode(3)
        assert session.verify().records == 2


def test_a_second_window_says_that_there_is_a_first(tmp_path: Path) -> None:
    with open_session(tmp_path), open_session(tmp_path) as second:
        assert "open in another window" in str(second.why_read_only)


def test_a_store_that_cannot_even_be_described_is_rebuilt_from_the_journal(tmp_path: Path) -> None:
    with open_session(tmp_path) as session:
        paint(session, 0, 0, 1)
    (tmp_path / "edits" / "zarr.json").write_bytes(b"")
    with open_session(tmp_path) as session:
        assert "rebuilt from the 1 changes" in str(session.recovered)
        assert drawn(session, 0, 0) == encode(1)
    assert (tmp_path / "edits.damaged-1").is_dir()
