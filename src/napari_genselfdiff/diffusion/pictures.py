"""Sheets of pictures by which a person judges a pretext: what it makes of noise and of images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from napari_genselfdiff.diffusion.objectives.base import TASK_TIMESTEP, hidden_blocks
from napari_genselfdiff.diffusion.objectives.masked import BLOCK
from napari_genselfdiff.diffusion.sampling import Denoiser, ddim_sample, estimate_x0
from napari_genselfdiff.diffusion.schedules import add_noise, alpha_bars
from napari_genselfdiff.files import atomic_path

Prediction = Literal["epsilon", "x0", "masked"]
"""What a network's output means, see `objectives.OUTPUTS`."""

COLUMNS = 6
DDIM_STEPS = 20
NOISED_AT = (50, 150, 300, 450, 600, 800)
"""Time steps of the noised tile, one a column; the first is that of the downstream task."""
HIDDEN_SHARES = (0.5, 0.75)
"""The least and the most that masked diffusion hides."""
SMALLEST_CELL = 128
"""Smaller tiles are enlarged to at least this many pixels."""
GAP, CAPTION = 4, 20
PAPER, INK = (255, 255, 255), (30, 30, 30)

EVERY_SECONDS = 600.0
LARGEST_SHARE = 0.02
"""Of the time, that may go into drawing."""


@dataclass(frozen=True)
class Row:
    """A row of a sheet.

    Attributes
    ----------
    captions : tuple of str
        One for the row, or one for each of the images.
    images : Tensor, shape (n, 3, height, width)
        In [-1, 1].
    """

    captions: tuple[str, ...]
    images: Tensor


def sample_sheet(
    network: nn.Module,
    tiles: Tensor,
    *,
    schedule: str = "quadratic",
    prediction: Prediction,
    seed: int = 0,
    steps: int = DDIM_STEPS,
) -> NDArray[np.uint8]:
    """A sheet of pictures of what a network has learned.

    Parameters
    ----------
    network : nn.Module
        Predicts ``prediction`` from ``(x, t)``. It is drawn as it is in use (batch normalisation with its
        own statistics), and left in the mode that it came in.
    tiles : Tensor of float32, shape (n, 3, size, size)
        Real images in [-1, 1]; the first six are used. The side is a multiple of the network's stride, and
        of 16 for "masked".
    schedule : str
        The noise schedule that the network was trained with; of no matter for "masked".
    prediction : {"epsilon", "x0", "masked"}
        Both denoisers show samples, and one tile at six noise levels with what the network sees in each.
        "masked" shows tiles with hidden blocks and what the network paints over them.
    seed : int
        Seed of all noise and masks, which take nothing from torch's own random numbers.
    steps : int
        Denoising steps of the samples.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        Rows of images with captions, real tiles on top. Values that are not finite, as of a run that
        diverged, are grey.
    """
    tiles = tiles[:COLUMNS].to(_device(network))
    # The tile that is noised is the first: an empty one would say nothing.
    tiles = tiles[tiles.flatten(1).std(dim=1).argsort(descending=True)]
    with _in_use(network), torch.inference_mode():
        if prediction == "masked":
            rows = _masked_rows(network, tiles, seed)
        else:
            rows = [
                _sample_row(network, tiles, schedule, prediction, seed, steps),
                *_noise_rows(network, tiles[0], schedule, prediction, seed),
            ]
    return _laid_out([Row(("real tiles, that of the most contrast first",), tiles), *rows])


def _device(network: nn.Module) -> torch.device:
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


