"""A young model has a second teacher: the first gear, which learns from the same strokes.

A network that is fine-tuned from a few strokes knows little of what lies beside them, and neither does the
model in use, which is as young. The light classifier on the features that training starts with knows more,
because its weights are kept small. Its answer is mixed with what a model says there (`earlier`) and counts as
that does: a little, where nothing was drawn, by how sure it is. What was drawn lies where a model was wrong
and is one-sided, the more so the more there is; so the first gear counts less then, and less still where an
earlier model teaches (``docs/benchmarks/circle.md``).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.frozen import Levels
from napari_genselfdiff.events import CancelToken, Event
from napari_genselfdiff.finetuning.corrections import Place
from napari_genselfdiff.finetuning.looking import looked_at
from napari_genselfdiff.finetuning.pixels import balanced_choice, fit_classes
from napari_genselfdiff.finetuning.preparation import Cut
from napari_genselfdiff.segmentation.network import Segmenter

MOST_PIXELS = 1_000_000
"""Model pixels that it looks at, which takes a few seconds; of more, some places are left as they are."""
TRUST = 2_000
"""Pixels: when so many were drawn, it counts as much as the model in use."""


def trust(pixels: int, *, fresh: bool) -> float:
    """Share of the first gear in what is taught where nothing was drawn; the rest is the model's.

    Its square where that is an earlier model (see `earlier`).

    Parameters
    ----------
    pixels : int
        That were drawn and are trained on.
    fresh : bool
        There is no model in use that could say anything.
    """
    return 1.0 if fresh else TRUST / (TRUST + pixels)


def taught(
    cut: Cut, start: Segmenter, *, compute: Compute, fresh: bool, cancel: CancelToken
) -> Generator[Event, None, Cut]:
    """Let the first gear say, too, what nobody drew.

    Parameters
    ----------
    cut : Cut
    start : Segmenter
        What training starts from; it gives the features.
    compute : Compute
    fresh : bool
        There is no model in use.
    cancel : CancelToken

    Yields
    ------
    Event
        `Progress`.

    Returns
    -------
    Cut
        As it was where the first gear has nothing to say: where fewer than two classes were drawn, memory is
        short, or the network has to see whole tiles.
    """
    seen, trained = _some(cut.places), cut.trained
    drawn = {number: np.nonzero(trained[number]) for number in seen}
    labels = [cut.places[number].labels[drawn[number]].astype(np.int16) for number in seen]
    classes = np.concatenate([np.zeros(0, np.int16), *labels])
    if not start.spec.config.tile_independent or len(np.unique(classes)) < 2:
        return cut
    parts = [cut.places[number].rgb for number in seen]
    found = yield from looked_at(
        parts, start, _kept, "looking around your corrections", compute=compute, cancel=cancel
    )
    if found is None:
        return cut
    levels = dict(zip(seen, found, strict=True))
    features, numbers = _described(levels, drawn, labels)
    classifier, present = fit_classes(features, numbers, np.ones(len(numbers), np.float32))
    share = np.float32(trust(sum(int(mask.sum()) for mask in trained), fresh=fresh))
    places = list(cut.places)
    for number in seen:
        place = places[number]
        height, width = place.drawn.shape
        said = np.zeros((len(start.spec.classes), height, width), np.float32)
        with torch.inference_mode():
            said[present] = classifier.over(levels[number])[:, :height, :width].softmax(dim=0).numpy()
        # Of a class of which it has seen nothing, only the model in use can say that it is there.
        heard = fresh | np.isin(place.labels, present)
        here = np.full(heard.shape, share)
        if place.earlier is not None:
            here[place.earlier] = share**2
        places[number] = _mixed(place, said, np.where(heard, here, np.float32(0)))
    return replace(cut, places=places)


def _described(
    levels: dict[int, Levels], drawn: dict[int, tuple[NDArray[np.intp], ...]], labels: list[NDArray[np.int16]]
) -> tuple[Tensor, NDArray[np.int16]]:
    """Features and classes of some of the drawn pixels of places, as many of each class."""
    classes, first = np.concatenate(labels), 0
    chosen = balanced_choice(classes)
    features, known = list[Tensor](), list[NDArray[np.int16]]()
    for number, part in zip(levels, labels, strict=True):
        mine = chosen[(chosen >= first) & (chosen < first + len(part))]
        at = np.stack([axis[mine - first] for axis in drawn[number]])
        features.append(levels[number].at(*torch.from_numpy(at)))
        known.append(classes[mine])
        first += len(part)
    return torch.cat(features), np.concatenate(known)


def _some(places: list[Place]) -> list[int]:
    """Places that are looked at, the same ones each time."""
    chosen, left = [], MOST_PIXELS
    for number in np.random.default_rng(0).permutation(len(places)).tolist():
        if places[number].drawn.size <= left:
            chosen.append(number)
            left -= places[number].drawn.size
    return sorted(chosen)


def _kept(_number: int, levels: Levels) -> Levels:
    """Features of a place, in the computer's memory."""
    return Levels(tuple(level.cpu() for level in levels.maps), levels.strides)


def _mixed(place: Place, said: NDArray[np.float32], share: NDArray[np.float32]) -> Place:
    """A place with what the first gear says where nothing was drawn, beside what the model in use does.

    ``said`` has the shape (classes, height, width), ``share`` (height, width).
    """
    others = np.float32(1 / (len(said) - 1))
    model = np.repeat(((1 - place.sure) / 2 * others)[None], len(said), axis=0)
    np.put_along_axis(model, place.labels[None].astype(np.intp), (1 + place.sure)[None] / 2, axis=0)
    mixed = share * said + (1 - share) * model
    labels = np.where(place.free, mixed.argmax(axis=0), place.labels).astype(np.uint8)
    sure = np.where(place.free, (2 * mixed.max(axis=0) - 1).clip(min=0), np.float32(0))
    core = place.core
    if core is not None:
        # Which objects there are, only a model with cores can say.
        core = np.where(place.drawn | ((labels == place.labels) & (place.sure > 0)), core, np.float32(-1))
    return replace(place, labels=labels, sure=sure.astype(np.float32), core=core)
