"""Sheets by which a person judges a pretext: they show what they say, and disturb nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from napari_genselfdiff.diffusion import pictures
from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.diffusion.pictures import (
    CAPTION,
    COLUMNS,
    GAP,
    NOISED_AT,
    Prediction,
    SheetWriter,
    sample_sheet,
    sheet_path,
)
from napari_genselfdiff.diffusion.sampling import Denoiser
from napari_genselfdiff.diffusion.schedules import alpha_bars
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.errors import UserError

SIDE = 128
PREDICTIONS: tuple[Prediction, ...] = ("epsilon", "x0", "masked")


class Oracle(nn.Module):
    """Believes that every image is ``x0``; remembers what it was shown."""

    def __init__(self, x0: Tensor, prediction: Prediction) -> None:
        super().__init__()
        self.x0, self.prediction, self.alpha_bar = x0, prediction, alpha_bars("quadratic")
        self.shown: list[Tensor] = []
        self.times: list[list[int]] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.shown.append(x)
        self.times.append(t.tolist())
        x0 = self.x0.expand(len(x), -1, -1, -1)
        if self.prediction != "epsilon":
            return x0
        alpha_bar = self.alpha_bar[t][:, None, None, None]
        return (x - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()


def random_tiles(count: int = COLUMNS, size: int = SIDE) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    contrast = torch.linspace(1, 0.2, count)[:, None, None, None]
    return (torch.rand((count, 3, size, size), generator=generator) * 2 - 1) * contrast


def cell(sheet: NDArray[np.uint8], row: int, column: int, side: int = SIDE) -> NDArray[np.uint8]:
    top = GAP + row * (CAPTION + side + GAP) + CAPTION
    left = GAP + column * (side + GAP)
    return sheet[top : top + side, left : left + side]


def as_pixels(image: Tensor) -> NDArray[np.uint8]:
    return ((image + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()


def near(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
    return bool(np.abs(a.astype(int) - b).max() <= 1)


def tiny() -> UNet:
    torch.manual_seed(0)
    return UNet(replace(COMPACT, widths=(8, 16), full_width=8))


@pytest.mark.parametrize("prediction", ["epsilon", "x0"])
def test_a_denoiser_shows_samples_and_what_it_sees_in_noise(prediction: Denoiser) -> None:
    tiles, belief = random_tiles(), random_tiles(1, SIDE) * 0.5
    oracle = Oracle(belief, prediction)
    sheet = sample_sheet(oracle, tiles, prediction=prediction, steps=3)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (4 * (CAPTION + SIDE + GAP) + GAP, COLUMNS * (SIDE + GAP) + GAP, 3)
    for column in range(COLUMNS):
        assert near(cell(sheet, 0, column), as_pixels(tiles[column]))
        assert near(cell(sheet, 1, column), as_pixels(belief[0]))
        assert near(cell(sheet, 3, column), as_pixels(belief[0]))
    assert [t[0] for t in oracle.times[:-1]] == [999, 500, 0]
    assert oracle.times[-1] == list(NOISED_AT)
    # What it was shown last is the noised tile of the third row, noisier from left to right.
    noisy = oracle.shown[-1]
    likeness = [float(torch.corrcoef(torch.stack([x.flatten(), tiles[0].flatten()]))[0, 1]) for x in noisy]
    assert likeness == sorted(likeness, reverse=True)
    assert likeness[0] > 0.95
    for column, x in enumerate(noisy):
        assert near(cell(sheet, 2, column), as_pixels(x.clamp(-1, 1)))


def test_a_masked_pretext_shows_hidden_blocks_and_what_it_paints() -> None:
    tiles, belief = random_tiles(), random_tiles(1, SIDE) * 0.5
    oracle = Oracle(belief, "masked")
    sheet = sample_sheet(oracle, tiles, prediction="masked")
    assert sheet.shape[0] == 5 * (CAPTION + SIDE + GAP) + GAP
    for row, visible, share in ((1, oracle.shown[0], 0.5), (3, oracle.shown[1], 0.75)):
        hidden = (visible == 0).all(dim=1)
        assert float(hidden.float().mean()) == pytest.approx(share, abs=0.1)
        assert torch.equal(visible, tiles * ~hidden[:, None])
        for column in range(COLUMNS):
            assert near(cell(sheet, row, column), as_pixels(visible[column]))
            assert near(cell(sheet, row + 1, column), as_pixels(belief[0]))
    assert oracle.times == [[50] * COLUMNS] * 2


def test_the_tile_of_the_most_contrast_is_the_one_that_is_noised() -> None:
    tiles = random_tiles().flip(0)
    sheet = sample_sheet(Oracle(tiles[:1], "x0"), tiles, prediction="x0", steps=1)
    assert near(cell(sheet, 0, 0), as_pixels(tiles[-1]))
    assert near(cell(sheet, 0, COLUMNS - 1), as_pixels(tiles[0]))


def test_small_tiles_are_enlarged_and_few_are_enough() -> None:
    tiles = random_tiles(2, 48)
    sheet = sample_sheet(Oracle(tiles[:1], "x0"), tiles, prediction="x0", steps=1)
    assert near(cell(sheet, 0, 1, side=144)[::3, ::3], as_pixels(tiles[1]))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_drawing_leaves_the_network_and_random_numbers_alone(prediction: Prediction) -> None:
    network = tiny().train()
    network.final.eval()  # as a fine-tune with fixed statistics does with some modules
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    first, again = (sample_sheet(network, random_tiles(6, 16), prediction=prediction) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert np.array_equal(first, again)
    # In use, normalisation has its own statistics: it is the network's mode that must not matter.
    assert np.array_equal(first, sample_sheet(network.eval(), random_tiles(6, 16), prediction=prediction))
    other = sample_sheet(network, random_tiles(6, 16), prediction=prediction, seed=1)
    assert not np.array_equal(first, other)


def test_the_mode_is_restored_where_drawing_fails() -> None:
    network = tiny().train()
    with pytest.raises(RuntimeError):
        sample_sheet(network, random_tiles(6, 16)[:, :2], prediction="masked")
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_network_that_diverged_is_drawn_grey(prediction: Prediction) -> None:
    tiles = random_tiles()
    sheet = sample_sheet(
        Oracle(torch.full((1, 3, SIDE, SIDE), torch.nan), prediction), tiles, prediction=prediction
    )
    assert set(cell(sheet, sheet.shape[0] // (SIDE + CAPTION + GAP) - 1, 0).ravel()) == {128}


def writer(path: Path, calls: list[str]) -> SheetWriter:
    def tiles() -> Tensor:
        calls.append("tiles")
        return random_tiles(2, 16)

    return SheetWriter(path, tiles, "quadratic", "x0")


class Timer:
    """A clock that goes on by as much as a network's passes take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds_a_pass: float) -> None:
        self.now, self.pass_seconds, self.passes = 0.0, seconds_a_pass, 0
        monkeypatch.setattr(pictures.time, "perf_counter", lambda: self.now)

    def network(self) -> nn.Module:
        network = tiny()

        def count(*_: object) -> None:
            self.passes += 1
            self.now += self.pass_seconds

        network.register_forward_pre_hook(count)
        return network


