"""Records what one process does to the files of a folder: writes with their bytes, names, fsyncs.

The recorder stands in place of the functions of ``os``, and of ``open``, through which Python code (pathlib,
tempfile, shutil, zarr) changes files. What a library in another language writes is seen at the next fsync of
that file. `Recorder.missed` replays the log and compares it with the folder: a write that escaped shows
there. Linux only.
"""

from __future__ import annotations

import builtins
import io
import os
import pickle
import threading
from pathlib import Path
from typing import Any

from powercut import Operation, contents, whole


class Recorder:
    """Records changes under a folder, in this process, between `install` and `uninstall`.

    Parameters
    ----------
    root : Path
        An empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root))
        self.operations: list[Operation] = []
        self.lock = threading.RLock()
        self._nodes: dict[str, int] = {str(self.root): 0}
        self._sizes: dict[int, int] = {}
        self._count = 0
        self._open = builtins.open
        self._functions: dict[str, Any] = {
            "open": self._system_open,
            "fsync": self._fsync,
            "ftruncate": self._ftruncate,
            "rename": self._rename,
            "replace": self._rename,
            "link": self._link,
            "unlink": self._unlink,
            "remove": self._unlink,
            "mkdir": self._mkdir,
            "rmdir": self._rmdir,
        }
        self._system = {name: getattr(os, name) for name in self._functions}

    def install(self) -> None:
        """Begin."""
        for name, function in self._functions.items():
            setattr(os, name, function)
        builtins.open = io.open = self._opened

    def uninstall(self) -> None:
        """End."""
        for name, function in self._system.items():
            setattr(os, name, function)
        builtins.open = io.open = self._open

    def save(self, path: Path) -> None:
        """Write the log into a file."""
        with self.lock:
            operations = list(self.operations)
        with self._open(path, "wb") as file:
            pickle.dump(operations, file)

    def missed(self) -> list[str]:
        """Files that the log gives differently from how they are."""
        logged = contents(whole(self.operations))
        there = {str(p.relative_to(self.root)): p.read_bytes() for p in self.root.rglob("*") if p.is_file()}
        return sorted(name for name in there.keys() | logged.keys() if there.get(name) != logged.get(name))

    def log(self, kind: str, node: int, **values: Any) -> None:
        """Add an operation; the caller holds the lock."""
        made = Operation(kind, node, **values)
        self.operations.append(made)
        if kind == "write":
            self._sizes[node] = max(self._sizes.get(node, 0), made.at + len(made.data))
        elif kind == "truncate":
            self._sizes[node] = made.at

    def node_of(self, path: str, *, is_folder: bool = False) -> int:
        """Number of a path, which is logged when it is new."""
        if path not in self._nodes:
            self._count += 1
            self._nodes[path] = self._count
            folder, name = os.path.split(path)
            self.log("link", self._count, folder=self._nodes[folder], name=name, is_folder=is_folder)
        return self._nodes[path]

    def _inside(self, path: Any, dir_fd: int | None = None) -> str | None:
        """Path of something in the folder; None of anything else."""
        if isinstance(path, int):
            text = os.readlink(f"/proc/self/fd/{path}")
        else:
            base = os.getcwd() if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
            text = os.path.normpath(os.path.join(base, os.fsdecode(path)))
        return text if text == str(self.root) or text.startswith(f"{self.root}/") else None

    def _opened(self, file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **more: Any) -> Any:
        path = None if isinstance(file, int) or not set(mode) & set("wax+") else self._inside(file)
        if path is None:
            return self._open(file, mode, buffering, *rest, **more)
        raw = _RecordedFile(self, path, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffer: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffer if "b" in mode else io.TextIOWrapper(buffer, *rest, **more)

    def _system_open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        where = self._inside(path, dir_fd)
        with self.lock:
            descriptor: int = self._system["open"](path, flags, mode, dir_fd=dir_fd)
            if where and flags & os.O_CREAT:
                node = self.node_of(where)
                if flags & os.O_TRUNC:
                    self.log("truncate", node)
        return descriptor

    def _fsync(self, descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        path = self._inside(number)
        with self.lock:
            node = self._nodes.get(path) if path else None
            known = node is None or os.fstat(number).st_size == self._sizes.get(node, 0)
            if path and node is not None and os.path.isfile(path) and not known:  # by another language
                self.log("truncate", node)
                with self._open(path, "rb") as file:
                    self.log("write", node, data=file.read())
            begun = len(self.operations)
        self._system["fsync"](number)
        if node is not None:
            with self.lock:
                self.log("sync", node, at=begun)

    def _ftruncate(self, descriptor: int, length: int) -> None:
        path = self._inside(descriptor)
        with self.lock:
            self._system["ftruncate"](descriptor, length)
            if path:
                self.log("truncate", self._nodes[path], at=length)

    def _rename(self, source: Any, target: Any, **more: Any) -> None:
        before, after = self._inside(source), self._inside(target)
        with self.lock:
            self._system["rename" if os.name == "nt" else "replace"](source, target, **more)
            if before is None or after is None:
                return
            was = self._nodes[os.path.dirname(before)], os.path.basename(before)
            folder, name = os.path.split(after)
            self.log("rename", self._nodes[before], folder=self._nodes[folder], name=name, was=was)
            for path in [p for p in self._nodes if p == before or p.startswith(f"{before}/")]:
                self._nodes[after + path[len(before) :]] = self._nodes.pop(path)

    def _link(self, source: Any, target: Any, **more: Any) -> None:
        before, after = self._inside(source), self._inside(target)
        with self.lock:
            self._system["link"](source, target, **more)
            if before is not None and after is not None:
                folder, name = os.path.split(after)
                self._nodes[after] = self._nodes[before]
                self.log("link", self._nodes[before], folder=self._nodes[folder], name=name)

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._remove("unlink", path, dir_fd)

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._remove("rmdir", path, dir_fd)

    def _remove(self, function: str, path: Any, dir_fd: int | None) -> None:
        where = self._inside(path, dir_fd)
        with self.lock:
            self._system[function](path, dir_fd=dir_fd)
            if where is not None and where in self._nodes:
                folder, name = os.path.split(where)
                self.log("unlink", self._nodes.pop(where), folder=self._nodes[folder], name=name)

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        where = self._inside(path, dir_fd)
        with self.lock:
            self._system["mkdir"](path, mode, dir_fd=dir_fd)
            if where is not None:
                self.node_of(where, is_folder=True)


class _RecordedFile(io.FileIO):
    """A file whose changes are recorded."""

    def __init__(self, recorder: Recorder, path: str, mode: str) -> None:
        self._recorder, self._appends = recorder, "a" in mode
        with recorder.lock:
            super().__init__(path, mode)
            self._node = recorder.node_of(path)
            if "w" in mode:
                recorder.log("truncate", self._node)

    def write(self, data: Any, /) -> int:
        with self._recorder.lock:
            at = os.fstat(self.fileno()).st_size if self._appends else self.tell()
            written = super().write(data) or 0
            if written:
                self._recorder.log(
                    "write", self._node, at=at, data=bytes(memoryview(data).cast("B")[:written])
                )
        return written

    def truncate(self, size: int | None = None, /) -> int:
        with self._recorder.lock:
            length = super().truncate(size)
            self._recorder.log("truncate", self._node, at=length)
        return length
