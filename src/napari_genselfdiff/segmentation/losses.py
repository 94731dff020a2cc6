"""Losses of the segmenter. Pixels of weight 0 (not labelled) count in none of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

STABILITY = 0.01
HARD_SHARE = 0.1
LOG_FLOOR = -16.0
FOCUS = 2.0


def structure_similarity_loss(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy of the pixels whose local structure is wrong, weighted by how wrong it is.

    Parameters
    ----------
    logits : Tensor, shape (n, classes, height, width)
    labels : Tensor of int64, shape (n, height, width)
        Class of each pixel; any valid class where ``weight`` is 0.
    weight : Tensor, shape (n, height, width)
        0 for pixels that are not labelled, else how much they count.

    Notes
    -----
    After Zhao et al. 2019 (arXiv 1910.08711). Per image and class, over the labelled pixels,
    ``e = | (y - mu_y + C)/(sd_y + C) - (p - mu_p + C)/(sd_p + C) |`` with C = 0.01; a pixel with
    ``e > 0.1 max(e)`` weighs its own cross-entropy by ``e``; others do not count. The weight is a constant
    for the gradient, and the logarithms are clamped.
    """
    log_p = F.log_softmax(logits, dim=1).clamp(min=LOG_FLOOR)
    p = log_p.exp()
    y = F.one_hot(labels, logits.shape[1]).movedim(-1, 1).to(p)
    w = weight[:, None]
    with torch.no_grad():
        error = (_standardised(y, w) - _standardised(p, w)).abs() * (w > 0)
        hard = error > HARD_SHARE * error.amax(dim=(2, 3), keepdim=True)
        importance = error * hard * w
    log_not_p = torch.log1p(-p.clamp(max=1 - 1e-6)).clamp(min=LOG_FLOOR)
    cross_entropy = -(y * log_p + (1 - y) * log_not_p)
    return (importance * cross_entropy).sum() / (hard * w).sum().clamp(min=1)


def focal_loss(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Focal loss ``-(1 - p)^2 log p`` of the true class (Lin et al. 2017, arXiv 1708.02002).

    Parameters are those of `structure_similarity_loss`.
    """
    log_p = F.log_softmax(logits, dim=1).gather(1, labels[:, None])[:, 0].clamp(min=LOG_FLOOR)
    loss = -((1 - log_p.exp()) ** FOCUS) * log_p
    return (loss * weight).sum() / weight.sum().clamp(min=1)


def dice_loss(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """One minus the soft Dice of the foreground classes, over the batch (Milletari et al. 2016).

    Classes that are in no label of the batch are left out; without any foreground the loss is 0.
    Parameters are those of `structure_similarity_loss`.
    """
    p = logits.softmax(dim=1)[:, 1:]
    y = F.one_hot(labels, logits.shape[1]).movedim(-1, 1)[:, 1:].to(p)
    w = weight[:, None]
    true = (y * w).sum(dim=(0, 2, 3))
    overlap = (p * y * w).sum(dim=(0, 2, 3))
    dice = 2 * overlap / ((p * w).sum(dim=(0, 2, 3)) + true).clamp(min=1)
    present = (true > 0).to(p)
    return ((1 - dice) * present).sum() / present.sum().clamp(min=1)


def cross_entropy_loss(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy of the labelled pixels; parameters are those of `structure_similarity_loss`."""
    loss = F.cross_entropy(logits, labels, reduction="none")
    return (loss * weight).sum() / weight.sum().clamp(min=1)


LOSSES: dict[str, tuple[Loss, ...]] = {
    "paper": (structure_similarity_loss, focal_loss),
    "dice": (cross_entropy_loss, dice_loss),
}
"""Sums of losses by name; ``paper`` is that of arXiv 2309.01487."""


def core_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Binary cross-entropy and one minus the soft Dice of the cores, over the batch.

    Without any core the Dice term is 0. A pixel's logarithm is clamped, as in the losses of the classes.

    Parameters
    ----------
    logits : Tensor, shape (n, height, width)
        Output of the core head, before the sigmoid.
    target : Tensor, shape (n, height, width)
        1 in cores, 0 elsewhere; any value where ``weight`` is 0.
    weight : Tensor, shape (n, height, width)
    """
    target = target.clamp(0, 1)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").clamp(max=-LOG_FLOOR)
    p, true = torch.sigmoid(logits), (target * weight).sum()
    dice = 2 * (p * target * weight).sum() / ((p * weight).sum() + true).clamp(min=1)
    return (entropy * weight).sum() / weight.sum().clamp(min=1) + (1 - dice) * (true > 0)


def _standardised(values: Tensor, weight: Tensor) -> Tensor:
    total = weight.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    mean = (values * weight).sum(dim=(2, 3), keepdim=True) / total
    variance = ((values - mean).square() * weight).sum(dim=(2, 3), keepdim=True) / total
    return (values - mean + STABILITY) / (variance.sqrt() + STABILITY)