def test_a_sheet_is_written_every_ten_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timer, calls, path = Timer(monkeypatch, 0.01), [], tmp_path / "p.samples.png"
    sheets, network = writer(path, calls), timer.network()
    written = []
    for seconds in range(0, 3600, 120):
        path.unlink(missing_ok=True)
        sheets.write_if_due(network, seconds)
        if path.exists():
            written.append(seconds)
    assert written == [600, 1320, 2040, 2760, 3480]  # the checkpoint after ten minutes and the drawing
    assert calls == ["tiles"]


def test_a_network_that_takes_long_to_draw_is_drawn_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timer, path = Timer(monkeypatch, 8.0), tmp_path / "p.samples.png"
    sheets, network = writer(path, []), timer.network()
    written = []
    for seconds in range(0, 30_000, 120):
        path.unlink(missing_ok=True)
        sheets.write_if_due(network, seconds)
        if path.exists():
            written.append(seconds)
    assert written == [8040, 16_680, 25_320]  # 50 times 20 passes of 8 s, then of 21
    assert timer.now <= 0.0205 * 30_000
    assert timer.passes == 1 + 3 * 21


def test_a_sheet_is_a_picture_beside_the_output(tmp_path: Path) -> None:
    path = sheet_path(tmp_path / "run.1.safetensors")
    assert path == tmp_path / "run.1.samples.png"
    writer(path, []).write(tiny())
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        assert picture.height == 4 * (CAPTION + 128 + GAP) + GAP
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_sheet_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"p\.samples\.png"):
        writer(tmp_path / "file" / "p.samples.png", []).write(tiny())
