"""The segmenter: heads, weights and its card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from napari_genselfdiff.diffusion.config import COMPACT, PAPER
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.errors import MissingScaleError, UserError
from napari_genselfdiff.models.weights import read_card, save_weights
from napari_genselfdiff.segmentation.network import (
    Segmenter,
    SegmenterSpec,
    build_segmenter,
    copy_segmenter,
    load_segmenter,
    save_segmenter,
    with_classes,
)

TINY = replace(COMPACT, name="tiny", widths=(8, 16), full_width=8)
SPEC = SegmenterSpec(config=TINY, classes=("background", "nucleus", "gland"), mpp=0.5, instances=True)
X = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_heads_are_classes_and_core() -> None:
    logits, core = build_segmenter(SPEC, start=None)(X)
    assert logits.shape == (2, 3, 16, 24)
    assert core is not None
    assert core.shape == (2, 16, 24)
    logits, core = build_segmenter(replace(SPEC, instances=False), start=None)(X)
    assert logits.shape == (2, 3, 16, 24)
    assert core is None


def test_the_time_step_is_fixed() -> None:
    segmenter = build_segmenter(SPEC, start=None)
    expected = segmenter.unet(X, torch.tensor([50]))[:, :3]
    torch.testing.assert_close(segmenter(X)[0], expected)
    other = build_segmenter(replace(SPEC, timestep=0), start=None)
    assert not torch.allclose(other(X)[0], expected)


def test_all_weights_of_the_pretext_but_the_output_layer_are_taken() -> None:
    torch.manual_seed(3)
    pretext = UNet(TINY).state_dict()
    weights = build_segmenter(SPEC, start=pretext).unet.state_dict()
    assert weights.keys() == pretext.keys()
    for name, value in weights.items():
        if name.startswith("output."):
            assert len(value) == 4  # three classes and the core
        else:
            assert torch.equal(value, pretext[name])


def test_weights_of_another_network_are_told() -> None:
    pretext = UNet(TINY).state_dict()
    missing = {name: value for name, value in pretext.items() if not name.startswith("stem.")}
    other_shape = UNet(replace(TINY, widths=(8, 24))).state_dict()
    for tensors in (UNet(replace(PAPER, widths=(8, 16))).state_dict(), missing, other_shape):
        with pytest.raises(UserError, match="the weights do not fit the network"):
            build_segmenter(SPEC, start=tensors)


def test_random_weights_follow_the_seed_and_leave_others_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, again, other = (build_segmenter(SPEC, start=None, seed=s).state_dict() for s in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["unet.stem.weight"], other["unet.stem.weight"])


def test_a_copy_is_independent() -> None:
    segmenter = build_segmenter(SPEC, start=None)
    segmenter.card["name"] = "mine"
    copy = copy_segmenter(segmenter)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.zero_()
    copy.card["name"] = "copy"
    assert segmenter.unet.stem.weight.abs().sum() > 0
    assert segmenter.card["name"] == "mine"


def test_a_new_class_is_never_said_until_it_is_learned() -> None:
    segmenter = build_segmenter(SPEC, start=None).eval()
    more = with_classes(segmenter, (*SPEC.classes, "stroma", "vessel"))
    assert more.spec.classes == ("background", "nucleus", "gland", "stroma", "vessel")
    with torch.no_grad():
        (logits, core), (before, core_before) = more(X), segmenter(X)
    torch.testing.assert_close(logits[:, :3], before)
    torch.testing.assert_close(core, core_before)
    assert (logits.argmax(dim=1) < 3).all()
    torch.testing.assert_close(logits[:, 3], logits[:, 4])
    with pytest.raises(ValueError, match="forget"):
        with_classes(segmenter, SPEC.classes[:2])


def test_a_saved_segmenter_predicts_the_same_after_reloading(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    segmenter = build_segmenter(SPEC, start=None).eval()
    before = segmenter(X)[0]
    save_segmenter(segmenter, path, licence="CC BY 4.0", steps=3)
    loaded = load_segmenter(path)
    assert loaded.spec == SPEC
    assert not loaded.training
    assert torch.equal(loaded(X)[0], segmenter(X)[0])
    assert (segmenter(X)[0] - before).abs().max() < 5e-3  # rounded to half precision
    card = read_card(path)
    assert (card["kind"], card["name"]) == ("segmenter", "mine")
    assert (card["licence"], card["steps"]) == ("CC BY 4.0", 3)
    assert card["classes"] == ["background", "nucleus", "gland"]
    assert card["input_range"] == [-1, 1]
    assert loaded.card == json.loads(json.dumps(segmenter.card)) == card


def test_files_that_do_not_segment_are_told(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    tensors = build_segmenter(SPEC, start=None).unet.state_dict()
    save_weights(path, tensors, {"kind": "pretext", "config": TINY.to_dict()})
    with pytest.raises(UserError, match=r"do not segment, .*fine-tune from them first"):
        load_segmenter(path)
    save_weights(path, tensors, {"kind": "segmenter"})
    with pytest.raises(UserError, match="do not fit the model card"):
        load_segmenter(path)
    save_weights(path, tensors, replace(SPEC, classes=("background", "nucleus")).to_card())
    with pytest.raises(UserError, match="do not fit the model card"):
        load_segmenter(path)
    with pytest.raises(UserError, match="no such weights file"):
        load_segmenter(tmp_path / "nothing.safetensors")


def test_resolution_of_the_input_and_of_the_model() -> None:
    assert SPEC.scale_for(0.25, "a.svs") == 2
    assert SPEC.scale_for(1.0, "a.svs") == 0.5
    with pytest.raises(MissingScaleError, match=r"a\.svs.*--mpp"):
        SPEC.scale_for(None, "a.svs")
    unknown = replace(SPEC, mpp=None, downsample=3.0)
    assert unknown.scale_for(None, "a.png") == unknown.scale_for(0.25, "a.png") == 3


def test_between_1_and_16_classes() -> None:
    for count in (1, 18):
        with pytest.raises(UserError, match="1 to 16 classes"):
            replace(SPEC, classes=tuple(map(str, range(count))))
    most = replace(SPEC, classes=tuple(map(str, range(17))))
    assert Segmenter(most)(X)[0].shape[1] == 17
