"""How far the store is: a small file beside the arrays, written when both are on disk."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from napari_genselfdiff.files import write_text

APPLIED_NAME = "applied.json"


@dataclass(frozen=True)
class Applied:
    """A checkpoint.

    Attributes
    ----------
    seq, hash : int, str
        The last record of the journal whose pixels are in the arrays, durably, and the hash of its line.
    clean : bool
        Whether nothing was written after it: the session was closed.
    time_ns : int
        When, in nanoseconds since 1970: before the first write that it does not cover.
    """

    seq: int
    hash: str
    clean: bool
    time_ns: int


def write_applied(folder: Path, applied: Applied) -> None:
    """Write the checkpoint of a store atomically.

    Raises
    ------
    UserError
        If it cannot be written.
    """
    write_text(folder / APPLIED_NAME, json.dumps(asdict(applied)) + "\n")


def read_applied(folder: Path) -> Applied | None:
    """Read the checkpoint of a store; None when there is none or it is damaged."""
    try:
        return Applied(**json.loads((folder / APPLIED_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
