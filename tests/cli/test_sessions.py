"""Checking, printing and handing over a session."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_genselfdiff.annotations import encode
from napari_genselfdiff.annotations.audit import model_tag
from napari_genselfdiff.annotations.journal import JOURNAL_NAME
from napari_genselfdiff.compute import Compute
from napari_genselfdiff.exchange.labels import read_labels
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models.weights import sha256_of
from napari_genselfdiff.session import Session
from napari_genselfdiff.slides import slide_from_arrays

Cli = Callable[..., Any]
CPU = Compute(device="cpu", autocast=None, threads=1)


def draw(session: Session, y: int, x: int, number: int, *, side: int = 20) -> None:
    codes = np.full((side, side), encode(number), np.uint8)
    session.annotations.stroke(0, y, x, codes, np.ones((side, side), bool))


@pytest.fixture
def folder(library: Path, tmp_path: Path) -> Path:
    """A session with four changes on a slide whose file lies at a telling place."""
    image = np.full((900, 700, 3), 230, np.uint8)
    slide = slide_from_arrays(image, name="block A", mpp=0.5)
    slide = replace(slide, path=tmp_path / "Doe, Jane" / "block A.tif")
    session = Session(tmp_path / "session", slide, compute=CPU, author="A. Pathologist")
    session.use_model("nuclei")
    draw(session, 100, 100, 1)
    session.annotations.model = model_tag("nuclei", sha256_of(library / "nuclei.safetensors"))
    draw(session, 110, 110, 0)
    session.annotations.accept(1, Region(300, 200, 10, 10), encode(np.ones((10, 10), int)))
    session.annotations.undo()
    session.close()
    return tmp_path / "session"


def journal_of(folder: Path) -> Path:
    (path,) = folder.rglob(JOURNAL_NAME)
    return path


def head_of(folder: Path) -> str:
    return hashlib.sha256(journal_of(folder).read_bytes().splitlines()[-1]).hexdigest()


def test_a_whole_session_verifies(cli: Cli, folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    said = cli("session", "verify", folder, "--replay", "--head", head_of(folder))
    assert (said.status, said.err) == (0, "")
    assert "slide block A\n" in said.out
    assert "records  4 (" in said.out
    assert "by A. Pathologist" in said.out
    assert f"head     {head_of(folder)}\n" in said.out
    assert "chain    holds" in said.out
    assert "pixels   agree with a replay" in said.out
    assert "model nuclei: reads well" in said.out
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_head_that_was_kept_is_found_while_the_journal_grows_and_missed_when_it_was_written_anew(
    cli: Cli, folder: Path
) -> None:
    lines = journal_of(folder).read_bytes().splitlines(keepends=True)
    kept = hashlib.sha256(lines[1].rstrip(b"\n")).hexdigest()
    assert cli("session", "verify", folder, "--head", kept).status == 0
    # A forger computes the chain anew.
    previous, forged = "0" * 64, b""
    for line in lines:
        record = json.loads(line) | {"author": "Somebody else", "prev": previous}
        line = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()
        previous = hashlib.sha256(line).hexdigest()
        forged += line + b"\n"
    journal_of(folder).write_bytes(forged)
    said = cli("session", "verify", folder, "--head", kept)
    assert said.status == 1
    assert "no journal holds a record with the hash that was kept" in said.err
    assert "chain    holds" in said.out
    assert cli("session", "verify", folder, "--head", "mine").status == 2


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda journal: journal.write_bytes(journal.read_bytes()[:-9]), "cut off"),
        (lambda journal: journal.write_bytes(journal.read_bytes().replace(b'"seq":2', b'"seq":3')), "line 2"),
        (
            lambda journal: journal.write_bytes(b"".join(journal.read_bytes().splitlines(True)[:2])),
            "records at the end are missing",
        ),
    ],
)
def test_a_damaged_journal_is_a_problem(
    cli: Cli, folder: Path, damage: Callable[[Path], Any], words: str
) -> None:
    damage(journal_of(folder))
    said = cli("session", "verify", folder)
    assert said.status == 1
    assert words in said.err
    assert "block A" in said.err


def test_stored_pixels_that_differ_from_the_journal_are_a_problem(cli: Cli, folder: Path) -> None:
    chunk = next(path for path in folder.rglob("edits/own/0/c/0/0"))
    chunk.write_bytes(b"")
    assert cli("session", "verify", folder).status == 0
    said = cli("session", "verify", folder, "--replay")
    assert said.status == 1
    assert "1 stored chunks differ from a replay of the journal (own/0/0/0)" in said.err


def test_weights_that_are_damaged_or_were_exchanged_are_a_problem(
    cli: Cli, folder: Path, library: Path
) -> None:
    whole = (library / "nuclei.safetensors").read_bytes()
    (library / "nuclei.safetensors").write_bytes(whole[:-100])
    said = cli("session", "verify", folder)
    assert said.status == 1
    assert "nuclei" in said.err
    assert "damaged" in said.err
    (library / "nuclei.safetensors").write_bytes((library / "plain.safetensors").read_bytes())
    said = cli("session", "verify", folder)
    assert said.status == 1
    assert "not those that records of block A name" in said.err


def test_what_is_no_session_is_refused(cli: Cli, tmp_path: Path) -> None:
    for verb in ("verify", "log"):
        said = cli("session", verb, tmp_path)
        assert (said.status, said.out) == (2, "")
        assert "session.json" in said.err


def test_the_log_says_who_what_when_and_where(cli: Cli, folder: Path) -> None:
    said = cli("session", "log", folder)
    lines = said.out.splitlines()
    assert (said.status, len(lines)) == (0, 4)
    assert all("A. Pathologist" in line for line in lines)
    assert "stroke" in lines[0]
    assert "unseen -> nucleus 400 px" in lines[0]
    assert "y 100 x 100, 20 x 20 px at 1/1" in lines[0]
    assert "nucleus -> background 100 px" in lines[1]
    assert "model nuclei sha256:" in lines[1]
    assert "unseen -> nucleus (accepted) 400 px" in lines[2]
    assert "y 600 x 400, 20 x 20 px at 1/2" in lines[2]
    assert "undo of 3" in lines[3]
    assert cli("session", "log", folder, "--last", "1").out.splitlines() == lines[-1:]


def test_the_log_for_programs(cli: Cli, folder: Path) -> None:
    records = [json.loads(line) for line in cli("session", "log", folder, "--json").out.splitlines()]
    assert [record["seq"] for record in records] == [1, 2, 3, 4]
    assert records[0]["slide_name"] == "block A"
    assert records[0]["region"] == {"y": 100, "x": 100, "height": 20, "width": 20}
    assert records[0]["transitions"] == [{"layer": 0, "before": "unseen", "after": "nucleus", "pixels": 400}]
    assert records[3]["of"] == 3
    assert records[3]["hash"] == head_of(folder)


def test_an_export_can_be_read_and_verified_and_names_nobody(cli: Cli, folder: Path, tmp_path: Path) -> None:
    said = cli("session", "export", folder, tmp_path / "handover")
    assert (said.status, said.err) == (0, "")
    out = tmp_path / "handover"
    (records,) = out.rglob("records.csv")
    rows = list(csv.DictReader(io.StringIO(records.read_text(encoding="utf-8"))))
    assert [row["kind"] for row in rows] == ["stroke", "stroke", "accept", "undo"]
    assert rows[0]["author"] == "A. Pathologist"
    assert rows[1]["before_and_after"] == "unseen -> background 300 px; nucleus -> background 100 px"
    labels, info = read_labels(next(out.rglob("labels-1.ome.zarr")))
    y, x = info["offset"]
    assert info["class_names"] == ("background", "nucleus")
    assert labels[105 - y, 105 - x] == 1
    assert labels[115 - y, 115 - x] == 0
    assert (labels != 255).sum() == 700
    collection = json.loads(next(out.rglob("labels-1.geojson")).read_text())
    assert "nucleus" in {
        feature["properties"]["classification"]["name"] for feature in collection["features"]
    }
    assert json.loads((out / "models" / "nuclei.json").read_text())["card"]["kind"] == "segmenter"
    for line in (out / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ", 1)
        assert sha256_of(out / name) == digest
    everything = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert b"Doe" not in everything
    assert str(tmp_path).encode() not in everything
    again = cli("session", "verify", out, "--head", head_of(folder))
    assert again.status == 0
    assert head_of(folder) in (out / "README.txt").read_text()
    refused = cli("session", "export", folder, out)
    assert refused.status == 2
    assert "not empty" in refused.err


def test_an_export_is_an_archive_by_its_name(cli: Cli, folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "handover.zip"
    assert cli("session", "export", folder, archive).status == 0
    with zipfile.ZipFile(archive) as file:
        assert {"handover/README.txt", "handover/summary.json"} <= set(file.namelist())
    assert cli("session", "export", folder, archive).status == 2


def test_slides_whose_names_become_one_are_exported_side_by_side(
    cli: Cli, library: Path, tmp_path: Path
) -> None:
    session = Session(tmp_path / "session", compute=CPU)
    for number, name in enumerate(("case 1", "case_1")):
        slide = slide_from_arrays(np.full((90, 70, 3), 200 + number, np.uint8), name=name, mpp=0.5)
        session.activate(session.add_slide(slide))
        draw(session, 0, 0, 1)
    session.close()
    assert cli("session", "export", tmp_path / "session", tmp_path / "out").status == 0
    assert {path.name for path in (tmp_path / "out" / "slides").iterdir()} == {"case_1", "case_1-1"}


def test_a_session_that_crashed_is_exported_as_its_journal_says(
    cli: Cli, library: Path, tmp_path: Path
) -> None:
    slide = slide_from_arrays(np.full((900, 700, 3), 230, np.uint8), name="a", mpp=0.5)
    session = Session(tmp_path / "open", slide, compute=CPU)
    draw(session, 0, 0, 1)
    session.annotations.flush()
    shutil.copytree(session.folder, tmp_path / "crashed", ignore=shutil.ignore_patterns("c", "*.lock"))
    session.close()
    said = cli("session", "verify", tmp_path / "crashed", "--replay")
    assert said.status == 0
    assert "was not closed" in said.out
    assert "were not compared" in said.out
    assert cli("session", "export", tmp_path / "crashed", tmp_path / "out").status == 0
    labels, _ = read_labels(next((tmp_path / "out").rglob("labels-1.ome.zarr")))
    assert (labels == 1).sum() == 400
