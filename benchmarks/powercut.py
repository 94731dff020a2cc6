"""What a disk may hold after a power cut, given what was done to it before.

The disk promises no more than POSIX does:

- a file's content is there if an fsync of the file began after it was written. Else any part of it may be
  missing: a write may be lost, torn, or leave zeros where the file has already grown;
- a name (of a new, renamed or deleted file or folder) is there if an fsync of its folder began after it. Else
  it may be there or not: in the order of the operations, as journaling file systems keep it, or each by
  itself. A rename happens or does not.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SECTOR = 512


@dataclass(frozen=True)
class Operation:
    """One change of the disk.

    Attributes
    ----------
    kind : str
        ``write``, ``truncate``, ``link`` (a name for a file or folder), ``rename``, ``unlink`` or ``sync``.
    node : int
        Number of the file or folder; 0 is the folder that is recorded.
    at : int
        Offset of a write; length of a truncation; of a sync how many operations came before it began.
    data : bytes
    folder, name : int, str
        The name that is made or removed, and the number of its folder; ``was`` is that before a rename.
    is_folder : bool
    moment, wall_ns : float, int
        Monotonic seconds; nanoseconds since 1970.
    """

    kind: str
    node: int
    at: int = 0
    data: bytes = b""
    folder: int = 0
    name: str = ""
    was: tuple[int, str] = (0, "")
    is_folder: bool = False
    moment: float = field(default_factory=time.monotonic)
    wall_ns: int = field(default_factory=time.time_ns)


@dataclass
class Node:
    """A file or a folder."""

    content: bytearray = field(default_factory=bytearray)
    names: dict[str, int] = field(default_factory=dict)
    is_folder: bool = False
    wall_ns: int = 0


Disk = dict[int, Node]
"""Nodes by number; 0 is the recorded folder."""

Fate = Callable[[int, Operation], bytes | None]
"""What arrives of an operation, by its number: its bytes or some of them; None when it is lost."""


def whole(operations: Sequence[Operation]) -> Disk:
    """The disk without a power cut."""
    return _replayed(operations, lambda _, operation: operation.data)


def after_cut(operations: Sequence[Operation], moment: float, random: np.random.Generator) -> Disk:
    """A disk that the power may leave.

    Parameters
    ----------
    operations : sequence of Operation
    moment : float
        Monotonic seconds: what was done later was not.
    random : Generator
    """
    done = operations[: bisect_right([operation.moment for operation in operations], moment)]
    synced: dict[int, int] = {}
    for operation in done:
        if operation.kind == "sync":
            synced[operation.node] = max(operation.at, synced.get(operation.node, 0))
    # Everything volatile is lost, or everything is kept, or each operation has its own luck.
    luck = float(random.choice([0.0, 0.1, 0.5, 0.9, 1.0]))
    in_order = bool(random.random() < 0.5)
    last_name = random.integers(len(done) + 1)

    def fate(index: int, operation: Operation) -> bytes | None:
        if operation.kind in ("write", "truncate"):
            if index < synced.get(operation.node, 0) or random.random() < luck:
                return operation.data
            return _torn(operation.data, random) if operation.kind == "write" else None
        folders = {operation.folder, operation.was[0]} if operation.kind == "rename" else {operation.folder}
        if all(index < synced.get(folder, 0) for folder in folders):
            return b""
        kept = index < last_name if in_order else random.random() < luck
        return b"" if kept else None

    return _replayed(done, fate)


def contents(disk: Disk) -> dict[str, bytes]:
    """Files of a disk by their paths."""
    found: dict[str, bytes] = {}

    def walk(node: Node, prefix: str) -> None:
        for name, number in node.names.items():
            below = disk[number]
            if below.is_folder:
                walk(below, f"{prefix}{name}/")
            else:
                found[prefix + name] = bytes(below.content)

    walk(disk[0], "")
    return found


def write_out(disk: Disk, root: Path) -> None:
    """Make the files and folders of a disk in an empty folder, with their times."""

    def walk(node: Node, folder: Path) -> None:
        for name, number in node.names.items():
            below = disk[number]
            if below.is_folder:
                (folder / name).mkdir()
                walk(below, folder / name)
            else:
                (folder / name).write_bytes(below.content)
                os.utime(folder / name, ns=(below.wall_ns, below.wall_ns))

    walk(disk[0], root)


def _replayed(operations: Sequence[Operation], fate: Fate) -> Disk:
    disk: Disk = {0: Node(is_folder=True)}
    for index, operation in enumerate(operations):
        if operation.kind == "sync":
            continue
        node = disk.setdefault(operation.node, Node(is_folder=operation.is_folder))
        arrived = fate(index, operation)
        if operation.kind in ("write", "truncate"):
            node.wall_ns = operation.wall_ns
            if arrived is not None:
                _change(node.content, operation, arrived)
            continue
        if arrived is None:
            continue
        names = disk[operation.folder].names
        if operation.kind == "unlink":
            if names.get(operation.name) == operation.node:
                del names[operation.name]
            continue
        if operation.kind == "rename":
            before = disk[operation.was[0]].names
            if before.get(operation.was[1]) == operation.node:
                del before[operation.was[1]]
        names[operation.name] = operation.node
    return disk


def _change(content: bytearray, operation: Operation, arrived: bytes) -> None:
    if operation.kind == "truncate":
        del content[operation.at :]
        content.extend(bytes(operation.at - len(content)))
        return
    content.extend(bytes(max(0, operation.at - len(content))))
    content[operation.at : operation.at + len(arrived)] = arrived


def _torn(data: bytes, random: np.random.Generator) -> bytes | None:
    """Return what may arrive of a write: nothing, its beginning, or its length with some sectors of zeros."""
    kind = random.integers(3)
    if kind == 0:
        return None
    if kind == 1:
        return data[: int(random.integers(len(data) + 1))]
    blank = bytearray(data)
    for start in range(0, len(data), SECTOR):
        if random.random() < 0.5:
            blank[start : start + SECTOR] = bytes(len(blank[start : start + SECTOR]))
    return bytes(blank)
