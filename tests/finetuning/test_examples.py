"""Examples, what is held out of them, and the patches that are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from napari_genselfdiff.finetuning import examples as module
from napari_genselfdiff.finetuning.examples import Example, PatchSampler, held_out_cells, split_examples


def example(name: str = "a", height: int = 60, width: int = 80, **parts: Any) -> Example:
    rng = np.random.default_rng(0)
    values: dict[str, Any] = {
        "rgb": rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        "labels": rng.integers(0, 3, (height, width), dtype=np.uint8),
        "weight": np.ones((height, width), np.float32),
        "core": None,
    }
    return Example(name, **(values | parts))


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches without a change of colour or size."""
    monkeypatch.setattr(module, "vary_appearance", lambda rgb, *_: np.ascontiguousarray(rgb))
    monkeypatch.setattr(module, "ZOOM", 1.0)


def test_a_fifth_of_the_cells_is_held_out() -> None:
    mask = held_out_cells((4096, 4096), cell=64)
    assert mask.mean() == pytest.approx(0.2, abs=0.03)
    cells = mask.reshape(64, 64, 64, 64).mean(axis=(1, 3))
    assert set(np.unique(cells)) == {0, 1}  # cells are held out as a whole
    other = held_out_cells((4096, 4096), cell=64, salt="another slide")
    assert (mask != other).mean() > 0.2


def test_the_choice_belongs_to_the_place_on_the_slide() -> None:
    whole = held_out_cells((1000, 1200), cell=64, salt="s")
    for y, x, h, w in ((0, 0, 64, 64), (100, 37, 500, 700), (999, 1199, 1, 1), (128, 64, 64, 128)):
        part = held_out_cells((h, w), cell=64, origin=(y, x), salt="s")
        assert (part == whole[y : y + h, x : x + w]).all()


def test_the_choice_is_the_same_for_ever() -> None:
    """Changing it would put what a model was trained on into the score of its next version."""
    mask = held_out_cells((640, 640), cell=64)[::64, ::64]
    rows = ["".join("-X"[int(held)] for held in row) for row in mask[:4]]
    assert rows == ["---X---XX-", "X-----XXX-", "X--XXX--X-", "-X--------"]


def test_five_images_are_split_as_a_whole() -> None:
    images = [example(f"{index}.png") for index in range(12)]
    training, held_out = split_examples(images)
    names = {e.name for e in training}, {e.name for e in held_out}
    assert len(names[1]) == 2
    assert names[0].isdisjoint(names[1])
    assert names[0] | names[1] == {e.name for e in images}
    assert all((e.weight == 1).all() for e in (*training, *held_out))
    again = split_examples(images[::-1])
    assert {e.name for e in again[1]} == names[1]


@pytest.mark.parametrize("side", [20, 40, 64, 150, 500, 1000])
def test_few_images_are_split_by_cells(side: int) -> None:
    training, held_out = split_examples([example(f"{i}", side, side) for i in range(4)])
    for kept, held in zip(training, held_out, strict=True):
        assert ((kept.weight > 0) ^ (held.weight > 0)).all()
        low, high = (0.1, 0.3) if side > 20 else (0.04, 0.4)
        assert low <= (held.weight > 0).mean() <= high


def test_few_labels_are_split_by_what_is_labelled() -> None:
    """A scribble must not fall into a held-out cell as a whole, nor beside all of them."""
    for index in range(10):
        weight = np.zeros((512, 512), np.float32)
        weight[200:240, 300:340] = 1
        training, held_out = split_examples([example(f"{index}", 512, 512, weight=weight)])
        assert 0.1 <= held_out[0].weight.sum() / 1600 <= 0.3
        assert training[0].weight.sum() + held_out[0].weight.sum() == 1600


def test_pixels_that_do_not_count_stay_so_in_both_parts() -> None:
    weight = np.ones((100, 100), np.float32)
    weight[:50] = 0
    training, held_out = split_examples([example("a", 100, 100, weight=weight)])
    assert (training[0].weight[:50] == 0).all()
    assert (held_out[0].weight[:50] == 0).all()


@pytest.mark.usefixtures("plain")
def test_patches_hold_labelled_pixels() -> None:
    weight = np.zeros((300, 400), np.float32)
    weight[203:206, 57:59] = 1  # between the points of the coarse lattice
    weight[204, 57] = 1
    sampler = PatchSampler([example("a", 300, 400, weight=weight)], size=32, seed=0)
    places = set()
    for step in range(10):
        batch = sampler.batch(step, 4)
        for patch in batch.weight:
            rows, columns = np.nonzero(patch.numpy())
            assert len(rows)
            places.add((rows[0], columns[0]))
    assert len(places) > 10  # not always in the same place


