"""A light classifier of pixels: learned in a fraction of a second, from features that stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from napari_genselfdiff.diffusion.frozen import Levels

STEPS, BATCH, RATE = 200, 384, 1e-2
FEW = 4
HIDDEN, DECAY = 16, 20.0
"""Width of the hidden layer, to which the time of an answer is in proportion, and weight decay, for at most
`FEW` classes. AdamW keeps every weight within about 1 / decay (Xie and Li 2024, arXiv 2404.04454), so that no
feature decides alone: the pixels of a few strokes are much alike, and a classifier that is free to choose
learns what tells these strokes apart, not these classes (``docs/benchmarks/circle.md``)."""
HIDDEN_MANY, DECAY_MANY = 32, 1.0
"""The same for more classes, which such small weights do not tell apart."""
DECAY_SAID = 3.0
"""Weight decay for few classes where a model teaches, too, of which there is more to be learned."""
SAID = 2.0
"""Weight of all that a model says, against all that was painted."""
LEARNED = 6_000
"""Pixels that are learned from at once, as many of each class as there are."""
FOLDS = 5
"""Parts of a cross-validation."""
SPREAD = 1e-3
"""Features that hardly vary under the strokes are not blown up."""


@dataclass(frozen=True)
class PixelClassifier:
    """One hidden layer. Its first map is linear in the features, so that `Levels.mapped` does it fast.

    Attributes
    ----------
    first, first_bias : Tensor, shapes (hidden, features) and (hidden,)
        Of features as they are: what standardises them is part of it.
    second, second_bias : Tensor, shapes (classes, hidden) and (classes,)
    """

    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor

    def of(self, features: Tensor) -> Tensor:
        """Logits of pixels ``(n, features)``; shape (n, classes)."""
        return F.relu(features @ self.first.T + self.first_bias) @ self.second.T + self.second_bias

    def over(self, levels: Levels) -> Tensor:
        """Logits of all pixels of a part; shape (classes, height, width)."""
        hidden = F.relu_(levels.mapped(self.first, self.first_bias))
        return F.conv2d(hidden[None], self.second[:, :, None, None], self.second_bias)[0]


def fit_pixels(
    features: Tensor, classes: Tensor, weight: Tensor, *, count: int, said: bool = False
) -> PixelClassifier:
    """Fit a classifier from scratch; the same pixels give the same classifier.

    Parameters
    ----------
    features : Tensor of float32, shape (n, features)
    classes : Tensor of int64, shape (n,)
        0 to ``count - 1``.
    weight : Tensor of float32, shape (n,)
        How often a pixel is looked at, against the others.
    count : int
        Number of classes.
    said : bool
        Whether a model teaches, too.
    """
    mean, spread = features.mean(dim=0), features.std(dim=0, correction=0) + SPREAD
    inputs, width = (features - mean) / spread, features.shape[1]
    few = HIDDEN, DECAY_SAID if said else DECAY
    hidden_width, decay = few if count <= FEW else (HIDDEN_MANY, DECAY_MANY)
    generator = torch.Generator().manual_seed(0)
    first = torch.randn((hidden_width, width), generator=generator) / width**0.5
    second = torch.randn((count, hidden_width), generator=generator) / hidden_width**0.5
    first_bias, second_bias = torch.zeros(hidden_width), torch.zeros(count)
    parameters = [part.requires_grad_() for part in (first, first_bias, second, second_bias)]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    order = torch.multinomial(weight, STEPS * BATCH, replacement=True, generator=generator)
    with torch.enable_grad():
        for chosen in order.view(STEPS, BATCH):
            hidden = F.relu(inputs[chosen] @ first.T + first_bias)
            loss = F.cross_entropy(hidden @ second.T + second_bias, classes[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    plain = first.detach() / spread
    return PixelClassifier(plain, first_bias.detach() - plain @ mean, second.detach(), second_bias.detach())


def fit_classes(
    features: Tensor,
    numbers: NDArray[np.int16],
    weight: NDArray[np.float32],
    said: NDArray[np.bool_] | None = None,
) -> tuple[PixelClassifier, NDArray[np.int16]]:
    """Fit a classifier to the classes that are there; each counts the same, however many pixels it has.

    Parameters
    ----------
    features : Tensor of float32, shape (n, features)
    numbers : ndarray of int16, shape (n,)
        Class of each pixel; two at least are there.
    weight : ndarray of float32, shape (n,)
        How much a pixel counts among those of its class.
    said : ndarray of bool, shape (n,), optional
        Pixels that a model says the class of. Together they count `SAID` times as much as all others, and as
        they are: a rare class is rare there.

    Returns
    -------
    classifier : PixelClassifier
        Its classes are numbered as they come in ``present``.
    present : ndarray of int16
        The classes that are there.
    """
    present, classes = np.unique(numbers, return_inverse=True)
    said = np.zeros(len(numbers), bool) if said is None else said
    of_class = np.bincount(classes, weight * ~said)
    share = weight / np.where(of_class > 0, of_class, 1)[classes]
    total = float(weight[said].sum())
    if total:
        share[said] = weight[said] * (SAID * np.count_nonzero(of_class) / total)
    classifier = fit_pixels(
        features,
        torch.from_numpy(classes.astype(np.int64)),
        torch.from_numpy(share.astype(np.float32)),
        count=len(present),
        said=bool(total),
    )
    return classifier, present


def balanced_choice(classes: NDArray[np.int16]) -> NDArray[np.intp]:
    """At most `LEARNED` pixels, chosen by chance, as many of each class as there are of the others."""
    labels, counts = np.unique(classes, return_counts=True)
    quota: dict[int, int] = {}
    left = LEARNED
    for rank, index in enumerate(np.argsort(counts, kind="stable")):
        quota[int(labels[index])] = min(int(counts[index]), left // (len(labels) - rank))
        left -= quota[int(labels[index])]
    rng = np.random.default_rng(0)
    return np.concatenate([rng.permutation(np.flatnonzero(classes == k))[:n] for k, n in quota.items()])


def cross_fitted(
    features: Tensor,
    numbers: NDArray[np.int16],
    groups: NDArray[np.intp],
    teaches: NDArray[np.bool_] | None = None,
) -> NDArray[np.int16]:
    """What classifiers say of pixels, each of which has learned from other groups alone.

    Parameters
    ----------
    features : Tensor of float32, shape (n, features)
    numbers : ndarray of int16, shape (n,)
        Class of each pixel.
    groups : ndarray of int, shape (n,)
        0 to m - 1; pixels of one group are never told by one another.
    teaches : ndarray of bool, shape (n,), optional
        Pixels that are learned from; all, by default.

    Returns
    -------
    ndarray of int16, shape (n,)
        Class; -1 where the others hold fewer than two classes, or nothing of the pixel's own class.
    """
    fold = np.random.default_rng(0).permutation(int(groups.max(initial=-1)) + 1)[groups] % FOLDS
    said = np.full(len(numbers), -1, np.int16)
    for one in range(FOLDS):
        learned = np.flatnonzero((fold != one) & (True if teaches is None else teaches))
        asked = np.flatnonzero((fold == one) & np.isin(numbers, numbers[learned]))
        if not len(asked) or len(np.unique(numbers[learned])) < 2:
            continue
        chosen = learned[balanced_choice(numbers[learned])]
        classifier, present = fit_classes(
            features[torch.from_numpy(chosen)], numbers[chosen], np.ones(len(chosen), np.float32)
        )
        with torch.inference_mode():
            said[asked] = present[classifier.of(features[torch.from_numpy(asked)]).argmax(dim=1).numpy()]
    return said


def agreement(said: NDArray[np.integer], drawn: NDArray[np.integer]) -> float:
    """How far what is said agrees with what was drawn, of the classes that were drawn.

    Parameters
    ----------
    said, drawn : ndarray of int, shape (n,)
        Classes of the same pixels; one at least.

    Returns
    -------
    float
        Mean recall of the classes, with 0 for chance and 1 for all: Youden's J for two classes (Youden 1950),
        informedness for more (Powers 2011). The plain recall where one class was drawn.
    """
    classes = np.unique(drawn)
    recall = float(np.mean([(said[drawn == one] == one).mean() for one in classes]))
    count = len(classes)
    return recall if count == 1 else (count * recall - 1) / (count - 1)


def what_is_missing(present: NDArray[np.integer], classes: Sequence[str]) -> str:
    """What to paint before anything can be learned, where fewer than two classes were.

    Parameters
    ----------
    present : ndarray of int
        Numbers of the classes that were painted.
    classes : sequence of str
        Names, the background first.
    """
    if not len(present):
        return "paint a little of two classes (or of one, and some background)"
    if present[0] == 0:
        return "paint some of a class, too: only background was painted yet"
    name = classes[present[0]] if present[0] < len(classes) else f"class {present[0]}"
    return f"paint a second class, or some background: only {name} was painted yet"
