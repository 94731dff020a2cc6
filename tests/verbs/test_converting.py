"""Data sets on their way to `finetune` and `evaluate`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Finished, Progress
from napari_genselfdiff.exchange.datasets import open_dataset
from napari_genselfdiff.exchange.pairs import find_pairs, load_pair
from napari_genselfdiff.verbs.converting import Converted, convert_dataset
from napari_genselfdiff.verbs.inputs import resolution_of

RGB = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two images of one patient with ids."""
    for name in "ab":
        ids = np.zeros((30, 40), np.uint16)
        ids[2:9, 2:9], ids[12:20, 20:30] = 1, 400
        save(tmp_path / "source" / "images" / f"{name}.png", RGB)
        save(tmp_path / "source" / "masks" / f"{name}.png", ids)
    (tmp_path / "source" / "dataset.csv").write_text("name,group\na,ann\nb,ann\n")
    return tmp_path / "source"


def converted(source: Path, output: Path, **options: Any) -> Converted:
    *_, last = convert_dataset(source, output, **options)
    assert isinstance(last, Finished)
    assert isinstance(last.result, Converted)
    return last.result


def test_what_comes_out_is_what_finetune_takes(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "deep" / "out"
    done = converted(source, output, mpp=0.31)
    assert done == Converted(output, "pairs", 2, 1, (0.31,), 0, True, 4)
    pairs = find_pairs(output / "images", output / "labels")
    assert [pair.name for pair in pairs] == ["a", "b"]
    assert resolution_of(pairs[0].image, None) == pytest.approx(0.31, rel=1e-6)
    loaded = load_pair(pairs[0], instances=True)
    np.testing.assert_array_equal(loaded.rgb, RGB)
    assert np.unique(loaded.labels).tolist() == [0, 1, 400]
    with (output / "dataset.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1] == {
        "name": "b",
        "group": "ann",
        "mpp": "0.31",
        "source": "images/b.png",
        "annotation": "masks/b.png",
    }
    assert sorted(path.name for path in output.iterdir()) == ["dataset.csv", "images", "labels"]


def test_it_opens_again_as_the_same_data_set(source: Path, tmp_path: Path) -> None:
    converted(source, tmp_path / "out", mpp=0.31)
    for before, after in zip(open_dataset(source), open_dataset(tmp_path / "out"), strict=True):
        assert (before.name, before.group, before.instances) == (after.name, after.group, after.instances)
        assert after.mpp == pytest.approx(0.31)
        np.testing.assert_array_equal(before.load()[1], after.load()[1])


def test_ids_have_16_bits_and_classes_8(source: Path, tmp_path: Path) -> None:
    for name in "ab":
        save(
            source / "masks" / f"{name}.png", np.eye(30, 40, dtype=np.uint8) * 2 + np.eye(30, 40, 5, np.uint8)
        )
    for instances, mode in ((True, "I;16"), (False, "L")):
        done = converted(source, tmp_path / mode, instances=instances)
        assert (done.instances, done.mpp, done.unknown) == (instances, (), 2)
        with Image.open(tmp_path / mode / "labels" / "a.png") as image:
            assert image.mode == mode
        assert resolution_of(tmp_path / mode / "images" / "a.tif", None) is None


def test_high_ids_are_numbered_anew_and_what_is_not_labelled_stays(source: Path, tmp_path: Path) -> None:
    ids = np.zeros((30, 40), np.int32)
    ids[2:9, 2:9], ids[12:20, 20:30], ids[25:, :] = 90_000, 3, 65535
    save(source / "masks" / "a.tif", ids)
    (source / "masks" / "a.png").unlink()
    converted(source, tmp_path / "out")
    loaded = load_pair(
        find_pairs(tmp_path / "out" / "images", tmp_path / "out" / "labels")[0], instances=True
    )
    assert np.unique(loaded.labels).tolist() == [0, 1, 2]
    assert (loaded.labels[5, 5], loaded.labels[15, 25]) == (2, 1)
    np.testing.assert_array_equal(loaded.valid, ids != 65535)


def test_an_output_that_is_there_is_left_as_it_is(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    converted(source, output)
    before = sorted(output.rglob("*"))
    with pytest.raises(UserError, match=r"not empty and is left as it is.*out"):
        converted(source, output)
    assert sorted(output.rglob("*")) == before
    with pytest.raises(UserError, match=r"the output is a file.*dataset\.csv"):
        converted(source, output / "dataset.csv")


def test_nothing_stays_of_what_fails_or_is_stopped(source: Path, tmp_path: Path) -> None:
    save(source / "images" / "b.png", RGB[:20])
    with pytest.raises(UserError, match=r"40 x 30 pixels and its image 40 x 20.*b\.png"):
        converted(source, tmp_path / "out")
    for message in ("looking at the masks", "converting"):
        cancel = CancelToken()
        for event in convert_dataset(source, tmp_path / "out", cancel=cancel):
            if isinstance(event, Progress) and event.message == message:
                cancel.cancel()
        assert event == Finished(None, "stopped; nothing was written", cancelled=True)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_no_foreground_and_names_that_windows_takes_for_one(source: Path, tmp_path: Path) -> None:
    for name in "ab":
        save(source / "masks" / f"{name}.png", np.zeros((30, 40), np.uint8))
    with pytest.raises(UserError, match="no foreground at all"):
        converted(source, tmp_path / "out")
    if not (source / "images" / "A.png").exists():  # where the file system tells them apart
        save(source / "images" / "A.png", RGB)
        save(source / "masks" / "A.png", np.ones((30, 40), np.uint8))
        (source / "dataset.csv").unlink()
        with pytest.raises(UserError, match="A and a share a name"):
            converted(source, tmp_path / "out")


def test_a_resolution_that_images_do_not_keep_is_said(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    converted(source, tmp_path / "out", mpp=50)
    assert "give it with --mpp" in caplog.text
    with pytest.raises(UserError, match="cannot be a resolution"):
        converted(source, tmp_path / "more", mpp=0)
