"""Statistics of batch normalisation are those of the tissue at hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.finetuning.conftest import CPU, SPEC, same, tissue
from torch import Tensor, nn

from napari_genselfdiff.diffusion.config import CONFIGS
from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.errors import OutOfMemoryError
from napari_genselfdiff.finetuning.statistics import acquainted
from napari_genselfdiff.segmentation.network import Segmenter, build_segmenter, copy_segmenter


def dark(seed: int) -> NDArray[np.uint8]:
    """Tissue of another laboratory."""
    return (tissue(seed)[0] * 0.4).astype(np.uint8)


def normalised(segmenter: Segmenter, rgb: NDArray[np.uint8]) -> Tensor:
    """Deviation of each feature behind the first normalisation."""
    found: list[Tensor] = []
    norm = next(module for module in segmenter.modules() if isinstance(module, nn.BatchNorm2d))
    hook = norm.register_forward_hook(lambda _, __, out: found.append(out.detach()))
    with torch.no_grad():
        segmenter.eval()(to_unit_range(rgb[None]))
    hook.remove()
    return found[0].std((0, 2, 3)) / norm.weight.detach().abs()


def test_features_of_the_images_have_the_deviation_that_the_network_expects(network: Segmenter) -> None:
    before = copy_segmenter(network)
    images = [dark(seed) for seed in range(3)]
    measured = acquainted(network, images, compute=CPU)
    away = [(normalised(model, dark(9)).log().abs().mean()) for model in (network, measured)]
    assert away[1] < 0.3
    assert away[0] > 3 * away[1]
    assert same(network, before)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), measured.parameters(), strict=True))
    assert not measured.training
    assert same(measured, acquainted(network, images, compute=CPU))


def test_a_small_image_is_enough(network: Segmenter) -> None:
    small = acquainted(network, [dark(0)[:50, :90]], compute=CPU)
    assert normalised(small, dark(0)).log().abs().mean() < 0.3


def test_later_training_gathers_statistics_as_before(network: Segmenter) -> None:
    def momenta(model: Segmenter) -> list[float | None]:
        return [module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)]

    assert momenta(acquainted(network, [dark(0)], compute=CPU)) == momenta(network)


def test_a_network_without_batch_normalisation_is_copied() -> None:
    tiny = replace(CONFIGS["paper"], name="tiny", widths=(8, 16))
    segmenter = build_segmenter(replace(SPEC, config=tiny), start=None)
    twin = acquainted(segmenter, [dark(0)], compute=CPU)
    assert twin is not segmenter
    assert same(twin, segmenter)


def test_where_the_device_lacks_memory_the_processor_measures(
    network: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [dark(0)]
    plenty = acquainted(network, images, compute=CPU)
    forward, tried = Segmenter.forward, list[int]()

    def short(self: Segmenter, x: Tensor, **options: Any) -> Any:
        tried.append(len(x))
        if len(tried) == 3:
            raise torch.OutOfMemoryError
        return forward(self, x, **options)

    monkeypatch.setattr(Segmenter, "forward", short)
    assert same(acquainted(network, images, compute=CPU), plenty)

    def none(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Segmenter, "forward", none)
    with pytest.raises(OutOfMemoryError, match="the computer ran out of memory: close other programs"):
        acquainted(network, images, compute=CPU)
