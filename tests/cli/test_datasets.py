"""``dataset``, and what follows it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_genselfdiff.cli.datasets import Layout
from napari_genselfdiff.exchange.datasets import AUTO, LAYOUTS

Cli = Callable[..., Any]


@pytest.fixture
def glas(tiles: Path, tmp_path: Path) -> Path:
    """The drawn tiles in the layout of GlaS."""
    folder = tmp_path / "glas"
    folder.mkdir()
    lines = ["name,patient ID"]
    for index in range(6):
        with Image.open(tiles / "images" / f"t{index}.png") as image:
            image.save(folder / f"train_{index}.bmp")
        ids = np.asarray(Image.open(tiles / "ids" / f"t{index}.png")).astype(np.uint8)
        Image.fromarray(ids).save(folder / f"train_{index}_anno.bmp")
        lines.append(f"train_{index},{index // 2}")
    (folder / "Grade.csv").write_text("\n".join(lines))
    return folder


def test_every_layout_can_be_named() -> None:
    assert {layout.value for layout in Layout} == {AUTO, *LAYOUTS}


@pytest.mark.usefixtures("library")
def test_evaluate_and_finetune_take_it_without_a_resolution(cli: Cli, glas: Path, tmp_path: Path) -> None:
    said = cli("dataset", glas, "--output", tmp_path / "out")
    assert (said.status, said.err) == (0, "")
    first, second = said.out.splitlines()
    assert first.startswith(f"{tmp_path / 'out'}: 6 images in 3 groups (glas), 0.62 um/px, ")
    assert first.endswith(" objects")
    named = second.partition(": ")[2].split()
    assert named[-1] == "--instances"
    scores = tmp_path / "scores.json"
    assert cli("evaluate", "--model", "nuclei", *named, "--json", scores).status == 0
    image = json.loads(scores.read_text())["images"][0]
    assert image["hd95_um"] == pytest.approx(image["hd95"] * 0.62)  # so the resolution was read
    model = tmp_path / "m.safetensors"
    assert cli("finetune", *named, "--base", "nuclei", "--steps", 1, "--output", model).status == 0
    assert model.is_file()


def test_options_count_and_errors_are_one_line(cli: Cli, glas: Path, tmp_path: Path) -> None:
    said = cli("dataset", glas, "--output", tmp_path / "a", "--classes", "--mpp", 0.5, "--layout", "glas")
    assert said.status == 0
    assert "0.5 um/px" in said.out
    assert "pixels of foreground" in said.out
    assert "--instances" not in said.out
    assert np.unique(np.asarray(Image.open(tmp_path / "a" / "labels" / "train_0.png"))).tolist() == [0, 1]
    for arguments in (
        (glas, "--output", tmp_path / "a"),
        (glas, "--output", tmp_path / "b", "--layout", "monuseg"),
        (glas, "--output", tmp_path / "b", "--layout", "cityscapes"),
        (glas, "--output", tmp_path / "b", "--mpp", "-1"),
        (tmp_path / "nowhere", "--output", tmp_path / "b"),
    ):
        said = cli("dataset", *arguments)
        assert (said.status, said.out, said.err.count("\n")) == (2, "", 1)
    assert not (tmp_path / "b").exists()


def test_an_unknown_resolution_is_said(cli: Cli, tiles: Path, tmp_path: Path) -> None:
    said = cli("dataset", tiles, "--labels", tiles / "masks", "--classes", "--output", tmp_path / "out")
    assert said.status == 0
    assert "6 of unknown resolution (give --mpp)" in said.out
