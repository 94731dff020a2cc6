"""Exit statuses, help, and what the program writes where."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import napari_genselfdiff
from napari_genselfdiff import demo
from napari_genselfdiff.cli import main
from napari_genselfdiff.errors import OutOfMemoryError
from napari_genselfdiff.verbs import segmenting
from napari_genselfdiff.widgets import launch

Cli = Callable[..., Any]
VERBS = ("segment", "finetune", "pretrain", "evaluate", "export", "dataset", "demo", "models", "session")


def program(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own."""
    command = [sys.executable, "-c", "import sys; from napari_genselfdiff.cli import main; sys.exit(main())"]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False, **options
    )


def test_version_and_help_teach(cli: Cli) -> None:
    assert cli("--version") == (0, f"napari-genselfdiff {napari_genselfdiff.__version__}\n", "")
    said = cli("--help")
    assert said.status == 0
    assert all(f"\n  {verb} " in said.out for verb in VERBS)
    for verb in VERBS:
        said = cli(verb, "--help")
        assert (said.status, said.err) == (0, "")
        assert f"\n    napari-genselfdiff {verb}" in said.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("segment",),
        ("segmnt", "a.svs"),
        ("segment", "a.svs", "--output", "b.png", "--colour", "red"),
        ("segment", "a.svs", "--output", "b.png", "--mpp", "wide"),
        ("segment", "a.svs", "--output", "b.png", "--region", "1", "2"),
        ("pretrain", "--images", "a", "--output", "b", "--config", "huge"),
        ("finetune", "--images", "a"),
        ("models",),
        ("--colour",),
    ],
)
def test_wrong_usage_is_one_line_that_names_help(cli: Cli, arguments: tuple[str, ...]) -> None:
    said = cli(*arguments)
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert "--help" in said.err


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OutOfMemoryError("the device ran out of memory: choose the CPU"), "choose the CPU"),
        (ZeroDivisionError("oops\nand more"), "--debug"),
        (MemoryError(), "memory"),
    ],
)
def test_a_failure_ends_with_1_and_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: str
) -> None:
    def failing(*arguments: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(segmenting, "segment", failing)
    said = cli("segment", "a.svs", "--output", "b.png")
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert expected in said.err
    assert "Traceback" in cli("segment", "a.svs", "--output", "b.png", "--debug").err


def test_demo_gets_the_slide_and_the_folder(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(demo, "run_demo", lambda slide, output: calls.append((slide, output)))
    assert cli("demo").status == 0
    assert cli("demo", "--slide", "a.svs", "--output", "there").status == 0
    assert calls == [(None, Path("demo-output")), (Path("a.svs"), Path("there"))]


def test_without_arguments_the_window_opens(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[bool] = []
    monkeypatch.setattr(launch, "open_window", lambda: opened.append(True))
    assert cli().status == 0
    assert opened == [True]


@pytest.mark.skipif(sys.platform != "linux", reason="only X and Wayland need to be named")
def test_without_a_display_it_says_so(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    said = cli()
    assert said.status == 2
    assert "no display" in said.err


@pytest.mark.usefixtures("library")
def test_a_pipe_gets_results_and_nothing_else(tiles: Path, tmp_path: Path) -> None:
    image = tiles / "images" / "t0.png"
    done = program("segment", image, "--output", tmp_path / "out.png", "--mpp", "0.5")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    (tmp_path / "broken.tif").write_bytes(image.read_bytes()[:300].replace(b"\x89PNG", b"II*\0"))
    done = program("segment", tmp_path / "broken.tif", "--output", tmp_path / "out.png")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "broken.tif" in done.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("library")
def test_a_terminal_gets_a_progress_bar(tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    image = tiles / "images" / "t0.png"
    assert main(["segment", str(image), "--mpp", "0.5", "--output", str(tmp_path / "out.png")]) == 0
    assert "segmenting" in terminal.getvalue()
    assert "100%" in terminal.getvalue()


def test_the_command_line_is_light() -> None:
    code = (
        "import sys, napari_genselfdiff.cli as cli; cli.main(['--help']);"
        "heavy = {'torch', 'napari', 'qtpy', 'dask', 'zarr', 'scipy', 'skimage'} & sys.modules.keys();"
        "sys.exit(f'{heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
