"""Train a segmenter on a folder of labelled images."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.config import COMPACT, UNetConfig
from napari_genselfdiff.diffusion.pretraining import load_pretext
from napari_genselfdiff.errors import MissingScaleError, UserError
from napari_genselfdiff.events import CancelToken, Clock, Event, Finished, Progress
from napari_genselfdiff.exchange.pairs import LabelledImage, Pair, find_pairs, load_pair, load_pairs
from napari_genselfdiff.finetuning.datasets import choose_resolution, object_areas, separated, to_example
from napari_genselfdiff.finetuning.examples import HELD_OUT_SHARE, Example, split_examples
from napari_genselfdiff.finetuning.loop import FineTuneResult, FineTuneSettings, fine_tune
from napari_genselfdiff.models import library
from napari_genselfdiff.models.weights import read_card
from napari_genselfdiff.segmentation.instances import core_target
from napari_genselfdiff.segmentation.network import (
    BACKGROUND,
    MAX_CLASSES,
    Segmenter,
    SegmenterSpec,
    build_segmenter,
    load_segmenter,
    save_segmenter,
)
from napari_genselfdiff.verbs.inputs import check_mpp, check_writable, resolution_of

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_SECONDS = 300.0
SCRATCH = "scratch"
STOPPED = "stopped; nothing was written"
SAMPLE = 50
"""Images from which the model's resolution is chosen."""
CONTINUED_LEARNING_RATE = 5e-4
"""Of a model that has an output layer already."""


@dataclass(frozen=True)
class Trained:
    """What came of it.

    Attributes
    ----------
    path : Path
    before, after : float or None
        Dice on what was held out, of the model that it began with and of the new one.
    held_out : int
        Number of held-out images, or of images of which regions were held out.
    whole_images : bool
        Whether whole images were held out.
    steps : int
    seconds : float
    """

    path: Path
    before: float | None
    after: float | None
    held_out: int
    whole_images: bool
    steps: int
    seconds: float


@dataclass(frozen=True)
class _Base:
    """What training starts from; ``segmenter`` is None unless it has an output layer."""

    name: str
    config: UNetConfig
    weights: dict[str, Tensor] | None = None
    segmenter: Segmenter | None = None


def finetune(
    images: Path,
    labels: Path,
    output: Path,
    *,
    compute: Compute,
    base: str = library.DEFAULT_PRETEXT,
    seconds: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    mpp: float | None = None,
    target_mpp: float | None = None,
    instances: bool = False,
    loss: str = "dice",
    command: str = "",
    cancel: CancelToken | None = None,
) -> Iterator[Event]:
    """Train a segmenter and write it.

    Parameters
    ----------
    images, labels : Path
        Folders, see `find_pairs`.
    output : Path
        The weights file to write.
    compute : Compute
    base : str
        ``pretext``, ``scratch``, or the name or file of a pretext or a segmenter. A segmenter whose classes
        are as many goes on with all it knows; of another one the output layer is made anew.
    seconds, steps : float, int, optional
        When to stop; whichever comes first. 300 s by default, scoring included.
    seed : int
    mpp : float, optional
        Micrometres per pixel of the images, in place of what the files say.
    target_mpp : float, optional
        Resolution that the model shall work at; the base's, or by the size of the objects, by default.
    instances : bool
        Whether labels are ids of objects. Binary masks are split at necks.
    loss : str
        Name of the loss, see `losses.LOSSES`.
    command : str
        What was typed, for the model card.
    cancel : CancelToken, optional
        Nothing is written then.

    Yields
    ------
    Event
        `Progress` and `LossPoint`, then `Finished` with a `Trained`, or None when it was cancelled.

    Raises
    ------
    UserError
        If the data, the base or the output is not good.
    """
    cancel = cancel or CancelToken()
    check_mpp(mpp, "--mpp")
    check_mpp(target_mpp, "--target-mpp")
    check_writable(output)
    pairs = find_pairs(images, labels)
    start = _load_base(base)
    resolutions = [resolution_of(pair.image, mpp) for pair in pairs]
    work_mpp, downsample = _resolution(pairs, resolutions, start, target_mpp, instances)
    examples: list[Example] = []
    areas: list[float] = []
    classes, clock = 0, Clock()
    for index, (pair, known) in enumerate(zip(pairs, resolutions, strict=True)):
        if cancel.cancelled:
            yield Finished(None, STOPPED, cancelled=True)
            return
        yield Progress(index, len(pairs), "reading the images", clock.left(index, len(pairs)))
        image = load_pair(pair, instances=instances)
        scale = downsample if work_mpp is None or known is None else work_mpp / known
        examples.append(to_example(image, scale=scale, instances=instances))
        areas += object_areas(image, scale=scale).tolist() if instances else []
        classes = max(classes, 2 if instances else _highest(image) + 1)
    if classes > MAX_CLASSES:
        raise UserError(
            f"the labels hold numbers up to {classes - 1}, and a model has at most {MAX_CLASSES - 1} classes",
            labels,
            "give --instances if they number objects",
        )
    old = start.segmenter.spec if start.segmenter else None
    if old is not None and old.instances and len(old.classes) == classes == 2 and not instances:
        # A model that separates objects goes on doing so, whatever mask it learns from.
        instances = True
        examples = [replace(e, core=core_target(separated(e.labels))) for e in examples]
    spec = SegmenterSpec(
        start.config,
        _names(classes, old, instances),
        work_mpp,
        instances,
        downsample=downsample,
        object_area=statistics.median(areas) if areas else getattr(old, "object_area", None),
    )
    segmenter, continued = _model(spec, start, seed)
    training, held_out = split_examples(examples)
    settings = FineTuneSettings(seed=seed, loss=loss)
    if continued:
        settings = replace(settings, learning_rate=CONTINUED_LEARNING_RATE, fixed_statistics=True)
    for event in fine_tune(
        segmenter,
        training,
        held_out,
        compute=compute,
        settings=settings,
        seconds=DEFAULT_SECONDS if seconds is None and steps is None else seconds,
        steps=steps,
        score_before=continued,
        cancel=cancel,
    ):
        if not isinstance(event, Finished):
            yield event
            continue
        if event.cancelled:
            yield Finished(None, STOPPED, cancelled=True)
            return
        result = event.result
        assert isinstance(result, FineTuneResult)
        whole = len(examples) >= HELD_OUT_SHARE
        names = sorted(example.name for example in held_out if example.weight.any())
        known_mpp = [value for value in resolutions if value is not None]
        save_segmenter(
            result.segmenter,
            output,
            base=start.name,
            data={"images": str(images), "labels": str(labels), "count": len(pairs)},
            mpp_range=[min(known_mpp), max(known_mpp)] if known_mpp else None,
            split={"held_out": names, "kind": "images" if whole else "a fifth of each image"},
            command=command,
            steps=result.steps,
            seconds=round(result.seconds, 1),
            seed=seed,
            loss=loss,
            scores={"dice_before": result.before, "dice": result.after},
        )
        trained = Trained(
            output, result.before, result.after, len(names), whole, result.steps, result.seconds
        )
        yield Finished(trained, event.message)