@pytest.mark.usefixtures("plain")
def test_patches_come_from_where_labels_are() -> None:
    weight = np.zeros((400, 400), np.float32)
    weight[:100, :100] = 1
    sampler = PatchSampler([example("a", 400, 400, weight=weight)], size=48, seed=0)
    share = torch.cat([sampler.batch(step, 8).weight for step in range(10)]).mean().item()
    assert share > 0.6  # random places would give 0.06


def test_the_order_depends_on_seed_and_step_alone() -> None:
    images = [example(f"{i}", 60 + i, 80) for i in range(3)]
    first, other = PatchSampler(images, size=32, seed=1), PatchSampler(images, size=32, seed=2)
    early, late = first.batch(0, 4), first.batch(7, 4)
    again = PatchSampler(images, size=32, seed=1).batch(7, 4)
    assert torch.equal(late.images, again.images)
    assert torch.equal(late.labels, again.labels)
    assert not torch.equal(early.images, late.images)
    assert not torch.equal(other.batch(7, 4).images, late.images)


@pytest.mark.usefixtures("plain")
def test_patches_are_ready_for_the_network() -> None:
    batch = PatchSampler([example(core=np.full((60, 80), 0.5, np.float32))], size=32, seed=0).batch(0, 5)
    assert batch.images.shape == (5, 3, 32, 32)
    assert batch.images.min() >= -1
    assert batch.images.max() <= 1
    assert batch.labels.shape == batch.weight.shape == (5, 32, 32)
    assert batch.labels.dtype == torch.int64
    assert batch.core is not None
    assert batch.core.shape == (5, 32, 32)
    assert PatchSampler([example()], size=32, seed=0).batch(0, 2).core is None


@pytest.mark.usefixtures("plain")
def test_image_labels_weight_and_core_are_cut_and_turned_alike() -> None:
    rng = np.random.default_rng(0)
    number = rng.permutation(60 * 80).reshape(60, 80)
    rgb = np.stack([number % 256, number // 256, 0 * number], axis=-1).astype(np.uint8)
    same = example(
        rgb=rgb,
        labels=(number % 17).astype(np.uint8),
        weight=(number / 5000 + 0.01).astype(np.float32),
        core=(number / 4800).astype(np.float32),
    )
    batch = PatchSampler([same], size=32, seed=0).batch(0, 16)
    channels = ((batch.images + 1) * 127.5).round().long()
    shown = channels[:, 0] + 256 * channels[:, 1]
    assert torch.equal(batch.labels, shown % 17)
    torch.testing.assert_close(batch.weight, (shown / 5000 + 0.01).float())
    assert batch.core is not None
    torch.testing.assert_close(batch.core, (shown / 4800).float())
    assert len({patch.numpy().tobytes() for patch in shown}) == 16


def test_patches_show_tissue_at_several_sizes_and_labels_follow_the_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "vary_appearance", lambda rgb, *_: rgb)
    yy, xx = np.mgrid[:200, :200]
    disc = (np.hypot(yy - 100, xx - 100) < 20).astype(np.uint8)
    rgb = np.repeat(disc[..., None] * np.uint8(255), 3, axis=2)
    known = example(rgb=rgb, labels=disc, weight=np.ones((200, 200), np.float32))
    sampler = PatchSampler([known], size=160, seed=0)
    areas = set()
    for step in range(6):
        batch = sampler.batch(step, 4)
        shown = batch.images[:, 0] > 0
        assert (shown == (batch.labels == 1)).float().mean() > 0.99  # all but the disc's rim
        areas |= set(shown.sum(dim=(1, 2)).tolist())
    assert max(areas) > 1.4 * min(areas)


@pytest.mark.usefixtures("plain")
def test_small_images_are_mirrored_and_what_is_added_does_not_count() -> None:
    small = example("a", 10, 50, core=np.ones((10, 50), np.float32))
    batch = PatchSampler([small], size=32, seed=0).batch(0, 8)
    for image, weight in zip(batch.images, batch.weight, strict=True):
        counted = weight > 0
        assert counted.sum() == 10 * 32
        assert image.std() > 0.3  # no flat filling
    assert PatchSampler([example("a", 3, 3)], size=32, seed=0).batch(0, 1).weight.sum() == 9


def test_images_without_labels_are_left_out() -> None:
    empty = example("empty", weight=np.zeros((60, 80), np.float32))
    sampler = PatchSampler([empty, example()], size=32, seed=0)
    assert len(sampler) == 1
    assert len(PatchSampler([empty], size=32, seed=0)) == 0
