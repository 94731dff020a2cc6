"""Go on with a pretext on unlabelled tissue of new slides; what came of it is kept only when it is better."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.denoising import Calibration, denoising_errors
from napari_genselfdiff.diffusion.domain import USUAL_MPP, fitted, settings_of
from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.diffusion.pictures import sheet_path
from napari_genselfdiff.diffusion.pretraining import checkpoint_path, load_pretext, pretrain
from napari_genselfdiff.diffusion.settings import PretrainSettings
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Clock, Event, Finished, Progress
from napari_genselfdiff.models.weights import read_card, save_weights, sha256_of
from napari_genselfdiff.slides.tiles import TileSample, sample_tiles

if TYPE_CHECKING:
    from napari_genselfdiff.slides import Slide

SECONDS = 300.0
TILES, HELD_OUT = 160, 48
HEADS_FIRST = 30
"""Steps in which an objective's heads, which no weights file keeps, are learned anew."""
WARM_UP = 50
FINEST_MPP = 0.25
"""Micrometres per pixel of the images of a pretext whose card does not say: a 40x scan."""
LABEL_NOISE = 0.01
"""Differences of Dice below this are taken for chance; an assumption, not measured."""
DRAWS = 2000
STOPPED = "stopped and saved, go on with --resume"

FewLabelCheck = Callable[[dict[str, Tensor], dict[str, Tensor]], tuple[float, float]]
"""``(old weights, new weights) -> (before, after)``: a score, such as Dice, of short fine-tunes on few labels
that begin with either."""


@dataclass(frozen=True)
class Adaptation:
    """What came of it.

    Attributes
    ----------
    path : Path or None
        The weights; None when they were not kept.
    before, after : float
        Mean denoising error of held-out tiles of the cohort, of the base and of the adapted pretext.
    change : tuple of float
        95 % interval of ``after - before``, bootstrapped over the tiles.
    labels : tuple of float or None
        What the few-label check said before and after; None when there was none.
    steps : int
    seconds : float
        Of training, resumed parts included.
    message : str
        The verdict in plain words.
    """

    path: Path | None
    before: float
    after: float
    change: tuple[float, float]
    labels: tuple[float, float] | None
    steps: int
    seconds: float
    message: str

    @property
    def kept(self) -> bool:
        """Whether the adapted weights were written."""
        return self.path is not None


