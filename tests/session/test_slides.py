"""A session of several slides, by reference."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_genselfdiff.annotations import encode
from napari_genselfdiff.compute import Compute
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.session import Session, default_folder
from napari_genselfdiff.slides import open_slide, slide_from_arrays

CPU = Compute(device="cpu", autocast=None, threads=1)
Pixels = np.ndarray[Any, Any]


def draw(session: Session, y: int, label: int = 1) -> None:
    """A small square."""
    session.annotations.stroke(0, y, 10, encode(np.full((5, 5), label)), np.ones((5, 5), bool))


def drawn(session: Session) -> int:
    """Pixels that were drawn on the slide that is looked at."""
    return int((session.annotations.read(0, Region(0, 0, *session.slide.shape)) > 0).sum())


@pytest.fixture
def files(tmp_path: Path, tissue: Pixels) -> list[Path]:
    """Three image files."""
    paths = []
    for number in range(3):
        path = tmp_path / "slides" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.roll(tissue, 7 * number, axis=0)).save(path)
        paths.append(path)
    return paths


def opened(path: Path) -> Any:
    """A slide of known resolution."""
    return open_slide(path, mpp=0.5)


def test_each_slide_keeps_what_was_drawn_on_it(home: Path, files: list[Path], tmp_path: Path) -> None:
    session = Session(tmp_path / "project", opened(files[0]), compute=CPU)
    draw(session, 20)
    session.activate(session.add_slide(opened(files[1])))
    assert drawn(session) == 0
    draw(session, 40)
    draw(session, 60)
    session.close()

    again = Session(tmp_path / "project", compute=CPU)
    assert [slide.name for slide in again.slides] == ["0.png", "1.png"]
    assert again.slide.name == "1.png"
    assert again.slide.mpp == 0.5
    assert drawn(again) == 50
    again.activate(next(iter(again.slides)))
    assert drawn(again) == 25
    assert [slide.corrected for slide in again.slides] == [True, True]
    again.close()


def test_a_slide_that_moved_is_known_again(home: Path, files: list[Path], tmp_path: Path) -> None:
    session = Session(tmp_path / "project", opened(files[0]), compute=CPU)
    draw(session, 20)
    session.close()
    moved = tmp_path / "elsewhere.png"
    shutil.move(files[0], moved)

    again = Session(tmp_path / "project", compute=CPU)
    with pytest.raises(UserError, match="open it from where it is now"):
        _ = again.slide
    again.activate(again.add_slide(open_slide(moved)))
    assert len(again.slides) == 1
    assert drawn(again) == 25
    assert again.slide.mpp == 0.5
    again.close()
    assert json.loads((again.folder / "session.json").read_text())["slides"][0]["path"] == str(moved)


def test_a_slide_that_was_changed_is_told(home: Path, files: list[Path], tmp_path: Path) -> None:
    session = Session(tmp_path / "project", opened(files[0]), compute=CPU)
    draw(session, 20)
    session.close()
    shutil.copyfile(files[1], files[0])
    with pytest.raises(UserError, match="changed since it was annotated"):
        Session(tmp_path / "project", opened(files[0]), compute=CPU)
    again = Session(tmp_path / "project", compute=CPU)
    assert again.annotations.position == 1
    with pytest.raises(UserError, match="changed since it was annotated"):
        _ = again.slide
    again.close()


def test_the_session_that_knows_a_slide_is_found(home: Path, files: list[Path]) -> None:
    first = opened(files[0])
    folder = default_folder(first)
    session = Session(folder, first, compute=CPU)
    session.add_slide(opened(files[1]))
    session.close()
    assert default_folder(open_slide(files[1])) == folder
    assert default_folder(open_slide(files[2])) != folder


def test_a_second_window_looks_only(home: Path, files: list[Path], tmp_path: Path) -> None:
    session = Session(tmp_path / "project", opened(files[0]), compute=CPU)
    draw(session, 20)
    second = Session(tmp_path / "project", opened(files[1]), compute=CPU)
    assert second.read_only
    assert second.annotations.read_only
    second.save()
    second.close()
    session.close()
    again = Session(tmp_path / "project", compute=CPU)
    assert not again.read_only
    assert [slide.name for slide in again.slides] == ["0.png"]
    again.close()


def test_a_session_of_the_first_format_goes_on(home: Path, tissue: Pixels, tmp_path: Path) -> None:
    slide = slide_from_arrays(tissue, name="tissue", mpp=0.5)
    session = Session(tmp_path / "old", slide, compute=CPU)
    session.use_model("tiny")
    draw(session, 20)
    state = json.loads((session.folder / "session.json").read_text())
    session.close()
    entry = state["slides"][0]
    (session.folder / entry["folder"] / "annotations").rename(session.folder / "annotations")
    version = {
        name: value for name, value in state["versions"][0].items() if name in ("name", "path", "parent")
    }
    old = {
        "format": 1,
        "slide": {name: entry[name] for name in ("name", "path", "fingerprint", "mpp")},
        "versions": [version],
        "current": "tiny",
        "previous": None,
        "view": {"center": [0.0, 1.0, 2.0], "zoom": 3.0},
        "tissue_sensitivity": 0.25,
    }
    (session.folder / "session.json").write_text(json.dumps(old))

    again = Session(session.folder, slide, compute=CPU)
    assert drawn(again) == 25
    assert (again.current, again.view["zoom"], again.tissue.sensitivity) == ("tiny", 3.0, 0.25)
    again.close()


def test_a_long_name_is_cut_where_file_systems_count_bytes(
    home: Path, tissue: Pixels, tmp_path: Path
) -> None:
    session = Session(tmp_path / "project", slide_from_arrays(tissue, name="ä" * 250, mpp=0.5), compute=CPU)
    draw(session, 20)
    assert session.slide.name == "ä" * 250
    assert session.active.folder.name.startswith("ä" * 100 + "-")
    session.close()