def _load_base(base: str) -> _Base:
    if base == SCRATCH:
        return _Base(SCRATCH, COMPACT)
    path = library.resolve(base)
    if read_card(path).get("kind") == "pretext":
        network, _ = load_pretext(path)
        return _Base(path.stem, network.config, network.state_dict())
    segmenter = load_segmenter(path)
    return _Base(path.stem, segmenter.spec.config, segmenter.unet.state_dict(), segmenter)


def _resolution(
    pairs: Sequence[Pair],
    resolutions: Sequence[float | None],
    start: _Base,
    target_mpp: float | None,
    instances: bool,
) -> tuple[float | None, float]:
    """Micrometres per pixel of the model, or None and image pixels a model pixel."""
    known = [value for value in resolutions if value is not None]
    unknown = [pair.image for pair, value in zip(pairs, resolutions, strict=True) if value is None]
    spec = start.segmenter.spec if start.segmenter else None
    if spec is not None and spec.mpp is None and target_mpp is None:
        return None, spec.downsample
    fixed = target_mpp or (spec.mpp if spec else None)
    if unknown and (fixed is not None or known):
        raise MissingScaleError(unknown[0])
    if fixed is not None:
        return fixed, 1.0
    sample = _sample(pairs, instances)
    return choose_resolution(sample, mpp=statistics.median(known) if known else None, instances=instances)


def _sample(pairs: Sequence[Pair], instances: bool) -> list[LabelledImage]:
    """Some images with objects, spread over the set; few are read unless most have none."""
    found: list[LabelledImage] = []
    for pair in sorted(pairs, key=lambda pair: hashlib.sha256(pair.name.encode()).digest()):
        image = load_pair(pair, instances=instances)
        if _highest(image) > 0:
            found.append(image)
        if len(found) == SAMPLE:
            break
    # Where there is none, this says what the labels hold instead.
    return found or load_pairs(pairs[:SAMPLE], instances=instances)


def _names(classes: int, old: SegmenterSpec | None, instances: bool) -> tuple[str, ...]:
    if old is not None and len(old.classes) == classes:
        return old.classes
    if instances:
        return BACKGROUND, "object"
    return (BACKGROUND, *(f"class-{index}" for index in range(1, max(classes, 2))))


def _model(spec: SegmenterSpec, start: _Base, seed: int) -> tuple[Segmenter, bool]:
    """The network to train, and whether it knows the task already."""
    base = start.segmenter
    if base is None or (base.spec.classes, base.spec.instances) != (spec.classes, spec.instances):
        return build_segmenter(spec, start=start.weights, seed=seed), False
    segmenter = Segmenter(replace(spec, timestep=base.spec.timestep), base.card)
    segmenter.load_state_dict(base.state_dict())
    return segmenter, True


def _highest(image: LabelledImage) -> int:
    return int(np.max(image.labels, where=image.valid, initial=0))


__all__ = ["DEFAULT_SECONDS", "Trained", "finetune"]
