"""Whole files are written atomically."""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.files import atomic_folder, atomic_path, write_text

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with an old version in it."""
    path = tmp_path / "model.json"
    path.write_text("old")
    return path


def test_a_reader_sees_the_old_or_the_new_file(file: Path) -> None:
    with atomic_path(file) as temporary:
        assert temporary.parent == file.parent
        assert temporary.suffix == ".json"
        temporary.write_text("half of the n")
        assert file.read_text() == "old"
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert list(file.parent.iterdir()) == [file]


def test_readers_never_see_a_part(file: Path) -> None:
    versions = {str(number) * 20_000 for number in range(10)} | {"old"}
    seen, finished = set(), threading.Event()

    def read() -> None:
        while not finished.is_set():
            seen.add(file.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(10):
            write_text(file, str(number) * 20_000)
    finally:
        finished.set()
        reader.join()
    assert seen <= versions


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_error_of_the_writer_leaves_the_old_file(file: Path, error: type[BaseException]) -> None:
    def write() -> None:
        with atomic_path(file) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert file.read_text() == "old"
    assert list(file.parent.iterdir()) == [file]


def test_a_full_disk_is_told_and_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"No space left.*model\.json, free some space on the disk"):
        write_text(file, "new")
    assert file.read_text() == "old"
    assert list(file.parent.iterdir()) == [file]


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    write_text(path, "µ")
    assert path.read_bytes() == "µ".encode()


@pytest.mark.parametrize("target", ["file/in-a-file.txt", "folder"])
def test_places_that_cannot_be_written_are_told(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="the file could not be written"):
        write_text(tmp_path / target, "new")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


@POSIX
def test_a_folder_without_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):  # the superuser may write anywhere
        monkeypatch.setattr("tempfile.mkstemp", _forbidden)
    with pytest.raises(UserError, match=r"Permission denied.*mine\.txt"):
        write_text(folder / "mine.txt", "new")
    folder.chmod(0o700)
    assert not list(folder.iterdir())


def _forbidden(**options: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@POSIX
def test_others_may_read_what_the_user_lets_them(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    write_text(tmp_path / "atomic", "new")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic")]
    assert modes[0] == modes[1]


@POSIX
def test_the_mask_of_the_process_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading it means setting it, for all threads at once."""
    asked: list[int] = []
    monkeypatch.setattr(os, "umask", asked.append)
    write_text(tmp_path / "a", "new")
    assert not asked


def test_a_folder_is_there_with_all_its_files_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "set"

    def fail_half_way() -> None:
        with atomic_folder(target) as temporary:
            write_text(temporary / "a.txt", "a")
            assert not target.exists()
            raise ValueError("half of the work")

    with pytest.raises(ValueError, match="half"):
        fail_half_way()
    assert list(target.parent.iterdir()) == []
    target.mkdir()  # an empty one may be there
    with atomic_folder(target) as temporary:
        write_text(temporary / "more" / "a.txt", "a")
    assert (target / "more" / "a.txt").read_text() == "a"
    assert list(target.parent.iterdir()) == [target]


def test_a_folder_with_files_and_a_file_stay_as_they_are(file: Path) -> None:
    for path in (file, file.parent):
        with pytest.raises(UserError, match=path.name), atomic_folder(path):
            pytest.fail("there is no folder to write into")
    assert file.read_text() == "old"


@POSIX
def test_a_folder_follows_the_umask(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with atomic_folder(tmp_path / "set"):
        pass
    assert (tmp_path / "set").stat().st_mode == (tmp_path / "plain").stat().st_mode
