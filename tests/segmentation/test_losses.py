"""Losses against numpy, and what must never count."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_genselfdiff.segmentation.losses import core_loss, focal_loss, structure_similarity_loss

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
CLASS_LOSSES = [structure_similarity_loss, focal_loss]
Array = NDArray[np.float64]


def core(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """The core loss with the arguments of the others."""
    return core_loss(-logits[:, 0], (labels > 0).float(), weight)


LOSSES: list[Loss] = [*CLASS_LOSSES, core]


def softmax(logits: Array) -> Array:
    raised = np.exp(logits - logits.max(axis=0))
    return np.asarray(raised / raised.sum(axis=0))


def structure_by_hand(logits: Array, labels: NDArray[np.int64]) -> float:
    """The formula for one image whose pixels all count, with loops over pixels and classes."""
    p, total, count = softmax(logits), 0.0, 0
    for k in range(len(p)):
        y = (labels == k).astype(float)
        standard_y = (y - y.mean() + 0.01) / (y.std() + 0.01)
        standard_p = (p[k] - p[k].mean() + 0.01) / (p[k].std() + 0.01)
        e = np.abs(standard_y - standard_p)
        for index in np.ndindex(e.shape):
            if e[index] > 0.1 * e.max():
                entropy = -np.log(p[k][index]) if y[index] else -np.log(1 - p[k][index])
                total, count = total + e[index] * entropy, count + 1
    return total / max(count, 1)


def case(seed: int = 0, shape: tuple[int, ...] = (2, 3, 6, 5)) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape, generator=generator)
    labels = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    return logits, labels, torch.ones(labels.shape)


def test_structure_similarity_of_four_pixels_by_hand() -> None:
    # One class: p = 0.8, 0.6 / 0.3, 0.2 where y = 1, 0 / 1, 0.
    p = np.array([[0.8, 0.6], [0.3, 0.2]])
    labels = np.array([[1, 0], [1, 0]])
    logits = np.log(np.stack([1 - p, p]))
    value = structure_similarity_loss(
        torch.from_numpy(logits)[None].float(), torch.from_numpy(labels)[None], torch.ones(1, 2, 2)
    ).item()
    # mu_p = 0.475, sd_p = 0.238485; mu_y = 0.5, sd_y = 0.5. For class 1:
    #   y standardised: +-1 -> 0.51 / 0.51 = 1 and -0.49 / 0.51 = -0.960784
    #   p standardised: 0.335, 0.135 / -0.165, -0.265 over 0.248485
    #     = 1.348172, 0.543292 / -0.664024, -1.066464
    #   e = 0.348172, 1.504077 / 1.664024, 0.105680; 0.1 max e = 0.166402: the last pixel does not count
    class_1 = 0.348172 * -np.log(0.8) + 1.504077 * -np.log(0.4) + 1.664024 * -np.log(0.3)
    # Class 0 is its mirror: 1 - p and 1 - y, with the same cross-entropies.
    #   y: -0.960784, 1 / -0.960784, 1
    #   p: -0.315, -0.115 / 0.185, 0.285 -> -1.267684, -0.462805 / 0.744512, 1.146951
    #   e = 0.306900, 1.462805 / 1.705296, 0.146951; 0.1 max e = 0.170530: the last pixel does not count
    class_0 = 0.306900 * -np.log(0.8) + 1.462805 * -np.log(0.4) + 1.705296 * -np.log(0.3)
    assert value == pytest.approx((class_1 + class_0) / 6, rel=1e-4)
    assert value == pytest.approx(structure_by_hand(logits, labels), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_structure_similarity_equals_the_loops(seed: int) -> None:
    logits, labels, weight = case(seed, (1, 4, 7, 5))
    expected = structure_by_hand(logits[0].double().numpy(), labels[0].numpy())
    assert structure_similarity_loss(logits, labels, weight).item() == pytest.approx(expected, rel=1e-4)


def test_structure_similarity_weighs_each_pixel_by_its_own_error() -> None:
    """A weight that multiplied the mean cross-entropy would treat both pixels alike."""
    p = torch.full((1, 8, 8), 0.05)
    p[0, :, 4:] = 0.95
    labels = (p > 0.5).long()
    p[0, 2, 1], p[0, 5, 1] = 0.7, 0.4  # two wrong pixels, one more than the other
    logits = torch.stack([torch.log(1 - p), torch.log(p)], dim=1).requires_grad_()
    structure_similarity_loss(logits, labels, torch.ones(labels.shape)).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    worse, less = logits.grad[0, 1, 2, 1].item(), logits.grad[0, 1, 5, 1].item()
    # The gradient of the cross-entropy is proportional to p: its ratio alone would be 0.7 / 0.4.
    assert worse / less > 1.3 * (0.7 / 0.4)
    assert logits.grad[0, 1, 0, 0] == 0  # a pixel that is right enough does not count


def test_focal_loss_by_hand() -> None:
    p = np.array([[[0.9, 0.5]], [[0.1, 0.5]]])
    logits = torch.from_numpy(np.log(p))[None].float()
    labels, weight = torch.tensor([[[0, 1]]]), torch.tensor([[[1.0, 3.0]]])
    value = focal_loss(logits, labels, weight).item()
    assert value == pytest.approx((0.01 * -np.log(0.9) + 3 * 0.25 * -np.log(0.5)) / 4, rel=1e-5)


def test_core_loss_by_hand() -> None:
    logits, target = torch.tensor([[[0.0, np.log(3.0)]]]), torch.tensor([[[1.0, 0.0]]])  # p = 1/2, 3/4
    value = core_loss(logits, target, torch.tensor([[[1.0, 3.0]]])).item()
    entropy = -(np.log(0.5) + 3 * np.log(0.25)) / 4
    dice = 2 * 0.5 / (0.5 + 3 * 0.75 + 1)
    assert value == pytest.approx(entropy + 1 - dice)


def test_where_no_core_is_known_to_be_only_the_cross_entropy_counts() -> None:
    logits, target = torch.zeros(1, 1, 4), torch.zeros(1, 1, 4)
    assert core_loss(logits, target, torch.ones(1, 1, 4)).item() == pytest.approx(np.log(2))


@pytest.mark.parametrize("loss", LOSSES)
def test_pixels_without_a_label_never_count(loss: Loss) -> None:
    logits, labels, weight = case()
    weight[:, 2:4, 1:] = 0
    weight[1, 0, 0] = 0.1
    logits.requires_grad_()
    value = loss(logits, labels, weight)
    value.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    empty = weight == 0
    assert (logits.grad.movedim(1, -1)[empty] == 0).all()
    assert (logits.grad.movedim(1, -1)[~empty] != 0).any()

    other_logits, other_labels = logits.detach().clone(), labels.clone()
    other_logits.movedim(1, -1)[empty] = 50 * torch.randn(int(empty.sum()), logits.shape[1])
    other_labels[empty] = (other_labels[empty] + 1) % 3
    assert loss(other_logits, other_labels, weight).item() == value.item()


@pytest.mark.parametrize("loss", LOSSES)
def test_without_any_label_the_loss_is_zero(loss: Loss) -> None:
    logits, labels, weight = case()
    logits.requires_grad_()
    value = loss(logits, labels, 0 * weight)
    value.backward()  # type: ignore[no-untyped-call]
    assert value.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_confident_mistakes_are_finite(loss: Loss, size: float) -> None:
    _, labels, weight = case()
    right = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1) * 2.0 - 1
    logits = (-size * right).requires_grad_()
    value = loss(logits, labels, weight)
    value.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(value)
    assert 0.2 < value < 100
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", CLASS_LOSSES)
def test_a_perfect_prediction_costs_nothing(loss: Loss) -> None:
    _, labels, weight = case()
    right = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1) * 2.0 - 1
    assert loss(100 * right, labels, weight).item() < 1e-6
    assert loss(20 * right, labels, weight).item() < 1e-6


def test_a_perfect_core_costs_nothing() -> None:
    target = torch.tensor([[[0.0, 1.0, 1.0]]])
    assert core_loss(100 * target - 50, target, torch.ones(1, 1, 3)).item() < 1e-6


@pytest.mark.parametrize("loss", LOSSES)
def test_following_the_gradient_lowers_the_loss(loss: Loss) -> None:
    logits, labels, weight = case()
    labels %= 2
    logits = logits.requires_grad_()
    optimizer, values = torch.optim.Adam([logits], lr=0.2), []
    for _ in range(40):
        optimizer.zero_grad()
        value = loss(logits, labels, weight)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.1 * values[0]
