"""Fixtures of all tests."""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real histology; skips where there is none."""
    named = os.environ.get("GENSELFDIFF_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no histology data: set GENSELFDIFF_DATA, see docs/development.md")
    return folder


@pytest.fixture(scope="session")
def cmu_slide(data_dir: Path) -> Path:
    """The Aperio slide CMU-1-Small-Region.svs."""
    return data_dir / "slides" / "CMU-1-Small-Region.svs"


@pytest.fixture
def refusing() -> Callable[[Path, int], AbstractContextManager[None]]:
    """A file system that takes no writes under a folder, with an error of that number; root is asked too."""
    return _refusing


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured, from whichever worker they ran on."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")


@contextmanager
def _refusing(folder: Path, number: int) -> Iterator[None]:
    below = f"{folder}{os.sep}"
    real: dict[str, Any] = {
        name: getattr(os, name) for name in ("open", "mkdir", "rename", "replace", "unlink")
    }
    real_open = builtins.open

    def refuse(path: Any) -> None:
        if not isinstance(path, int) and os.fsdecode(path).startswith(below):
            raise OSError(number, os.strerror(number), os.fsdecode(path))

    def guarded(name: str) -> Any:
        def function(path: Any, *rest: Any, **more: Any) -> Any:
            writes = name != "open" or rest[0] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes:
                refuse(path)
            return real[name](path, *rest, **more)

        return function

    def opened(path: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if set(mode) & set("wax+"):
            refuse(path)
        return real_open(path, mode, *rest, **more)

    with pytest.MonkeyPatch.context() as patched:
        for name in real:
            patched.setattr(os, name, guarded(name))
        patched.setattr(builtins, "open", opened)
        patched.setattr(io, "open", opened)
        yield
