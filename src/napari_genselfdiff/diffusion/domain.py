"""Whether slides look like what a pretext was trained on, by its own denoising error on their tissue."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.denoising import BATCH, Calibration, denoising_errors
from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.diffusion.pretraining import load_pretext
from napari_genselfdiff.diffusion.settings import PretrainSettings
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Event, Finished, Progress
from napari_genselfdiff.slides.tiles import sample_tiles

if TYPE_CHECKING:
    from napari_genselfdiff.slides import Slide

SIDECAR = ".denoising.json"
"""Beside weights whose card has no calibration."""
USUAL_MPP = 0.5
"""Resolution of the tiles where the calibration does not say one."""
TILES = 48
FAR = 90.0
"""Percentile among the training tiles from which slides look unlike what the model has seen."""


@dataclass(frozen=True)
class DomainCheck:
    """How slides look to a pretext.

    Attributes
    ----------
    error : float
        Median denoising error of their tissue tiles, see `denoising.denoising_errors`.
    percentile : float
        Share of the training tiles whose error was lower, 0 to 100.
    tiles : int
    slides : int
    """

    error: float
    percentile: float
    tiles: int
    slides: int = 1

    @property
    def far(self) -> bool:
        """Whether the slides look unlike what the model has seen."""
        return self.percentile >= FAR

    @property
    def meaning(self) -> str:
        """The figure, and what it means."""
        which = "this slide looks" if self.slides == 1 else f"these {self.slides} slides look"
        like = "unlike" if self.far else "like"
        return (
            f"denoising error {self.error:.3f}, higher than {self.percentile:.0f} % of the training tiles: "
            f"{which} {like} what the model has seen"
        )


def check_domain(
    slides: Sequence[Slide],
    pretext: str | Path,
    *,
    compute: Compute,
    tiles: int = TILES,
    seed: int = 0,
    cancel: CancelToken | None = None,
) -> Iterator[Event]:
    """Measure how well a pretext denoises the tissue of slides.

    Parameters
    ----------
    slides : sequence of Slide
    pretext : str or Path
        Its weights file.
    compute : Compute
    tiles : int
        Random tiles of tissue, of all slides together.
    seed : int
        Of the choice of tiles; the noise is always the same.
    cancel : CancelToken, optional

    Yields
    ------
    Event
        `Progress`, then `Finished` with a `DomainCheck`, or None when it was cancelled.

    Raises
    ------
    MissingScaleError
        If a slide does not say its resolution.
    UserError
        If a slide has no tissue, or the weights are not a calibrated pretext.
    """
    cancel = cancel or CancelToken()
    network, card = load_pretext(pretext)
    settings, calibration = settings_of(card, pretext), calibration_of(card, pretext)
    sample = sample_tiles(
        slides, mpp=calibration.mpp or USUAL_MPP, side=settings.patch, count=tiles, seed=seed
    )
    errors: list[NDArray[np.float64]] = []
    for first in range(0, len(sample.training), BATCH):
        if cancel.cancelled:
            yield Finished(None, "stopped", cancelled=True)
            return
        yield Progress(first, len(sample.training), "comparing with what the model has seen")
        part = sample.training[first : first + BATCH]
        pixels = [fitted(sample.read(slides, tile), settings.patch) for tile in part]
        errors.append(denoising_errors(network, settings, to_unit_range(np.stack(pixels)), compute))
    error = float(np.median(np.concatenate(errors)))
    check = DomainCheck(error, calibration.percentile(error), len(sample.training), len(slides))
    yield Finished(check, check.meaning)


def settings_of(card: dict[str, Any], path: str | Path) -> PretrainSettings:
    """How a pretext was trained, from its card.

    Raises
    ------
    UserError
        If the card does not say.
    """
    try:
        values = dict(card["settings"])
        return PretrainSettings(**values | {"zoom": tuple(values["zoom"])})
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            "the weights do not say how they were trained", path, "choose weights made by pretrain or adapt"
        ) from error


def calibration_of(card: dict[str, Any], path: str | Path) -> Calibration:
    """The error on the training data, from the card or from the file beside the weights.

    Raises
    ------
    UserError
        If neither says.
    """
    values = card.get("denoising")
    beside = Path(path).with_suffix(SIDECAR)
    try:
        if values is None and beside.is_file():
            values = json.loads(beside.read_text(encoding="utf-8"))
        if values is not None:
            return Calibration.from_dict(values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError("the calibration of the weights is damaged", beside, "export them anew") from error
    raise UserError(
        "the weights do not say how well they denoise what they were trained on",
        path,
        "go on training them with pretrain --resume, or choose the bundled pretext",
    )


def fitted(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The middle of a tile, mirrored where it is smaller, shape (side, side, 3)."""
    missing = [max(0, side - length) for length in pixels.shape[:2]]
    if any(missing):
        grown = [(lack // 2, lack - lack // 2) for lack in missing]
        pixels = np.pad(pixels, (*grown, (0, 0)), mode="symmetric")
    y, x = ((length - side) // 2 for length in pixels.shape[:2])
    return pixels[y : y + side, x : x + side]
