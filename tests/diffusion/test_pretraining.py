"""The pretext's training loop: repeats, resumes, stops, and tells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion import pictures, pretraining
from napari_genselfdiff.diffusion.config import COMPACT, CONFIGS, PAPER, UNetConfig
from napari_genselfdiff.diffusion.objectives import OBJECTIVES, OUTPUTS, Objective, ObjectiveOptions
from napari_genselfdiff.diffusion.patches import PatchSource
from napari_genselfdiff.diffusion.pictures import COLUMNS, sample_sheet, sheet_path
from napari_genselfdiff.diffusion.pretraining import (
    SETTINGS,
    PretrainSettings,
    checkpoint_path,
    load_pretext,
    pretrain,
)
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.errors import OutOfMemoryError, UserError
from napari_genselfdiff.events import CancelToken, Event, Finished, LossPoint, Progress
from napari_genselfdiff.models.weights import read_card, read_weights, save_weights

TINY = replace(COMPACT, name="tiny", widths=(8, 16), full_width=8)
TINY_PAPER = replace(PAPER, name="tiny-paper", widths=(8, 16), blocks=1)
CPU = Compute("cpu", None, 1)
QUICK = PretrainSettings(patch=16, batch=2, learning_rate=1e-3, warmup=3, zoom=(1.0, 2.0))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    paths = [folder / f"{index}.png" for index in range(3)]
    for path in paths:
        small = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(small).resize((48, 48), Image.Resampling.BICUBIC).save(path)
    return paths


def run(files: list[Path], output: Path, *, steps: int | None = 4, **options: Any) -> list[Event]:
    given: dict[str, Any] = {"config": TINY, "compute": CPU, "settings": QUICK} | options
    return list(pretrain(files, output, steps=steps, **given))


def checkpoint(output: Path) -> dict[str, Tensor]:
    return read_weights(checkpoint_path(output))[0]


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("config", [TINY, TINY_PAPER], ids=["compact", "paper"])
def test_a_seeded_run_repeats_exactly(files: list[Path], tmp_path: Path, config: UNetConfig) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(1)  # whatever else drew random numbers must not matter
        run(files, tmp_path / name, steps=2, config=config, settings=replace(QUICK, seed=seed))
    a, b, c = (checkpoint(tmp_path / name) for name in "abc")
    assert same(a, b)
    assert not same(a, c)


def test_a_resumed_run_equals_an_uninterrupted_one(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, bytes]] = []
    batch = PatchSource.batch

    def recorded(self: PatchSource, step: int, count: int, *part: slice) -> Tensor:
        patches = batch(self, step, count, *part)
        if step == pretraining.SHEET_STEP:
            return patches
        seen.append((step, patches.numpy().tobytes()))
        return patches

    noise: list[int] = []
    ddpm = OBJECTIVES["ddpm"]

    def recording(options: ObjectiveOptions) -> Objective:
        def loss(network: UNet, x0: Tensor, generator: torch.Generator) -> Tensor:
            noise.append(generator.initial_seed())
            return ddpm(options)(network, x0, generator)

        return loss

    monkeypatch.setattr(PatchSource, "batch", recorded)
    monkeypatch.setitem(OBJECTIVES, "ddpm", recording)
    run(files, tmp_path / "whole.safetensors")
    uninterrupted, seen = seen, []
    assert len(set(noise)) == 4  # every step has its own
    run(files, tmp_path / "parts.safetensors", steps=1)
    run(files, tmp_path / "parts.safetensors", steps=3, resume=True)
    events = run(files, tmp_path / "parts.safetensors", resume=True)

    # Those with larger numbers are what the finished network is calibrated on.
    seen, uninterrupted = ([one for one in all_ if one[0] < 2**32] for all_ in (seen, uninterrupted))
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    assert seen == uninterrupted
    assert noise[4:] == noise[:4]
    assert same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts"))
    weights = [read_weights(tmp_path / f"{name}.safetensors")[0] for name in ("whole", "parts")]
    assert same(*weights)
    assert read_card(tmp_path / "parts.safetensors")["steps"] == 4
    progress = [event for event in events if isinstance(event, Progress)]
    assert [(event.done, event.total) for event in progress] == [(4, 4)]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_resumes_with_its_own_weights(
    files: list[Path], tmp_path: Path, objective: str
) -> None:
    settings = replace(QUICK, objective=objective, stain=0.2)
    run(files, tmp_path / "whole.safetensors", settings=settings)
    run(files, tmp_path / "parts.safetensors", settings=settings, steps=2)
    run(files, tmp_path / "parts.safetensors", settings=settings, resume=True)
    whole, parts = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")
    assert same(whole, parts)
    assert any(name.startswith("objective.") for name in whole) == (objective == "features")
    # What is shipped is the network alone.
    weights, card = read_weights(tmp_path / "whole.safetensors")
    assert weights.keys() == UNet(TINY).state_dict().keys()
    assert card["settings"]["objective"] == objective


def test_a_run_that_is_cut_off_goes_on_from_its_last_checkpoint(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, "CHECKPOINT_SECONDS", 0.0)
    events = pretrain(files, tmp_path / "cut", steps=4, config=TINY, compute=CPU, settings=QUICK)
    for _ in range(3):  # the checkpoint of a step is written before the next event
        next(events)
    assert isinstance(events, Iterator)
    events.close()  # type: ignore[attr-defined]
    assert read_card(checkpoint_path(tmp_path / "cut"))["steps"] == 2
    run(files, tmp_path / "cut", resume=True)
    run(files, tmp_path / "whole")
    assert same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "cut"))


def test_cancel_is_honoured_within_a_step_and_leaves_weights(files: list[Path], tmp_path: Path) -> None:
    cancel, output = CancelToken(), tmp_path / "p.safetensors"
    events = []
    for event in pretrain(files, output, steps=50, config=TINY, compute=CPU, settings=QUICK, cancel=cancel):
        events.append(event)
        if isinstance(event, Progress) and event.done == 2:
            cancel.cancel()
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.cancelled
    assert last.result == output
    network, card = load_pretext(output)
    assert card["steps"] == 2
    assert network(torch.zeros(1, 3, 16, 16), torch.tensor([0])).shape == (1, 3, 16, 16)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_pictures_of_the_average_lie_beside_the_weights(
    files: list[Path], tmp_path: Path, objective: str
) -> None:
    output, settings = tmp_path / "p.safetensors", replace(QUICK, objective=objective)
    run(files, output, settings=settings)
    assert sheet_path(output) == tmp_path / "p.samples.png"
    average = UNet(TINY)
    tensors = checkpoint(output)
    average.load_state_dict({k.removeprefix("average."): v for k, v in tensors.items() if "average." in k})
    tiles = PatchSource(files, 16, QUICK.zoom, QUICK.seed).batch(pretraining.SHEET_STEP, COLUMNS)
    expected = sample_sheet(average, tiles, prediction=OUTPUTS[objective])
    drawn = np.asarray(Image.open(sheet_path(output)))
    # Another batch size or memory order may round differently.
    assert np.abs(drawn.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_drawing_does_not_disturb_the_training(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str
) -> None:
    settings = replace(QUICK, objective=objective, stain=0.2)
    run(files, tmp_path / "plain", settings=settings)
    monkeypatch.setattr(pretraining, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(pictures, "EVERY_SECONDS", 0.0)
    monkeypatch.setattr(pictures, "LARGEST_SHARE", float("inf"))
    drawn: list[str] = []
    monkeypatch.setattr(pictures, "sample_sheet", lambda *a, **k: drawn.append("") or sample_sheet(*a, **k))
    run(files, tmp_path / "drawn", settings=settings)
    assert len(drawn) == 5  # after each step, and at the end
    assert same(checkpoint(tmp_path / "plain"), checkpoint(tmp_path / "drawn"))


def test_whoever_cancels_does_not_wait_for_a_picture(files: list[Path], tmp_path: Path) -> None:
    cancel = CancelToken()
    cancel.cancel()
    run(files, tmp_path / "p", cancel=cancel)
    assert not sheet_path(tmp_path / "p").exists()


def test_a_run_cancelled_before_its_first_step_can_go_on(files: list[Path], tmp_path: Path) -> None:
    cancel = CancelToken()
    cancel.cancel()
    run(files, tmp_path / "p", cancel=cancel)
    run(files, tmp_path / "p", resume=True)
    run(files, tmp_path / "whole")
    assert same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "p"))


def test_a_checkpoint_that_does_not_fit_is_told(files: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "p.safetensors"
    with pytest.raises(UserError, match=r"no such weights file, .*p\.checkpoint\.safetensors"):
        run(files, output, resume=True)
    run(files, output, steps=1)
    with pytest.raises(UserError, match=r"another network.* use --config tiny"):
        run(files, output, resume=True, config=replace(TINY, widths=(8, 8)))
    with pytest.raises(UserError, match=r"other settings.* --seed 0"):
        run(files, output, resume=True, settings=replace(QUICK, seed=7))


@pytest.mark.parametrize("damage", ["cut", "text", "weights", "tensors"])
def test_a_damaged_checkpoint_is_told(files: list[Path], tmp_path: Path, damage: str) -> None:
    output = tmp_path / "p.safetensors"
    run(files, output, steps=1)
    path = checkpoint_path(output)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_text("no checkpoint at all")
    elif damage == "weights":  # somebody renamed the output
        output.replace(path)
    else:
        tensors, card = read_weights(path)
        save_weights(path, {k: v for k, v in tensors.items() if not k.startswith("adam.")}, card)
    with pytest.raises(UserError, match=r"checkpoint\.safetensors"):
        run(files, output, resume=True)


def test_events_tell_steps_losses_and_the_time_left(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, "LOSS_EVERY", 2)
    events = run(files, tmp_path / "p")
    progress = [event for event in events if isinstance(event, Progress)]
    assert [(event.done, event.total) for event in progress] == [(i, 4) for i in (1, 2, 3, 4)]
    assert progress[1].seconds_left is not None
    assert progress[1].seconds_left > 0
    assert progress[-1].seconds_left == 0
    losses = [event for event in events if isinstance(event, LossPoint)]
    assert [event.step for event in losses] == [2, 4]
    assert all(0 < event.loss < 10 for event in losses)
    assert isinstance(events[-1], Finished)
    assert not events[-1].cancelled
    assert "4 steps" in events[-1].message


def test_time_ends_a_run_and_nothing_does_not(files: list[Path], tmp_path: Path) -> None:
    *events, last = run(files, tmp_path / "p", steps=None, seconds=0.2)
    assert isinstance(last, Finished)
    assert events
    assert all(event.total == 0.2 for event in events if isinstance(event, Progress))
    assert read_card(tmp_path / "p")["seconds"] == pytest.approx(0.2, abs=5)
    with pytest.raises(UserError, match="give --seconds or --steps"):
        run(files, tmp_path / "p", steps=None)


def test_the_average_follows_the_weights(files: list[Path], tmp_path: Path) -> None:
    run(files, tmp_path / "start", steps=0)
    run(files, tmp_path / "p")
    first, last = checkpoint(tmp_path / "start"), checkpoint(tmp_path / "p")
    name = "down.0.blocks.0.conv1.weight"
    begin, now, average = first[f"network.{name}"], last[f"network.{name}"], last[f"average.{name}"]
    assert not torch.equal(begin, average)
    assert not torch.equal(now, average)
    assert (now - average).norm() < (now - begin).norm()
    # The decay of the first step is 2 / 11.
    run(files, tmp_path / "one", steps=1)
    one = checkpoint(tmp_path / "one")
    expected = begin + (1 - 2 / 11) * (one[f"network.{name}"] - begin)
    torch.testing.assert_close(one[f"average.{name}"], expected)


def test_the_card_says_how_the_weights_were_made(files: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "mine.safetensors"
    run(files, output, card={"licence": "CC BY 4.0"})
    for path in (output, checkpoint_path(output)):
        card = read_card(path)
        assert (card["kind"], card["name"], card["steps"], card["images"]) == ("pretext", "mine", 4, 3)
        assert card["settings"] == json.loads(json.dumps(vars(QUICK)))
        assert UNetConfig.from_dict(card["config"]) == TINY
        assert card["input_range"] == [-1, 1]
        assert card["licence"] == "CC BY 4.0"
        assert card["gigapixels"] == 0  # 2048 pixels
    run(files, output, steps=10, settings=replace(QUICK, patch=64))
    assert read_card(output)["gigapixels"] == 0.0001  # 10 steps x 2 patches x 4096 pixels


def test_the_output_is_the_average_in_half_precision(files: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "p.safetensors"
    run(files, output)
    assert output.stat().st_size < checkpoint_path(output).stat().st_size / 5
    kept = checkpoint(output)
    network, _ = load_pretext(output)
    for name, value in network.state_dict().items():
        if not value.is_floating_point():  # how many batches the normalisation has seen
            continue
        assert value.dtype == torch.float32
        assert (value - kept[f"average.{name}"]).abs().max() < 1e-3
    exact = UNet(TINY)
    exact.load_state_dict({k.removeprefix("average."): v for k, v in kept.items() if "average." in k})
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        difference = network(x, torch.tensor([50])) - exact.eval()(x, torch.tensor([50]))
    assert difference.abs().max() < 1e-3 * 5


def test_other_weights_are_no_pretext(tmp_path: Path) -> None:
    tensors = UNet(TINY).state_dict()
    segmenter, broken = tmp_path / "s.safetensors", tmp_path / "b.safetensors"
    save_weights(segmenter, tensors, {"kind": "segmenter", "config": TINY.to_dict()})
    with pytest.raises(UserError, match="not pretext weights"):
        load_pretext(segmenter)
    save_weights(broken, tensors, {"kind": "pretext"})
    with pytest.raises(UserError, match="do not fit the model card"):
        load_pretext(broken)
    other = replace(TINY, widths=(8, 24))
    save_weights(broken, tensors, {"kind": "pretext", "config": other.to_dict()})
    with pytest.raises(UserError, match="do not fit the model card"):
        load_pretext(broken)


def test_a_run_starts_from_given_weights(files: list[Path], tmp_path: Path) -> None:
    torch.manual_seed(9)
    start = UNet(TINY).state_dict()
    run(files, tmp_path / "p", steps=0, start=start)
    kept = checkpoint(tmp_path / "p")
    assert all(torch.equal(kept[f"network.{name}"], value) for name, value in start.items())
    with pytest.raises(UserError, match="the weights do not fit the network"):
        run(files, tmp_path / "q", start=start, config=TINY_PAPER)


def test_training_lowers_the_loss(files: list[Path], tmp_path: Path) -> None:
    settings = replace(QUICK, weighting="flat", learning_rate=3e-3, batch=4)
    events = run(files, tmp_path / "p", steps=60, settings=settings)
    losses = [event.loss for event in events if isinstance(event, LossPoint)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError(), RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)")]
)
def test_a_full_device_is_told(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*args: Any) -> None:
        raise error

    monkeypatch.setattr(UNet, "forward", full)
    with pytest.raises(OutOfMemoryError, match="smaller batch"):
        run(files, tmp_path / "p")


def test_other_errors_of_torch_are_not_taken_for_a_full_device(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(UNet, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run(files, tmp_path / "p")


def test_every_configuration_has_settings() -> None:
    assert SETTINGS["paper"] == PretrainSettings(
        patch=256, batch=8, learning_rate=1e-4, warmup=0, zoom=(1.0, 1.0)
    )
    paper = SETTINGS["paper"]
    assert (paper.objective, paper.schedule, paper.weighting, paper.stain) == ("ddpm", "quadratic", "p2", 0)
    assert SETTINGS.keys() == CONFIGS.keys()
