"""The palette as colour-blind people see it."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from napari_genselfdiff.widgets.colors import PAINTED_BACKGROUND, PALETTE, class_color, label_colormap

# Machado, Oliveira and Fernandes 2009, severity 1: on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TISSUE = ("#5A3C8C", "#7B4F9D", "#EBBED7", "#D98CB3", "#F4E8F1")
"""Nuclei dark and pale, cytoplasm pale and dark, and what is empty."""


def seen(colors: tuple[str, ...], vision: str) -> np.ndarray:
    """Colours in CIELAB, as a person with this vision sees them."""
    rgb = np.array([[int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)] for color in colors])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.array(VISION[vision]).T, 0, 1)
    rgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return rgb2lab(rgb)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(("count", "least"), [(8, 19), (12, 12), (16, 9.9)])
def test_any_two_classes_differ(vision: str, count: int, least: float) -> None:
    lab = seen(PALETTE[:count], vision)
    apart = deltaE_ciede2000(lab[:, None], lab[None]) + 100 * np.eye(count)
    assert apart.min() >= least


@pytest.mark.parametrize("vision", VISION)
def test_every_class_differs_from_stained_tissue(vision: str) -> None:
    apart = deltaE_ciede2000(seen(PALETTE, vision)[:, None], seen(TISSUE, vision)[None])
    assert apart.min() >= 12


def test_the_user_may_choose_colours() -> None:
    chosen = label_colormap(4, ["", "#123456"])
    assert set(chosen.color_dict) == {None, 0, 1, 2, 3, PAINTED_BACKGROUND}
    np.testing.assert_allclose(chosen.color_dict[2][:3], np.array([0x12, 0x34, 0x56]) / 255, atol=1e-6)
    assert class_color(1, ["", "#123456"]) == PALETTE[0]
    assert class_color(17) == PALETTE[0]
    assert label_colormap(2).color_dict[0][3] == 0
