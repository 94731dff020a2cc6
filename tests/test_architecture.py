"""The doors between the rooms, proved in fresh interpreters and by reading the imports."""

from __future__ import annotations

import ast
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import napari_genselfdiff

PACKAGE = Path(napari_genselfdiff.__file__).parent
WINDOWLESS = (
    "slides",
    "diffusion",
    "segmentation",
    "finetuning",
    "annotations",
    "models",
    "exchange",
    "session",
    "cli",
    "verbs",
)
WINDOWS = {"qtpy", "napari", "PyQt5", "PyQt6", "PySide2", "PySide6", "superqt", "vispy"}
HEAVY = {"torch", "dask", "zarr", "scipy", "skimage", "tifffile", "openslide"}


def modules_of(room: str) -> list[str]:
    """Names of a room's modules; empty for a room that is a module and does not exist."""
    folder = PACKAGE / room
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]
    names = [file.relative_to(PACKAGE.parent).with_suffix("") for file in files if file.is_file()]
    return [".".join(name.parts).removesuffix(".__init__") for name in names]


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after running some code."""
    tail = "\nimport json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def imports_of(room: str) -> set[str]:
    """Full names that a room's modules import anywhere, inside functions too."""
    found: set[str] = set()
    for module in modules_of(room):
        file = PACKAGE.parent.joinpath(*module.split("."))
        source = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("room", WINDOWLESS)
def test_rooms_behind_the_window_import_no_window(room: str) -> None:
    modules = modules_of(room)
    assert modules, f"there is no room {room}"
    assert loaded_by(f"import {', '.join(modules)}") & WINDOWS == set()


@pytest.mark.parametrize("room", WINDOWLESS)
def test_no_function_of_theirs_does_either(room: str) -> None:
    assert {name for name in imports_of(room) if name.split(".")[0] in WINDOWS} == set()


def test_package_and_manifest_are_light() -> None:
    code = (
        "import napari_genselfdiff, npe2\n"
        "manifest = npe2.PluginManifest.from_distribution('napari-genselfdiff')\n"
        "assert manifest.contributions.readers"
    )
    assert loaded_by(code) & (HEAVY | WINDOWS) == set()


@pytest.mark.parametrize("module", ["slides", "contributions", "samples"])
def test_what_napari_asks_first_is_light(module: str) -> None:
    assert loaded_by(f"import napari_genselfdiff.{module}") & (HEAVY | WINDOWS) == set()


def test_the_package_imports_in_a_fifth_of_a_second() -> None:
    code = "import time; t = time.perf_counter(); import napari_genselfdiff; print(time.perf_counter() - t)"
    seconds = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]
    assert statistics.median(seconds) < 0.2


@pytest.mark.parametrize(
    ("room", "closed"),
    [
        ("diffusion", {"segmentation", "finetuning", "session", "widgets"}),
        ("segmentation", {"finetuning", "session", "widgets"}),
        ("finetuning", {"session", "widgets"}),
        ("slides", {"diffusion", "segmentation", "finetuning", "annotations", "session", "widgets"}),
    ],
)
def test_doors_that_stay_closed(room: str, closed: set[str]) -> None:
    entered = {name.split(".")[1] for name in imports_of(room) if name.startswith("napari_genselfdiff.")}
    assert entered & closed == set()