def adapt(
    slides: Sequence[Slide],
    base: str | Path,
    output: str | Path,
    *,
    compute: Compute,
    seconds: float | None = SECONDS,
    steps: int | None = None,
    seed: int = 0,
    resume: bool = False,
    tiles: int = TILES,
    few_label_check: FewLabelCheck | None = None,
    card: dict[str, Any] | None = None,
    cancel: CancelToken | None = None,
) -> Iterator[Event]:
    """Continue a pretext on unlabelled tissue tiles of slides.

    Parameters
    ----------
    slides : sequence of Slide
        The cohort; all with a resolution.
    base : str or Path
        Weights file of the pretext.
    output : str or Path
        Weights file to write, if the gate lets it pass. The checkpoint of the run lies beside it, see
        `working_path`.
    compute : Compute
    seconds, steps : float, int, optional
        When training stops, counted over all resumed parts; whichever comes first.
    seed : int
        Of the choice of tiles and of the training.
    resume : bool
        Go on from the checkpoint of the same cohort and base.
    tiles : int
        Tiles of tissue to learn from.
    few_label_check : FewLabelCheck, optional
        The second half of the gate; without it the verdict says that this was not checked.
    card : dict, optional
        Further entries of the card.
    cancel : CancelToken, optional
        Honoured within a step; what was learned stays in the checkpoint.

    Yields
    ------
    Event
        `Progress` and `LossPoint`, then `Finished` with an `Adaptation`, or None when it was cancelled.

    Raises
    ------
    MissingScaleError
        If a slide does not say its resolution.
    UserError
        If the base is not a pretext, there is too little tissue, or the checkpoint does not fit.
    """
    cancel, output = cancel or CancelToken(), Path(output)
    network, parent = load_pretext(base)
    settings, finest = _settings(settings_of(parent, base), parent, seed)
    reach = settings.zoom[1]
    yield Progress(0, 0, "looking for tissue")
    sample = sample_tiles(
        slides, mpp=finest, side=round(settings.patch * reach), count=tiles, held_out=HELD_OUT, seed=seed
    )
    cohort = {
        "slides": sorted(sample.fingerprints),
        "mpp": finest,
        "tiles": len(sample.training),
        "held_out_tiles": len(sample.held_out),
        "regions": list(sample.cells),
    }
    ancestry = {"parent": Path(base).stem, "parent_sha256": sha256_of(base), "cohort": cohort}
    work = working_path(output)
    if resume:
        _check_resumed(work, ancestry)
    pixels = yield from _reading(slides, sample, cancel)
    if cancel.cancelled:
        yield Finished(None, "stopped; nothing was written", cancelled=True)
        return
    training, held_out = pixels[: len(sample.training)], pixels[len(sample.training) :]
    ratio = USUAL_MPP / finest

    def errors(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        patches = np.stack([_at_usual_mpp(image, ratio, settings.patch) for image in images])
        return denoising_errors(network, settings, to_unit_range(patches), compute)

    yield Progress(0, 0, "measuring the denoising error before")
    before = errors(held_out)
    old = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for event in pretrain(
        training,
        work,
        config=network.config,
        compute=compute,
        settings=settings,
        seconds=seconds,
        steps=steps,
        resume=resume,
        start=old,
        heads_first=HEADS_FIRST,
        card=dict(card or {}) | _inherited(parent) | ancestry,
        cancel=cancel,
    ):
        if not isinstance(event, Finished):
            yield replace(event, message="adapting") if isinstance(event, Progress) else event
        elif event.cancelled:
            yield Finished(None, STOPPED, cancelled=True)
            return
    yield Progress(0, 0, "measuring the denoising error after")
    adapted, entries = load_pretext(work)
    network.load_state_dict(adapted.state_dict())
    after = errors(held_out)
    labels = None
    if few_label_check is not None and after.mean() < before.mean():
        yield Progress(0, 0, "fine-tuning on few labels, before and after")
        labels = few_label_check(old, adapted.state_dict())
    if cancel.cancelled:  # a check that was stopped says nothing
        yield Finished(None, STOPPED, cancelled=True)
        return
    change = _interval(after - before)
    kept, message = judge_adaptation(float(before.mean()), float(after.mean()), change, labels)
    if kept:
        entries |= {
            "name": output.stem,
            "denoising": Calibration.of(errors(training), mpp=USUAL_MPP).to_dict(),
            "adaptation": {
                "denoising_before": round(float(before.mean()), 5),
                "denoising_after": round(float(after.mean()), 5),
                "change_95": [round(value, 5) for value in change],
                "few_labels": labels,
            },
        }
        save_weights(output, adapted.state_dict(), entries, half=True)
    for path in (work, sheet_path(work)):
        path.unlink(missing_ok=True)
    done = Adaptation(
        output if kept else None,
        float(before.mean()),
        float(after.mean()),
        change,
        labels,
        entries["steps"],
        entries["seconds"],
        message,
    )
    yield Finished(done, message)


def working_path(output: str | Path) -> Path:
    """Where weights lie until the gate has seen them; the checkpoint's name is made of it."""
    output = Path(output)
    return output.with_name(f"{output.stem}.adapting{output.suffix}")


def judge_adaptation(
    before: float, after: float, change: tuple[float, float], labels: tuple[float, float] | None
) -> tuple[bool, str]:
    """Whether adapted weights are kept, and the answer in plain words.

    Parameters
    ----------
    before, after : float
        Denoising error on held-out tiles.
    change : tuple of float
        Interval of the difference.
    labels : tuple of float or None
        Scores of few-label fine-tunes before and after.
    """
    scores = f"denoising error {before:.3f} -> {after:.3f} on tissue of the cohort that it did not see"
    if change[1] >= 0:
        return False, f"not kept: {scores}, which is not surely lower; the pretext stays as it was"
    if labels is None:
        return True, f"kept: {scores}; whether few-label fine-tunes gain was not checked: it needs labels"
    if not np.isfinite(labels).all():
        return False, f"not kept: {scores}, but no short fine-tune gave a score; the pretext stays as it was"
    dice = f"Dice {labels[0]:.3f} -> {labels[1]:.3f} after short fine-tunes on few labels"
    if labels[1] < labels[0] - LABEL_NOISE:
        return False, f"not kept: {scores}, but {dice}; the pretext stays as it was"
    return True, f"kept: {scores}; {dice}"


def _settings(own: PretrainSettings, card: dict[str, Any], seed: int) -> tuple[PretrainSettings, float]:
    """The base's settings for tiles at the finest resolution that it was trained at, and that resolution."""
    cohort, known = card.get("cohort"), card.get("mpp_range")
    image_mpp = cohort["mpp"] if cohort else known[0] if known else FINEST_MPP
    low, high = own.zoom
    settings = replace(own, zoom=(1.0, high / low), warmup=min(own.warmup, WARM_UP), seed=seed)
    return settings, image_mpp * low


def _inherited(parent: dict[str, Any]) -> dict[str, Any]:
    """What a card of adapted weights says of where the base came from."""
    names = ("data", "data_licence", "licence", "use")
    return {name: parent[name] for name in names if name in parent}


def _check_resumed(work: Path, ancestry: dict[str, Any]) -> None:
    path = checkpoint_path(work)
    saved = read_card(path)
    if saved.get("cohort") != ancestry["cohort"]:
        raise UserError(
            "the checkpoint is of other slides or another seed", path, "start anew without --resume"
        )
    if saved.get("parent_sha256") != ancestry["parent_sha256"]:
        raise UserError("the checkpoint is of another base", path, f"use --base {saved.get('parent')}")


def _reading(
    slides: Sequence[Slide], sample: TileSample, cancel: CancelToken
) -> Generator[Event, None, list[NDArray[np.uint8]]]:
    """Read all tiles; returns them, those to learn from first."""
    clock = Clock()
    pixels: list[NDArray[np.uint8]] = []
    places = [*sample.training, *sample.held_out]
    for index, tile in enumerate(places):
        if cancel.cancelled:
            break
        yield Progress(index, len(places), "reading tissue", clock.left(index, len(places)))
        pixels.append(sample.read(slides, tile))
    return pixels


def _at_usual_mpp(tile: NDArray[np.uint8], ratio: float, side: int) -> NDArray[np.uint8]:
    height, width = (max(1, round(length / ratio)) for length in tile.shape[:2])
    image = Image.fromarray(tile).resize((width, height), Image.Resampling.BILINEAR)
    return fitted(np.asarray(image), side)


def _interval(differences: NDArray[np.float64]) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    means = rng.choice(differences, (DRAWS, len(differences))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
