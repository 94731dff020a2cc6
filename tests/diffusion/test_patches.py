"""Unlabelled patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from napari_genselfdiff.diffusion.patches import PatchSource, to_unit_range


def gradient(path: Path, height: int, width: int) -> Path:
    """An image whose red channel is the row and whose green channel is the column."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(height)[:, None], np.arange(width)
    Image.fromarray(image).save(path)
    return path


def test_black_is_minus_1_and_white_is_1() -> None:
    patches = np.zeros((2, 4, 6, 3), np.uint8)
    patches[0] = 255
    patches[1, :, :, 2] = 51
    tensor = to_unit_range(patches)
    assert tensor.shape == (2, 3, 4, 6)
    assert tensor.dtype == torch.float32
    assert (tensor[0] == 1).all()
    assert (tensor[1, :2] == -1).all()
    assert torch.allclose(tensor[1, 2], torch.tensor(-0.6))


def test_the_order_depends_on_seed_and_step_alone(tmp_path: Path) -> None:
    files = [gradient(tmp_path / f"{i}.png", 60 + i, 70) for i in range(3)]
    source = PatchSource(files, 16, (1.0, 2.0), seed=3)
    batches = [source.batch(step, 4) for step in range(3)]
    assert batches[0].shape == (4, 3, 16, 16)
    later = PatchSource(files, 16, (1.0, 2.0), seed=3)
    assert torch.equal(later.batch(2, 4), batches[2])  # without the steps before
    assert not torch.equal(batches[0], batches[1])
    assert not torch.equal(PatchSource(files, 16, (1.0, 2.0), seed=4).batch(0, 4), batches[0])


def test_zoom_shows_a_wider_field(tmp_path: Path) -> None:
    file = gradient(tmp_path / "a.png", 200, 200)

    def field(zoom: tuple[float, float]) -> list[float]:
        batch = (PatchSource([file], 16, zoom).batch(0, 16) + 1) * 127.5
        return [float(red.max() - red.min()) for red in batch[:, 0]]

    np.testing.assert_allclose(field((1.0, 1.0)), 15, atol=0.1)
    wide = field((4.0, 4.0))
    np.testing.assert_allclose(wide, 60, atol=1)  # 64 pixels in 16: the centres are 60 apart
    mixed = field((1.0, 4.0))
    assert min(mixed) < 25
    assert max(mixed) > 45


def test_patches_are_flipped_and_turned(tmp_path: Path) -> None:
    file = gradient(tmp_path / "a.png", 16, 16)  # one patch fits: only its orientation varies
    batch = PatchSource([file], 16).batch(0, 64)
    assert len({patch.numpy().tobytes() for patch in batch}) == 8


def test_images_smaller_than_a_patch_are_enlarged(tmp_path: Path) -> None:
    file = gradient(tmp_path / "a.png", 10, 40)
    assert PatchSource([file], 32).batch(0, 2).shape == (2, 3, 32, 32)
