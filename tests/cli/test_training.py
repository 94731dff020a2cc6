"""``finetune``, ``pretrain``, ``evaluate`` and ``models``."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_genselfdiff.diffusion import pretraining
from napari_genselfdiff.diffusion.config import CONFIGS
from napari_genselfdiff.finetuning.loop import FineTuneSettings
from napari_genselfdiff.models.weights import read_card, read_weights
from napari_genselfdiff.segmentation.network import load_segmenter
from napari_genselfdiff.verbs import training

Cli = Callable[..., Any]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = partial(FineTuneSettings, patch=48, batch=4, learning_rate=1e-2, ema=0.9)
    monkeypatch.setattr(training, "FineTuneSettings", quick)


def train(cli: Cli, tiles: Path, output: Path, *more: Any, labels: str = "masks") -> Any:
    where = ("--images", tiles / "images", "--labels", tiles / labels, "--output", output)
    return cli("finetune", *where, "--device", "cpu", *more)


@pytest.mark.usefixtures("library")
def test_a_model_is_trained_from_the_pretext_and_scored(cli: Cli, tiles: Path, tmp_path: Path) -> None:
    model = tmp_path / "mine.safetensors"
    said = train(cli, tiles, model, "--steps", 2, "--seed", 4, "--mpp", 0.5)
    assert (said.status, said.err) == (0, "")
    assert "on 1 held-out images" in said.out
    assert "Dice 0." in said.out
    card = read_card(model)
    assert card["classes"] == ["background", "class-1"]
    assert card["config"]["widths"] == [8, 16]
    assert card["mpp"] == pytest.approx(0.5)
    assert (card["steps"], card["seed"], card["base"]) == (2, 4, "pretext")
    assert card["mpp_range"] == [0.5, 0.5]
    assert len(card["split"]["held_out"]) == 1
    assert 0 <= card["scores"]["dice"] <= 1
    assert card["command"].startswith("napari-genselfdiff finetune --images")

    again = tmp_path / "again.safetensors"
    train(cli, tiles, again, "--steps", 2, "--seed", 4, "--mpp", 0.5)
    first, second = (read_weights(path)[0] for path in (model, again))
    assert all((first[name] == second[name]).all() for name in first)


@pytest.mark.usefixtures("library")
def test_training_learns_the_discs(cli: Cli, tiles: Path, tmp_path: Path) -> None:
    """A round trip: train on tiles, and find the discs of one that was held out."""
    model = tmp_path / "mine.safetensors"
    assert train(cli, tiles, model, "--steps", 60).status == 0
    assert read_card(model)["scores"]["dice"] > 0.8
    assert read_card(model)["mpp"] is None
    held_out = read_card(model)["split"]["held_out"][0]
    image, target = tiles / "images" / f"{held_out}.png", tmp_path / "out.png"
    assert cli("segment", image, "--output", target, "--model", model).status == 0
    found = np.asarray(Image.open(target)) > 0
    discs = np.asarray(Image.open(tiles / "binary" / f"{held_out}.png"))
    assert 2 * (found & discs).sum() / (found.sum() + discs.sum()) > 0.8


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("labels", ["ids", "binary"])
def test_objects_are_learned_from_ids_and_from_binary_masks(
    cli: Cli, tiles: Path, tmp_path: Path, labels: str
) -> None:
    model = tmp_path / "mine.safetensors"
    said = train(cli, tiles, model, "--steps", 2, "--instances", "--mpp", 0.5, labels=labels)
    assert said.status == 0
    card = read_card(model)
    assert card["instances"]
    assert card["classes"] == ["background", "object"]
    # Discs are 15 pixels wide: a mask's size is that of its discs, not of all of it.
    assert card["mpp"] == pytest.approx(0.5)
    assert card["object_area"] == pytest.approx(np.pi * 7.5**2, rel=0.15)


@pytest.mark.usefixtures("library")
def test_a_base_goes_on_where_its_classes_are_as_many(
    cli: Cli, tiles: Path, library: Path, tmp_path: Path
) -> None:
    model = tmp_path / "mine.safetensors"
    said = train(cli, tiles, model, "--base", "nuclei", "--steps", 4, "--mpp", 0.25)
    assert said.status == 0
    assert "(before 0." in said.out
    card = read_card(model)
    assert card["classes"] == ["background", "nucleus"]
    assert (card["mpp"], card["instances"], card["base"]) == (0.5, True, "nuclei")
    old, new = (load_segmenter(path) for path in (library / "nuclei.safetensors", model))
    changes = [
        float((a - b).detach().abs().max()) for a, b in zip(old.parameters(), new.parameters(), strict=True)
    ]
    assert 0 < max(changes) < 0.05

    other = tmp_path / "other.safetensors"
    assert (
        train(cli, tiles, other, "--base", "plain", "--steps", 1, "--target-mpp", 1, "--mpp", 0.5).status == 0
    )
    assert read_card(other)["classes"] == ["background", "class-1"]
    assert read_card(other)["mpp"] == 1.0


@pytest.mark.usefixtures("library")
def test_training_says_what_is_wrong_before_it_begins(cli: Cli, tiles: Path, tmp_path: Path) -> None:
    model = tmp_path / "mine.safetensors"
    many = tmp_path / "many"
    many.mkdir()
    for label in (tiles / "ids").iterdir():
        Image.fromarray(np.asarray(Image.open(label)).astype(np.uint8) + 30).save(many / label.name)
    empty = tmp_path / "empty"
    empty.mkdir()
    for label in (tiles / "binary").iterdir():
        Image.fromarray(np.asarray(Image.open(label)).astype(np.uint8) * 255).save(empty / label.name)
    for more, labels, named in [
        (("--base", "nuclei"), tiles / "masks", "--mpp"),
        (("--target-mpp", "0.5"), tiles / "masks", "--mpp"),
        (("--target-mpp", "500", "--mpp", "1"), tiles / "masks", "--target-mpp"),
        (("--base", "nothing"), tiles / "masks", "nothing"),
        ((), tmp_path / "none", "none"),
        ((), many, "--instances"),
        ((), empty, "255"),
        (("--output", tmp_path), tiles / "masks", "folder"),
    ]:
        said = train(cli, tiles, model, "--labels", labels, "--steps", 1, *more)
        assert (said.status, said.out, said.err.count("\n")) == (2, "", 1), said
        assert named in said.err
    assert not model.exists()


@pytest.fixture
def tiny_pretext(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONFIGS, "compact", replace(CONFIGS["compact"], widths=(8, 16)))
    settings = pretraining.PretrainSettings(patch=32, batch=2, learning_rate=1e-3, warmup=2, zoom=(1.0, 2.0))
    monkeypatch.setitem(pretraining.SETTINGS, "compact", settings)


@pytest.mark.usefixtures("tiny_pretext")
def test_a_pretext_is_trained_on_several_folders_and_resumed(cli: Cli, tiles: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (tiles / "images" / "t0.png").rename(other / "t0.png")
    output = tmp_path / "pretext.safetensors"
    said = cli("pretrain", "--images", tiles / "images", other, "--output", output, "--steps", 2, "--seed", 1)
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith(f"{output}: 2 steps")
    assert read_card(output)["images"] == 6
    repeated = ("--images", tiles / "images", "--images", other)
    said = cli("pretrain", "--output", output, *repeated, "--resume", "--steps", 4, "--seed", 1)
    assert said.status == 0
    assert (read_card(output)["steps"], read_card(output)["images"]) == (4, 6)
    said = cli("pretrain", "--images", other, "--output", output, "--resume", "--steps", 5, "--seed", 2)
    assert said.status == 2
    assert "--seed 1" in said.err


@pytest.mark.usefixtures("tiny_pretext")
@pytest.mark.parametrize("objective", ["ddpm", "masked", "features"])
def test_the_objective_of_a_pretext_can_be_chosen(
    cli: Cli, tiles: Path, tmp_path: Path, objective: str
) -> None:
    output = tmp_path / "pretext.safetensors"
    given = ("--images", tiles / "images", "--output", output, "--objective", objective, "--steps", 1)
    said = cli("pretrain", *given)
    assert (said.status, said.err) == (0, "")
    assert read_card(output)["settings"]["objective"] == objective


@pytest.mark.usefixtures("tiny_pretext")
def test_ctrl_c_saves_the_pretext(
    cli: Cli, tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = pretraining._step

    def interrupted(run: Any, *rest: Any) -> float:
        if run.step == 2:
            signal.raise_signal(signal.SIGINT)
        return step(run, *rest)

    monkeypatch.setattr(pretraining, "_step", interrupted)
    before = signal.getsignal(signal.SIGINT)
    output = tmp_path / "pretext.safetensors"
    said = cli("pretrain", "--images", tiles / "images", "--output", output, "--steps", 50)
    assert said.status == 130
    assert "--resume" in said.err
    assert said.err.count("\n") == 1
    assert read_card(output)["steps"] == 3
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("library")
def test_scores_of_each_image_and_their_mean(cli: Cli, tiles: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.json"
    where = ("--images", tiles / "images", "--labels", tiles / "masks", "--json", scores)
    said = cli("evaluate", "--model", "nuclei", *where, "--mpp", 0.25)
    assert (said.status, said.err) == (0, "")
    assert len(said.out.splitlines()) == 8
    result = json.loads(scores.read_text())
    assert result["model"] == "nuclei"
    assert [image["name"] for image in result["images"]] == [f"t{i}" for i in range(6)]
    names = {"dice", "iou", "precision", "sensitivity", "specificity", "accuracy", "f1", "hausdorff", "hd95"}
    assert names <= result["mean"].keys()
    assert "aji" not in result["mean"]
    dice = [image["dice"] for image in result["images"]]
    assert result["mean"]["dice"] == pytest.approx(np.mean(dice))
    for image in result["images"]:
        assert image["f1"] == image["dice"]
        assert image["hausdorff"] >= image["hd95"] > 0
        for distance in ("hausdorff", "hd95"):
            assert image[f"{distance}_um"] == pytest.approx(image[distance] * 0.25)


@pytest.mark.usefixtures("library")
def test_what_is_not_labelled_does_not_count(cli: Cli, tiles: Path, tmp_path: Path) -> None:
    """Scores of a mask with most of it not labelled are those of the rest, whatever the model says there."""
    target, scores = tmp_path / "out.png", tmp_path / "scores.json"
    for path in [*(tiles / "images").iterdir()][1:]:
        path.unlink()
    (image,) = (tiles / "images").iterdir()
    cli("segment", image, "--output", target, "--mpp", 0.5)
    said = np.array(Image.open(target))
    wrong = 1 - said
    wrong[:40] = said[:40]
    wrong[60:] = 255
    wrong[40:60] = 255
    labels = tmp_path / "labels"
    labels.mkdir()
    Image.fromarray(wrong).save(labels / image.name)
    where = ("--images", tiles / "images", "--labels", labels, "--json", scores, "--mpp", 0.5)
    assert cli("evaluate", "--model", "nuclei", *where).status == 0
    assert json.loads(scores.read_text())["mean"]["accuracy"] == 1.0


@pytest.mark.usefixtures("library")
def test_objects_are_scored_as_segment_writes_them(cli: Cli, tiles: Path, tmp_path: Path) -> None:
    scores, labels = tmp_path / "scores.json", tmp_path / "own"
    for image in sorted((tiles / "images").iterdir())[2:]:
        image.unlink()
    for image in (tiles / "images").iterdir():
        cli("segment", image, "--output", labels / image.name, "--mpp", 0.5, "--instances")
    where = ("--images", tiles / "images", "--mpp", 0.5, "--json", scores, "--model", "nuclei")
    said = cli("evaluate", *where, "--labels", labels, "--instances")
    assert said.status == 0
    names = ("aji", "pq", "dq", "sq", "object_dice", "object_f1")
    mean = json.loads(scores.read_text())["mean"]
    assert [mean[name] for name in names] == [1.0] * 6
    assert mean["object_hausdorff"] == mean["object_hausdorff_um"] == 0
    said = cli("evaluate", *where, "--labels", tiles / "ids", "--instances")
    assert said.status == 0
    result = json.loads(scores.read_text())
    assert all(result["mean"][name] < 1 for name in names)
    for image in [*result["images"], result["mean"]]:
        assert image["object_hausdorff_um"] == pytest.approx(image["object_hausdorff"] * 0.5) != 0
    pixels, objects = said.out.split("\n\n")
    assert pixels.split()[:2] == ["image", "dice"]
    assert objects.splitlines()[0].split() == ["image", *names, "object_hausdorff", "object_hausdorff_um"]
    shown = objects.splitlines()[-1].split()[-2:]
    assert shown == [f"{result['mean'][f'object_hausdorff{unit}']:.1f}" for unit in ("", "_um")]
    said = cli("evaluate", *where, "--labels", tiles / "binary", "--instances")
    assert said.status == 2
    assert "binary" in said.err


def test_real_nuclei_are_scored(cli: Cli, library: Path, data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "monuseg"
    (tmp_path / "images").mkdir()
    (tmp_path / "ids").mkdir()
    for label in sorted((source / "instances").glob("*.png"))[:2]:
        image = source / "MoNuSeg 2018 Training Data" / "Tissue Images" / f"{label.stem}.tif"
        box = (100, 100, 260, 228)
        Image.open(image).convert("RGB").crop(box).save(tmp_path / "images" / f"{label.stem}.tif")
        Image.fromarray(np.asarray(Image.open(label))[100:228, 100:260]).save(tmp_path / "ids" / label.name)
    said = cli(
        *("evaluate", "--model", library / "nuclei.safetensors", "--images", tmp_path / "images"),
        *("--labels", tmp_path / "ids", "--instances", "--mpp", 0.25, "--json", tmp_path / "scores.json"),
    )
    assert said.status == 0
    assert 0 <= json.loads((tmp_path / "scores.json").read_text())["mean"]["pq"] < 1


def test_models_are_passed_on(cli: Cli, library: Path, tmp_path: Path) -> None:
    said = cli("models", "list")
    assert said.status == 0
    assert {"nuclei", "plain", "pretext"} <= {line.split()[0] for line in said.out.splitlines()[1:]}
    shown = json.loads(cli("models", "show", "nuclei").out)
    assert shown["classes"] == ["background", "nucleus"]
    assert len(shown["sha256"]) == 64
    copy = tmp_path / "copy.safetensors"
    assert cli("models", "export", "nuclei", copy).out.strip() == str(copy)
    assert cli("models", "export", "nuclei", copy).status == 2
    assert cli("models", "import", copy, "--name", "friend").status == 0
    assert (library / "friend.safetensors").read_bytes() == copy.read_bytes()
    assert cli("models", "import", copy, "--name", "friend").status == 2
    (tmp_path / "text.safetensors").write_text("no weights")
    said = cli("models", "show", tmp_path / "text.safetensors")
    assert (said.status, said.err.count("\n")) == (2, 1)
