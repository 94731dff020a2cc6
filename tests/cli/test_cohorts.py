"""``segment`` with many slides, and ``pretrain`` under torchrun."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image

from napari_genselfdiff.models.weights import read_card

Cli = Callable[..., Any]
PROGRAM = "import sys; from napari_genselfdiff.cli import main; sys.exit(main())"


def picture(path: Path, side: int, seed: int = 0) -> Path:
    small = np.random.default_rng(seed).integers(90, 220, (side // 8, side // 8, 3), dtype=np.uint8)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.kron(small, np.ones((8, 8, 1), np.uint8))).save(path)
    return path


@pytest.mark.usefixtures("library")
def test_a_folder_becomes_stores_and_bad_slides_are_told_in_the_end(cli: Cli, tmp_path: Path) -> None:
    slides, output = tmp_path / "slides", tmp_path / "predictions"
    for index in range(2):
        picture(slides / f"{index}.png", 200, index)
    said = cli("segment", slides, "--output", output, "--mpp", 0.5, "--device", "cpu")
    assert said == (0, f"{output / 'cohort.json'}: 2 of 2 slides are done\n", "")
    labels = zarr.open_array(output / "0.zarr" / "labels" / "0", mode="r")
    assert labels.shape == (200, 200)
    assert np.asarray(labels[:]).min() > 0

    (slides / "broken.svs").write_bytes(b"nothing")
    said = cli("segment", str(slides / "*"), "--output", output, "--mpp", 0.5, "--device", "cpu")
    assert said.status == 1
    assert said.out == f"{output / 'cohort.json'}: 2 of 3 slides are done\n"
    assert said.err.startswith("error: ")
    assert "broken.svs" in said.err
    assert said.err.count("\n") == 1


@pytest.mark.usefixtures("library")
def test_what_is_for_one_slide_or_for_many_is_told(cli: Cli, tmp_path: Path) -> None:
    slide, other = (picture(tmp_path / "in" / name, 64) for name in ("a.png", "b.png"))
    mask, folder = tmp_path / "mask.png", tmp_path / "out"
    for arguments, named in [
        ((slide, other, "--output", mask), "mask.png"),
        ((slide.parent, "--output", mask), "mask.png"),
        ((slide.parent / "*.png", "--output", mask), "mask.png"),
        ((slide, "--output", mask, "--scheduler", "local:2"), "mask.png"),
        ((slide, "--output", folder, "--region", 0, 0, 10, 10), "--region"),
        ((slide, "--output", folder, "--instances"), "--instances"),
        ((slide, "--output", folder, "--scheduler", "everywhere"), "everywhere"),
        ((slide, "--output", folder, "--device", "abacus"), "abacus"),
        ((tmp_path / "none.svs", "--output", folder), "none.svs"),
        ((slide, "--output", slide), "a.png"),
    ]:
        said = cli("segment", *arguments, "--mpp", 0.5)
        assert (said.status, said.out, said.err.count("\n")) == (2, "", 1), said
        assert said.err.startswith("error: ")
        assert named in said.err
    assert not mask.exists()
    assert cli("segment", slide, "--output", folder, "--mpp", 0.5).status == 0
    assert (folder / "a.zarr" / "labels").is_dir()


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C reaches a group of processes in another way")
@pytest.mark.usefixtures("library")
def test_ctrl_c_in_a_terminal_keeps_what_is_done_on_local_processes(cli: Cli, tmp_path: Path) -> None:
    slide, output = picture(tmp_path / "in" / "large.png", 4096), tmp_path / "out"
    arguments = ["segment", slide, "--output", output, "--mpp", "0.5", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments), "--scheduler", "local:2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        while process.poll() is None and not (output / "large.zarr" / "cells" / "c" / "0" / "0").exists():
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
        out, err = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert (process.returncode, out) == (130, "")
    assert err.startswith("stopped: 0 of 1 slides")
    assert err.count("\n") == 1
    kept = int(np.asarray(zarr.open_array(output / "large.zarr" / "cells", mode="r")[:]).sum())
    assert 0 < kept < 16
    assert json.loads((output / "cohort.json").read_text())["slides"][0]["state"] == "started"
    said = cli(*arguments)
    assert (said.status, said.err) == (0, "")
    assert np.asarray(zarr.open_array(output / "large.zarr" / "cells", mode="r")[:]).all()


def test_one_of_the_processes_of_torchrun_speaks(tiles: Path, tmp_path: Path) -> None:
    output = tmp_path / "pretext.safetensors"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    given = ("--images", tiles / "images", "--output", output, "--steps", 1, "--device", "cpu")
    done = subprocess.run(
        [*launcher, "--no-python", sys.executable, "-c", PROGRAM, "pretrain", *map(str, given)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith(f"{output}: 1 steps")
    assert read_card(output)["steps"] == 1
