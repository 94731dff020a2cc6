"""Whole files and folders are written through one atomic helper each: a temporary one, fsync, rename."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_genselfdiff.errors import UserError


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# Asking for the mask sets it for a moment, for all threads: two that ask at once could leave it at 0.
_UMASK = _umask()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Parameters
    ----------
    path : str or Path
        The file to write; its folder is made when it does not exist.

    Yields
    ------
    Path
        A temporary file in the same folder and with the same suffix, to be written by the caller. It
        replaces ``path`` when the block ends and is removed when the block raises.

    Raises
    ------
    UserError
        If the folder or the file cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        make_folder(path.parent)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_UMASK)
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise not_written("the file", path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Make a folder that is there with all its files or not at all.

    Parameters
    ----------
    path : str or Path
        The folder to make; may exist if it is empty.

    Yields
    ------
    Path
        A temporary folder beside it, to be filled by the caller (with :func:`atomic_path`, which makes each
        file durable). It is renamed when the block ends and removed when the block raises.

    Raises
    ------
    UserError
        If there is a file or a folder that is not empty at the path, or the folder cannot be made.
    """
    path = Path(path)
    check_new_folder(path)
    temporary = None
    try:
        make_folder(path.parent)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        yield temporary
        temporary.chmod(0o777 & ~_UMASK)
        if path.is_dir():
            path.rmdir()  # Windows does not rename over a folder, even an empty one
        sync_tree(temporary, files=False)
        temporary.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        raise not_written("the folder", path, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def check_new_folder(path: Path) -> None:
    """Fail before the work rather than after it when a folder cannot be made.

    Raises
    ------
    UserError
        If there is a file, or a folder that is not empty.
    """
    try:
        empty = not path.exists() or not any(path.iterdir())
    except NotADirectoryError as error:
        raise UserError("the output is a file", path, "name a new folder") from error
    except OSError as error:
        raise UserError(
            f"the output could not be read ({error.strerror})", path, "write elsewhere"
        ) from error
    if not empty:
        raise UserError("the output folder is not empty and is left as it is", path, "name a new folder")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file (UTF-8) atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def make_folder(path: Path) -> None:
    """Make a folder and those that it lies in, durably: a file that is synced needs a way to it.

    Raises
    ------
    OSError
        If it cannot be made, or is a file.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_directory(folder.parent)


def sync_tree(folder: Path, *, files: bool = True) -> None:
    """Make a folder durable with all that lies in it, or with the names of all that lies in it."""
    for where, _, names in os.walk(folder):
        for name in names if files else ():
            with Path(where, name).open("rb+") as file:
                os.fsync(file.fileno())
        sync_directory(Path(where))


def sync_directory(path: Path) -> None:
    """Make a rename in a folder durable, where the system can (Windows cannot open folders)."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def not_written(what: str, path: Path, error: OSError) -> UserError:
    """Say that something could not be written, why, and what helps against that.

    Parameters
    ----------
    what : str
        With its article, such as ``the journal``.
    path : Path
    error : OSError
    """
    return UserError(f"{what} could not be written ({error.strerror or error})", path, _remedy(error))


def is_refusal(error: BaseException) -> bool:
    """Whether an error came about because the disk is full, or what lies there may not be changed."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return isinstance(cause, OSError) and cause.errno in (*_FULL, *_PROTECTED)


_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
_PROTECTED = (errno.EROFS, errno.EACCES, errno.EPERM)


def _remedy(error: OSError) -> str:
    if error.errno in _FULL:
        return "free some space on the disk and try again"
    if error.errno in _PROTECTED:
        return "the folder is write-protected: allow writing, or copy it to where you may write"
    return "check the disk, or choose another folder"