@contextmanager
def _in_use(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards the mode that each module was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _sample_row(
    network: nn.Module, tiles: Tensor, schedule: str, prediction: Denoiser, seed: int, steps: int
) -> Row:
    images = ddim_sample(
        network,
        count=len(tiles),
        size=tiles.shape[-1],
        steps=steps,
        schedule=schedule,
        prediction=prediction,
        seed=seed,
        device=tiles.device,
    )
    return Row((f"made from noise alone ({steps} DDIM steps)",), images)


def _noise_rows(
    network: nn.Module, tile: Tensor, schedule: str, prediction: Denoiser, seed: int
) -> list[Row]:
    """One tile at several noise levels, and the clean image that the network sees in each."""
    alpha_bar = alpha_bars(schedule).to(tile.device)
    t = torch.tensor(NOISED_AT, device=tile.device)
    # The same noise at all levels: what differs between the columns is its strength alone.
    noise = torch.randn(tile.shape, generator=torch.Generator().manual_seed(seed)).to(tile)
    noisy = add_noise(tile.expand(len(t), -1, -1, -1), noise.expand(len(t), -1, -1, -1), alpha_bar[t])
    noisy = noisy.contiguous(memory_format=torch.channels_last)
    estimate = estimate_x0(network, noisy, t, alpha_bar, prediction)
    signal = [f"t = {step}, signal {alpha_bar[step].item():.0%}" for step in NOISED_AT]
    return [
        Row(tuple(signal), noisy),
        Row(("what the network sees in that first tile, noised as above, in one step",), estimate),
    ]


def _masked_rows(network: nn.Module, tiles: Tensor, seed: int) -> list[Row]:
    """Tiles with hidden blocks, and what the network paints."""
    generator = torch.Generator().manual_seed(seed)
    count, _, height, width = tiles.shape
    t = torch.full((count,), TASK_TIMESTEP, device=tiles.device)
    rows = []
    for share in HIDDEN_SHARES:
        hidden = hidden_blocks(count, height, width, share=share, block=BLOCK, generator=generator).to(tiles)
        visible = (tiles * (1 - hidden)).contiguous(memory_format=torch.channels_last)
        rows.append(Row((f"{share:.0%} of the blocks hidden",), visible))
        rows.append(Row(("what the network paints over the tile above",), network(visible, t).float()))
    return rows


def _laid_out(rows: list[Row]) -> NDArray[np.uint8]:
    """Rows one below the other, each under its captions."""
    side = rows[0].images.shape[-1]
    cell = side * -(-SMALLEST_CELL // side)
    columns = max(len(row.images) for row in rows)
    sheet = Image.new("RGB", (GAP + columns * (cell + GAP), GAP + len(rows) * (CAPTION + cell + GAP)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for index, row in enumerate(rows):
        top = GAP + index * (CAPTION + cell + GAP)
        for column, caption in enumerate(row.captions):
            draw.text((GAP + column * (cell + GAP), top + 2), caption, INK, font)
        for column, image in enumerate(_to_uint8(row.images)):
            # Nearest: a person should see the pixels that the network made.
            picture = Image.fromarray(image).resize((cell, cell), Image.Resampling.NEAREST)
            sheet.paste(picture, (GAP + column * (cell + GAP), top + CAPTION))
    return np.asarray(sheet)


def _to_uint8(images: Tensor) -> NDArray[np.uint8]:
    values = images.nan_to_num(0.0).clamp(-1, 1).add(1).mul(127.5).round()
    array: NDArray[np.uint8] = values.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return array


def sheet_path(output: str | Path) -> Path:
    """Where a run keeps its sheet, beside its output."""
    output = Path(output)
    return output.with_name(f"{output.stem}.samples.png")


@dataclass
class SheetWriter:
    """Draws the sheet of a run now and then, so seldom that training hardly notices.

    Attributes
    ----------
    path : Path
        The PNG file, replaced atomically by every new sheet.
    tiles : callable
        Gives the real tiles; called once, before the first sheet.
    schedule, prediction, seed
        See `sample_sheet`.
    """

    path: Path
    tiles: Callable[[], Tensor]
    schedule: str
    prediction: Prediction
    seed: int = 0
    _tiles: Tensor | None = field(default=None, repr=False)
    _cost: float | None = None
    _drawn: float = 0.0

    def write_if_due(self, network: nn.Module, seconds: float) -> None:
        """Draw where the last sheet is old enough.

        Parameters
        ----------
        network : nn.Module
        seconds : float
            Since the run began. Sheets are at least 10 minutes apart, and 50 times as long as drawing one
            takes.
        """
        if seconds - self._drawn < EVERY_SECONDS:
            return
        if self._cost is None:
            self._cost = self._expected_cost(network)
        if seconds - self._drawn >= self._cost / LARGEST_SHARE:
            self.write(network)
            self._drawn = seconds + self._cost

    def _expected_cost(self, network: nn.Module) -> float:
        """Seconds of a sheet, from those of one pass: a large network on a CPU takes minutes to draw."""
        tiles = self._real().to(_device(network))
        started = time.perf_counter()
        with _in_use(network), torch.inference_mode():
            network(tiles, torch.zeros(len(tiles), dtype=torch.long, device=tiles.device)).cpu()
        return DDIM_STEPS * (time.perf_counter() - started)

    def _real(self) -> Tensor:
        if self._tiles is None:
            self._tiles = self.tiles()
        return self._tiles

    def write(self, network: nn.Module) -> None:
        """Draw now.

        Raises
        ------
        UserError
            If the file cannot be written.
        """
        started = time.perf_counter()
        sheet = sample_sheet(
            network, self._real(), schedule=self.schedule, prediction=self.prediction, seed=self.seed
        )
        with atomic_path(self.path) as temporary:
            Image.fromarray(sheet).save(temporary)
        self._cost = time.perf_counter() - started
