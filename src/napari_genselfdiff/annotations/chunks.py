"""Sparse zarr arrays on disk, chunk by chunk, with an index of what exists and a small cache in memory."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from napari_genselfdiff.annotations.codes import Codes
from napari_genselfdiff.annotations.pyramid import within
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.files import make_folder, not_written, sync_directory, sync_tree
from napari_genselfdiff.geometry import Region

CHUNK = 512
_CACHED = 128  # decoded chunks kept: 32 MiB
_DEFERRED = 512  # decoded chunks that may wait for a flush: 128 MiB


class Key(NamedTuple):
    """One chunk."""

    array: str
    row: int
    column: int

    @property
    def box(self) -> Region:
        """Its pixels, in those of its array."""
        return Region(self.row * CHUNK, self.column * CHUNK, CHUNK, CHUNK)


def keys_within(array: str, box: Region) -> Iterator[Key]:
    """All chunks that a box touches, whether they exist or not."""
    for row in range(box.y // CHUNK, (box.bottom - 1) // CHUNK + 1):
        for column in range(box.x // CHUNK, (box.right - 1) // CHUNK + 1):
            yield Key(array, row, column)


class ChunkedArrays:
    """Arrays of uint8 in a zarr group; a chunk that does not exist is all zero.

    Parameters
    ----------
    root : Path
        Folder of the group.
    shapes : dict of str to tuple of int
        Path of every array in the group and its shape.
    read_only : bool
        Another process may be writing: nothing is remembered, every question is asked of the disk.

    Notes
    -----
    Zarr writes a chunk into a temporary file and renames it, so that a reader (and a crash) sees the old or
    the new one. `put` with ``deferred`` keeps a chunk in memory until `flush`: zarr needs about 4 ms a chunk,
    and a stroke changes one chunk of every coarser layer. Safe to use from several threads.
    """

    def __init__(self, root: Path, shapes: dict[str, tuple[int, int]], *, read_only: bool) -> None:
        self._root = root
        self._shapes = shapes
        self._read_only = read_only
        self._arrays: dict[str, Any] = {}
        self._lock = threading.RLock()
        self._cache: OrderedDict[Key, Codes] = OrderedDict()
        self._deferred: dict[Key, Codes] = {}
        self._emptied: set[Key] = set()  # their files go with the next flush
        self._unsynced: set[Path] = set()
        self._empty = np.zeros((CHUNK, CHUNK), np.uint8)
        self._empty.flags.writeable = False
        self._index = {} if read_only else {array: self._listed(array) for array in shapes}

    @staticmethod
    def create(root: Path, shapes: dict[str, tuple[int, int]], attributes: dict[str, Any]) -> None:
        """Make the empty arrays of a new group, which appears whole or not at all."""
        import shutil
        import tempfile

        import zarr
        from zarr.codecs import ZstdCodec

        try:
            make_folder(root.parent)
            temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
            try:
                group = zarr.create_group(temporary, attributes=attributes)
                for array, shape in shapes.items():
                    group.create_array(
                        array,
                        shape=shape,
                        chunks=(CHUNK, CHUNK),
                        dtype="uint8",
                        fill_value=0,
                        compressors=ZstdCodec(level=1, checksum=True),
                    )
                temporary.chmod(0o755)
                sync_tree(temporary)
                temporary.rename(root)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            sync_directory(root.parent)
        except OSError as error:
            raise not_written("the annotations", root, error) from error

    def keys(self, array: str) -> set[Key]:
        """Chunks of an array that exist."""
        with self._lock:
            return self._listed(array) if self._read_only else set(self._index[array])

    def existing(self, array: str, box: Region) -> list[Key]:
        """Chunks that exist and that a box (in the array's pixels) touches."""
        clipped = box.clipped(*self._shapes[array])
        if clipped is None:
            return []
        with self._lock:
            index = self._listed(array) if self._read_only else self._index[array]
            wanted = (clipped.height // CHUNK + 2) * (clipped.width // CHUNK + 2)
            if wanted <= len(index):
                return [key for key in keys_within(array, clipped) if key in index]
            return [key for key in index if key.box.intersection(clipped) is not None]

    def get(self, key: Key) -> Codes:
        """Return a whole chunk, not to be written to; zero beyond the array's edge.

        Raises
        ------
        UserError
            If the chunk's file is damaged.
        """
        with self._lock:
            if not self._read_only:
                if key not in self._index[key.array]:
                    return self._empty
                known = self._deferred.get(key)
                if known is None:
                    known = self._cache.get(key)
                if known is not None:
                    if key in self._cache:
                        self._cache.move_to_end(key)
                    return known
            chunk = self._load(key)
            if not self._read_only:
                self._remember(key, chunk)
            return chunk

    def put(self, key: Key, chunk: Codes, *, deferred: bool = False) -> None:
        """Replace a whole chunk.

        Parameters
        ----------
        key : Key
        chunk : ndarray of uint8, shape (512, 512)
            The caller must not change it afterwards.
        deferred : bool
            Leave it in memory until the next `flush`.

        Raises
        ------
        UserError
            If it cannot be written; the chunk is then as it was.
        """
        chunk.flags.writeable = False
        with self._lock:
            if deferred and not chunk.any():
                if key in self._index[key.array]:
                    self._emptied.add(key)
                self._deferred.pop(key, None)
                self._cache.pop(key, None)
            elif deferred:
                self._deferred[key] = chunk
                if len(self._deferred) > _DEFERRED:
                    self._write_deferred(next(iter(self._deferred)))
            else:
                self._save(key, chunk)
                self._deferred.pop(key, None)
                self._remember(key, chunk)
            (self._index[key.array].add if chunk.any() else self._index[key.array].discard)(key)

    def read(self, array: str, box: Region) -> Codes:
        """Pixels of an array; zero where it has none."""
        out = np.zeros((box.height, box.width), np.uint8)
        for key in self.existing(array, box):
            part = key.box.intersection(box)
            if part is not None:
                out[within(part, box)] = self.get(key)[within(part, key.box)]
        return out

    def forget(self, key: Key) -> None:
        """Remove a chunk, damaged or not."""
        with self._lock:
            self._path(key).unlink(missing_ok=True)
            self._unsynced.add(self._path(key))
            self._index[key.array].discard(key)
            self._cache.pop(key, None)
            self._deferred.pop(key, None)
            self._emptied.discard(key)

    def flush(self) -> None:
        """Write the chunks that wait in memory."""
        with self._lock:
            waiting, emptied = list(self._deferred), list(self._emptied)
        for key in waiting:  # the lock is given back between chunks: a stroke may come in between
            with self._lock:
                self._write_deferred(key)
        for key in emptied:
            with self._lock:
                if key in self._emptied and key not in self._index[key.array]:
                    self._save(key, self._empty)
                self._emptied.discard(key)

    def sync(self) -> None:
        """Make everything that was written durable (fsync of files and folders)."""
        with self._lock:
            paths, self._unsynced = self._unsynced, set()
        try:
            folders: set[Path] = set()
            for path in paths:
                # Also "c" and the array's folder, which zarr makes with the first chunk.
                folders.update(path.parents[:3])
                try:
                    with path.open("rb+") as file:
                        os.fsync(file.fileno())
                except FileNotFoundError:  # an empty chunk: it was deleted, which the folder remembers
                    continue
            for folder in folders:
                sync_directory(folder)
        except OSError as error:
            with self._lock:
                self._unsynced |= paths
            raise not_written("the annotations", self._root, error) from error

    def modified_since(self, time_ns: int) -> set[Key]:
        """Chunks whose files were written at or after a time (nanoseconds since 1970)."""
        return {
            key
            for array in self._shapes
            for key in self._listed(array)
            if self._path(key).stat().st_mtime_ns >= time_ns
        }

    def sweep(self) -> None:
        """Remove the temporary files of writes that a crash cut off."""
        for array in self._shapes:
            for path in (self._root / array / "c").glob("*/*.partial"):
                path.unlink(missing_ok=True)

    def _path(self, key: Key) -> Path:
        return self._root / key.array / "c" / str(key.row) / str(key.column)

    def _listed(self, array: str) -> set[Key]:
        keys: set[Key] = set()
        folder = self._root / array / "c"
        if not folder.is_dir():
            return keys
        for row in os.scandir(folder):
            if row.name.isdecimal():
                names = (entry.name for entry in os.scandir(row.path))
                keys.update(Key(array, int(row.name), int(name)) for name in names if name.isdecimal())
        return keys

    def _array(self, name: str) -> Any:
        import zarr

        if name not in self._arrays:
            # The user's own zarr configuration must not make it write empty chunks.
            with zarr.config.set({"array.write_empty_chunks": False}):
                self._arrays[name] = zarr.open_array(
                    self._root / name, mode="r" if self._read_only else "r+", zarr_format=3
                )
        return self._arrays[name]

    def _load(self, key: Key) -> Codes:
        chunk = np.zeros((CHUNK, CHUNK), np.uint8)
        part = key.box.clipped(*self._shapes[key.array])
        if part is None or not (self._root / key.array).is_dir():
            return chunk
        try:
            pixels = self._array(key.array)[part.y : part.bottom, part.x : part.right]
        except (OSError, RuntimeError, ValueError, TypeError) as error:  # codecs agree on no exception
            raise UserError(
                f"a piece of the stored annotations is damaged ({error})",
                self._path(key),
                f"close the session, delete the folder {self._root.name!r} and open the session again:"
                " it is rebuilt from the journal",
            ) from error
        chunk[: part.height, : part.width] = pixels
        chunk.flags.writeable = False
        return chunk

    def _save(self, key: Key, chunk: Codes) -> None:
        part = key.box.clipped(*self._shapes[key.array])
        if part is None:
            return
        try:
            self._unsynced.add(self._path(key))
            if not chunk.any():
                self._path(key).unlink(missing_ok=True)
                return
            self._array(key.array)[part.y : part.bottom, part.x : part.right] = chunk[
                : part.height, : part.width
            ]
        except OSError as error:
            raise not_written("the annotations", self._root, error) from error

    def _write_deferred(self, key: Key) -> None:
        chunk = self._deferred.get(key)
        if chunk is not None:
            self._save(key, chunk)
            del self._deferred[key]
            self._remember(key, chunk)

    def _remember(self, key: Key, chunk: Codes) -> None:
        self._cache[key] = chunk
        self._cache.move_to_end(key)
        if len(self._cache) > _CACHED:
            self._cache.popitem(last=False)
