"""The pretext's own denoising error, and what it says of slides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.diffusion.denoising import Calibration, denoising_errors
from napari_genselfdiff.diffusion.domain import DomainCheck, check_domain, fitted
from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.diffusion.settings import PretrainSettings
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Finished
from napari_genselfdiff.models.library import BUNDLED, resolve
from napari_genselfdiff.models.weights import save_weights
from napari_genselfdiff.slides import Slide, open_slide, slide_from_arrays

CPU = Compute("cpu", None, 1)
TINY = replace(COMPACT, name="tiny", widths=(8, 16), full_width=8)
QUICK = PretrainSettings(patch=32, batch=2, learning_rate=1e-3, warmup=3, zoom=(1.0, 2.0))


def checked(slides: list[Slide], pretext: Path, **options: int) -> DomainCheck:
    *_, last = check_domain(slides, pretext, compute=CPU, **options)
    assert isinstance(last, Finished)
    assert isinstance(last.result, DomainCheck)
    assert last.message == last.result.meaning
    return last.result


@pytest.mark.parametrize("objective", ["ddpm", "features", "masked"])
def test_the_error_repeats_and_belongs_to_the_tile(objective: str) -> None:
    torch.manual_seed(0)
    network = UNet(TINY)
    tiles = to_unit_range(np.random.default_rng(0).integers(0, 255, (11, 32, 32, 3), dtype=np.uint8))
    settings = replace(QUICK, objective=objective)
    errors = denoising_errors(network, settings, tiles, CPU)
    assert errors.shape == (11,)
    assert (errors > 0).all()
    torch.rand(1)  # whatever else draws random numbers does not matter
    assert np.array_equal(errors, denoising_errors(network, settings, tiles, CPU))
    np.testing.assert_allclose(errors[3:5], denoising_errors(network, settings, tiles[3:5], CPU), rtol=1e-4)


def test_percentiles_come_from_the_training_tiles_and_survive_the_card() -> None:
    calibration = Calibration.of(np.arange(1, 202) / 1000, mpp=0.5)
    again = Calibration.from_dict(json.loads(json.dumps(calibration.to_dict())))
    assert again.percentile(0.101) == pytest.approx(50, abs=0.5)
    assert (again.percentile(0.0), again.percentile(0.5)) == (0, 100)
    assert (again.mpp, again.tiles) == (0.5, 201)


def test_the_figure_is_told_with_its_meaning() -> None:
    assert DomainCheck(0.42, 97.2, 48).meaning == (
        "denoising error 0.420, higher than 97 % of the training tiles: "
        "this slide looks unlike what the model has seen"
    )
    near = DomainCheck(0.08, 55.0, 48, slides=3)
    assert not near.far
    assert near.meaning.endswith("these 3 slides look like what the model has seen")


def test_small_tiles_are_mirrored_and_large_ones_cut() -> None:
    tile = np.arange(20 * 30 * 3, dtype=np.uint16).reshape(20, 30, 3).astype(np.uint8)
    assert fitted(tile, 24).shape == (24, 24, 3)
    np.testing.assert_array_equal(fitted(tile, 10), tile[5:15, 10:20])


def test_weights_without_a_calibration_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    settings = {"patch": 32, "batch": 2, "learning_rate": 1e-3, "warmup": 3, "zoom": [1.0, 2.0]}
    save_weights(
        path, UNet(TINY).state_dict(), {"kind": "pretext", "config": TINY.to_dict(), "settings": settings}
    )
    slide = slide_from_arrays([np.zeros((64, 64, 3), np.uint8)], name="a", mpp=0.5)
    with pytest.raises(UserError, match="do not say how well they denoise"):
        list(check_domain([slide], path, compute=CPU))


def test_the_bundled_pretext_is_calibrated_and_stops_when_asked(cmu_slide: Path) -> None:
    assert len(list(BUNDLED.glob("pretext.denoising.json"))) == 1
    cancel = CancelToken()
    cancel.cancel()
    *_, last = check_domain([open_slide(cmu_slide)], resolve("pretext"), compute=CPU, cancel=cancel)
    assert isinstance(last, Finished)
    assert last.cancelled


def test_he_is_near_and_fluorescence_is_far(cmu_slide: Path) -> None:
    near = checked([open_slide(cmu_slide)], resolve("pretext"), tiles=16)
    far = checked([open_slide(cmu_slide.parent / "test3-DAPI-2-(387).ndpi")], resolve("pretext"), tiles=8)
    assert not near.far, near.meaning
    assert far.far, far.meaning
