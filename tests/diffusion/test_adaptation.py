"""A pretext adapts to a cohort, and is kept only when it is better."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.adaptation import Adaptation, adapt, judge_adaptation, working_path
from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.diffusion.domain import check_domain
from napari_genselfdiff.diffusion.pretraining import PretrainSettings, checkpoint_path, load_pretext
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.errors import MissingScaleError, UserError
from napari_genselfdiff.events import CancelToken, Event, Finished, LossPoint
from napari_genselfdiff.models.weights import read_card, read_weights, save_weights, sha256_of
from napari_genselfdiff.slides import Slide, slide_from_arrays
from napari_genselfdiff.slides.fingerprint import slide_fingerprint

CPU = Compute("cpu", None, 1)
TINY = replace(COMPACT, name="tiny", widths=(8, 16), full_width=8)
SETTINGS = PretrainSettings(
    patch=32, batch=4, learning_rate=3e-3, warmup=3, zoom=(1.6, 3.2), ema=0.9, objective="features"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretext that has learned nothing."""
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    torch.manual_seed(0)
    card = {
        "kind": "pretext",
        "config": TINY.to_dict(),
        "settings": asdict(SETTINGS),
        "licence": "BSD-3-Clause",
    }
    save_weights(path, UNet(TINY).state_dict(), card, half=True)
    return path


@pytest.fixture(scope="module")
def cohort() -> list[Slide]:
    slides = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        small = rng.integers(60, 200, (24, 24, 3), dtype=np.uint8)
        rgb = np.asarray(Image.fromarray(small).resize((480, 480), Image.Resampling.BICUBIC))
        slides.append(slide_from_arrays([rgb], name=f"patient {seed}", mpp=0.5))
    return slides


def run(cohort: list[Slide], base: Path, output: Path, **options: Any) -> list[Event]:
    given: dict[str, Any] = {"seconds": None, "steps": 60, "compute": CPU, "tiles": 12} | options
    return list(adapt(cohort, base, output, **given))


def outcome(events: list[Event]) -> Adaptation:
    assert isinstance(events[-1], Finished)
    assert isinstance(events[-1].result, Adaptation)
    return events[-1].result


def test_it_denoises_the_cohort_better_and_says_what_it_is(
    cohort: list[Slide], base: Path, tmp_path: Path
) -> None:
    output = tmp_path / "ours.safetensors"
    events = run(cohort, base, output)
    done = outcome(events)
    assert done.kept, done.message
    assert done.after < done.before
    assert done.message.startswith("kept: denoising error")
    assert "was not checked" in done.message
    assert any(isinstance(event, LossPoint) for event in events)
    network, card = load_pretext(output)
    assert network.config == TINY
    assert card["parent"] == "base"
    assert card["parent_sha256"] == sha256_of(base)
    assert card["cohort"]["slides"] == sorted(slide_fingerprint(slide) for slide in cohort)
    assert card["steps"] == 60
    assert card["licence"] == "BSD-3-Clause"
    assert card["adaptation"]["denoising_after"] == pytest.approx(done.after, abs=1e-4)
    assert "patient" not in str(card)  # names of slides can be names of people
    assert not working_path(output).exists()
    *_, last = check_domain(cohort, output, compute=CPU, tiles=8)
    assert isinstance(last, Finished)
    assert not last.result.far


def test_weights_with_which_few_labels_are_worth_less_are_not_kept(
    cohort: list[Slide], base: Path, tmp_path: Path
) -> None:
    seen: list[bool] = []

    def check(old: dict[str, Tensor], new: dict[str, Tensor]) -> tuple[float, float]:
        seen.append(any(not torch.equal(old[name], new[name]) for name in old))
        return 0.80, 0.70

    output = tmp_path / "ours.safetensors"
    done = outcome(run(cohort, base, output, few_label_check=check))
    assert seen == [True]
    assert not done.kept
    assert not output.exists()
    assert "Dice 0.800 -> 0.700" in done.message


def test_a_stop_within_the_label_check_writes_nothing_and_goes_on(
    cohort: list[Slide], base: Path, tmp_path: Path
) -> None:
    output, cancel = tmp_path / "ours.safetensors", CancelToken()

    def stopped(old: dict[str, Tensor], new: dict[str, Tensor]) -> tuple[float, float]:
        cancel.cancel()
        return 0.0, 0.0

    last = run(cohort, base, output, few_label_check=stopped, cancel=cancel)[-1]
    assert isinstance(last, Finished)
    assert (last.result, last.cancelled) == (None, True)
    assert not output.exists()
    events = run(cohort, base, output, few_label_check=lambda old, new: (0.7, 0.8), resume=True)
    assert outcome(events).kept
    assert not any(isinstance(event, LossPoint) for event in events)


def test_the_verdict_in_plain_words() -> None:
    assert judge_adaptation(0.2, 0.1, (-0.12, -0.08), (0.8, 0.795))[0]
    assert not judge_adaptation(0.2, 0.199, (-0.01, 0.008), None)[0]
    for labels in ((float("nan"), 0.8), (0.8, float("nan"))):
        kept, message = judge_adaptation(0.2, 0.1, (-0.12, -0.08), labels)
        assert not kept
        assert message.endswith("but no short fine-tune gave a score; the pretext stays as it was")
    kept, message = judge_adaptation(0.2, 0.1, (-0.12, -0.08), None)
    assert kept
    assert message == (
        "kept: denoising error 0.200 -> 0.100 on tissue of the cohort that it did not see; whether few-label "
        "fine-tunes gain was not checked: it needs labels"
    )


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    cohort: list[Slide], base: Path, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    run(cohort, base, whole, steps=44)
    cancel = CancelToken()

    def until(events: Iterator[Event], step: int) -> Event:
        for event in events:
            if isinstance(event, LossPoint) and event.step >= step:
                cancel.cancel()
        return event

    work = adapt(cohort, base, parts, seconds=None, steps=44, compute=CPU, tiles=12, cancel=cancel)
    last = until(work, 40)
    assert isinstance(last, Finished)
    assert last.cancelled
    assert "--resume" in last.message
    assert not parts.exists()
    assert checkpoint_path(working_path(parts)).exists()
    assert outcome(run(cohort, base, parts, steps=44, resume=True)).steps == 44
    a, b = read_weights(whole)[0], read_weights(parts)[0]
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_checkpoint_of_other_slides_is_refused(cohort: list[Slide], base: Path, tmp_path: Path) -> None:
    output = tmp_path / "ours.safetensors"
    run(cohort, base, output, steps=2)
    with pytest.raises(UserError, match="of other slides or another seed"):
        run(cohort[:1], base, output, steps=4, resume=True)


def test_the_network_waits_for_the_heads(cohort: list[Slide], base: Path, tmp_path: Path) -> None:
    output = tmp_path / "ours.safetensors"
    run(cohort, base, output, steps=5)
    before, after = read_weights(base)[0], read_weights(checkpoint_path(working_path(output)))[0]
    assert torch.equal(before["stem.weight"], after["network.stem.weight"])
    assert read_card(checkpoint_path(working_path(output)))["steps"] == 5


def test_slides_without_a_resolution_ask_for_it(base: Path, tmp_path: Path) -> None:
    slide = slide_from_arrays([np.full((300, 300, 3), 120, np.uint8)], name="a")
    with pytest.raises(MissingScaleError):
        run([slide], base, tmp_path / "ours.safetensors")
