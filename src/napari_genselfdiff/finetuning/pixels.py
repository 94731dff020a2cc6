"""Light classifiers of pixels: learned in a fraction of a second, from features that stay as they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_genselfdiff.diffusion.frozen import Levels

PENALTY = 1e-2
"""Half of it times the squared norm of the weights is added to the mean loss of the logistic regression."""
STEPS = 60
"""Of L-BFGS, at most."""
SPREAD = 1e-3
"""Features that vary less than so much of a standard deviation are not blown up."""


@dataclass(frozen=True)
class PixelClassifier:
    """Class scores of pixels: a linear map of their features, and a hidden layer in between if there is one.

    Attributes
    ----------
    first, first_bias : Tensor, shapes (outputs, features) and (outputs,)
        Of features as they are: what standardises them is part of it.
    second, second_bias : Tensor or None, shapes (classes, outputs) and (classes,)
        What follows the hidden layer.
    """

    first: Tensor
    first_bias: Tensor
    second: Tensor | None = None
    second_bias: Tensor | None = None

    def of(self, features: Tensor) -> Tensor:
        """Logits of pixels ``(n, features)``; shape (n, classes)."""
        scores = features @ self.first.T + self.first_bias
        if self.second is None:
            return scores
        assert self.second_bias is not None
        return F.relu(scores) @ self.second.T + self.second_bias

    def over(self, levels: Levels) -> Tensor:
        """Logits of all pixels of a part; shape (classes, height, width)."""
        scores = levels.mapped(self.first, self.first_bias)
        if self.second is None:
            return scores
        assert self.second_bias is not None
        mixed = torch.einsum("oc,chw->ohw", self.second, F.relu_(scores))
        return mixed + self.second_bias[:, None, None]


def fit_linear(
    features: Tensor, classes: Tensor, weight: Tensor, *, count: int, penalty: float = PENALTY
) -> PixelClassifier:
    """Multinomial logistic regression.

    Parameters
    ----------
    features : Tensor of float32, shape (n, features)
    classes : Tensor of int64, shape (n,)
        0 to ``count - 1``.
    weight : Tensor of float32, shape (n,)
        How much a pixel counts.
    count : int
    penalty : float

    Notes
    -----
    The loss is convex: the answer does not depend on a seed, nor on what was learned before.
    """
    mean, spread = standard(features)
    inputs = (features - mean) / spread
    share = weight / weight.sum()
    linear = torch.zeros((count, features.shape[1] + 1), requires_grad=True)
    optimizer = torch.optim.LBFGS([linear], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = inputs @ linear[:, :-1].T + linear[:, -1]
        value = (F.cross_entropy(logits, classes, reduction="none") * share).sum()
        value = value + penalty * linear[:, :-1].square().sum() / 2
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    first = linear.detach()[:, :-1] / spread
    return PixelClassifier(first, linear.detach()[:, -1] - first @ mean)


def fit_perceptron(
    features: Tensor,
    classes: Tensor,
    weight: Tensor,
    *,
    count: int,
    hidden: int = 32,
    steps: int = 150,
    batch: int = 512,
    rate: float = 1e-2,
    decay: float = 1e-2,
    drop: float = 0.0,
    seed: int = 0,
) -> PixelClassifier:
    """One hidden layer, trained by AdamW."""
    mean, spread = standard(features)
    inputs = (features - mean) / spread
    generator = torch.Generator().manual_seed(seed)
    width = features.shape[1]
    first = (torch.randn((hidden, width), generator=generator) / width**0.5).requires_grad_()
    first_bias = torch.zeros(hidden, requires_grad=True)
    second = (torch.randn((count, hidden), generator=generator) / hidden**0.5).requires_grad_()
    second_bias = torch.zeros(count, requires_grad=True)
    parameters = [first, first_bias, second, second_bias]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    with torch.enable_grad():
        for _ in range(steps):
            chosen = torch.multinomial(weight, min(batch, len(weight)), replacement=True, generator=generator)
            x = inputs[chosen]
            if drop:
                x = x * (torch.rand(x.shape, generator=generator) > drop) / (1 - drop)
            logits = F.relu(x @ first.T + first_bias) @ second.T + second_bias
            loss = F.cross_entropy(logits, classes[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    plain = first.detach() / spread
    return PixelClassifier(plain, first_bias.detach() - plain @ mean, second.detach(), second_bias.detach())


def standard(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature."""
    return features.mean(dim=0), features.std(dim=0, correction=0) + SPREAD
