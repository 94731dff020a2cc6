"""What a user installs: the wheel, its manifest, its metadata and the pinned versions."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "napari_genselfdiff"
BINDINGS = {"pyqt5", "pyqt6", "pyside2", "pyside6"}
# By tifffile, zarr and openslide-python; npe2 reads the manifest.
LOADED_BY_OTHERS = {"imagecodecs", "npe2", "openslide-bin"}
# Imported when they are asked for, with a message where they are missing.
EXTRAS = ("cluster", "dicom", "s3")
MAX_WEIGHTS_BYTES = 12_000_000

PROBE = """
import json, sys
from importlib.metadata import distribution
import napari_genselfdiff
from npe2 import PluginManifest

manifest = PluginManifest.from_distribution("napari-genselfdiff")
print(json.dumps({
    "prefix": sys.prefix,
    "package": napari_genselfdiff.__file__,
    "metadata": str(distribution("napari-genselfdiff").locate_file("")),
    "plugin": manifest.name,
    "version": manifest.package_version,
    "widgets": [widget.display_name for widget in manifest.contributions.widgets or []],
}))
"""


def run(*command: str | Path) -> str:
    """Run a command away from the checkout, and show what it said when it fails."""
    clean = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=clean, cwd=Path(sys.prefix)
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def requirement_name(requirement: str) -> str:
    return normal(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        table: dict[str, Any] = tomllib.load(file)["project"]
    return table


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built with the installed hatchling: nothing is fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def new_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interpreter of a new environment: it has the wheel, and borrows the dependencies from this one."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=os.name != "nt")
    scheme = {"base": str(home), "platbase": str(home)}
    python = Path(sysconfig.get_path("scripts", "venv", scheme)) / Path(sys.executable).name
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    # A folder named in a .pth file comes after the environment's own, and .pth files inside it are not read:
    # the editable install of the checkout stays out.
    borrowed = Path(sysconfig.get_path("purelib", "venv", scheme)) / "borrowed.pth"
    borrowed.write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


def test_wheel_holds_manifest_and_weights_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    inside = {name.removeprefix("napari_genselfdiff/"): size for name, size in sizes.items()}

    assert inside["napari.yaml"] == (PACKAGE / "napari.yaml").stat().st_size
    bundled = {
        path.relative_to(PACKAGE).as_posix(): path.stat().st_size
        for folder in [PACKAGE / "models" / "bundled"]
        if folder.is_dir()
        for path in folder.iterdir()
        if path.suffix in {".safetensors", ".json"}
    }
    assert {name: inside.get(name) for name in bundled} == bundled
    assert all(size <= MAX_WEIGHTS_BYTES for size in bundled.values()), bundled

    tops = {name.split("/")[0] for name in sizes}
    assert tops == {"napari_genselfdiff", next(top for top in tops if top.endswith(".dist-info"))}
    strangers = [name for name in sizes if name.endswith((".svs", ".ndpi", ".tif", ".pyc", ".pt", ".pth"))]
    assert strangers == []
    assert not [name for name in inside if name.split("/")[0] in {"tests", "data", "docs", "runs"}]


def test_new_environment_finds_the_plugin_of_the_wheel(new_python: Path, project: dict[str, Any]) -> None:
    found = json.loads(run(new_python, "-c", PROBE))
    home = Path(found["prefix"])
    assert home != Path(sys.prefix)
    assert Path(found["package"]).is_relative_to(home)
    assert Path(found["metadata"]).is_relative_to(home)
    assert found["plugin"] == "napari-genselfdiff"
    assert found["version"] == project["version"]
    assert found["widgets"]


def test_new_environment_has_the_command(new_python: Path, project: dict[str, Any]) -> None:
    said = run(new_python.parent / "napari-genselfdiff", "--version")
    assert project["version"] in said


def test_base_install_brings_no_qt_binding(project: dict[str, Any]) -> None:
    base = project["dependencies"]
    assert {requirement_name(requirement) for requirement in base}.isdisjoint(BINDINGS)
    assert not [requirement for requirement in base if re.match(r"napari\s*\[", requirement)]
    assert any(
        requirement.startswith("napari[all]") for requirement in project["optional-dependencies"]["all"]
    )


def test_base_dependencies_are_what_the_code_imports(project: dict[str, Any]) -> None:
    imported = {
        name.split(".")[0]
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for name in imported_names(node)
    }
    foreign = imported - set(sys.stdlib_module_names) - {"napari_genselfdiff"}
    owners = packages_distributions()
    used = {normal(owner) for name in foreign for owner in owners.get(name, [name])}
    declared = {requirement_name(requirement) for requirement in project["dependencies"]}
    extras = project["optional-dependencies"]
    optional = {requirement_name(requirement) for extra in EXTRAS for requirement in extras[extra]}
    assert optional <= used
    assert declared == used - optional | LOADED_BY_OTHERS


def imported_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


def test_top_level_manifest_is_the_packaged_one() -> None:
    link = ROOT / "napari.yaml"
    if os.name == "nt" and not link.is_symlink():
        pytest.skip("this checkout has no symbolic links")
    assert link.is_symlink()
    assert not Path(os.readlink(link)).is_absolute()
    assert link.resolve() == PACKAGE / "napari.yaml"


def test_version_is_the_same_everywhere(project: dict[str, Any]) -> None:
    import napari_genselfdiff

    version = project["version"]
    assert napari_genselfdiff.__version__ == version
    assert re.search(rf"^version: {re.escape(version)}$", (ROOT / "CITATION.cff").read_text("utf-8"), re.M)
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_tested_versions_pin_every_requirement(project: dict[str, Any]) -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    # Exact versions only, and none with a local part like +cpu, which package indexes do not have.
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin)] == []
    assert "torch==2.13.0" in pins

    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(requirement for extra in extras for requirement in extra)]
    pinned = {normal(pin.split("==")[0]) for pin in pins}
    assert {requirement_name(requirement) for requirement in wanted} <= pinned
