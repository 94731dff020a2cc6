"""A light classifier of pixels: learned in a fraction of a second, from features that stay as they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_genselfdiff.diffusion.frozen import Levels

HIDDEN = 32
"""Width of the hidden layer; answering a view costs in proportion."""
STEPS, BATCH, RATE, DECAY = 200, 384, 1e-2, 1.0
"""Of AdamW. The decay is strong, because the pixels of a stroke are much alike."""
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


def fit_pixels(features: Tensor, classes: Tensor, weight: Tensor, *, count: int) -> PixelClassifier:
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
    """
    mean, spread = features.mean(dim=0), features.std(dim=0, correction=0) + SPREAD
    inputs, width = (features - mean) / spread, features.shape[1]
    generator = torch.Generator().manual_seed(0)
    first = torch.randn((HIDDEN, width), generator=generator) / width**0.5
    second = torch.randn((count, HIDDEN), generator=generator) / HIDDEN**0.5
    first_bias, second_bias = torch.zeros(HIDDEN), torch.zeros(count)
    parameters = [part.requires_grad_() for part in (first, first_bias, second, second_bias)]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY)
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
