"""Fixtures of all tests."""

from __future__ import annotations

import os
from pathlib import Path

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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured, from whichever worker they ran on."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")
