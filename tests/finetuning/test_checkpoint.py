"""Rounds that were stopped, and go on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.finetuning.conftest import CPU, SPEC, outcome, run, same

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Finished, LossPoint, Progress
from napari_genselfdiff.finetuning.rounds import train_round
from napari_genselfdiff.segmentation.network import Segmenter, build_segmenter

pytestmark = pytest.mark.usefixtures("quick")


def test_a_stopped_round_goes_on_as_if_it_had_not_been(make: Any, network: Segmenter, tmp_path: Path) -> None:
    source, path = make(), tmp_path / "round.safetensors"
    whole = outcome(run([source], network, steps=8))
    cancel, stopped = CancelToken(), []
    for event in train_round([source], network, compute=CPU, steps=8, checkpoint=path, cancel=cancel):
        stopped.append(event)
        if isinstance(event, Progress) and event.message == "training" and event.done == 3:
            cancel.cancel()
    end = stopped[-1]
    assert isinstance(end, Finished)
    assert end.cancelled
    assert end.result is None
    assert end.message == "stopped; the model stays as it was, and 3 steps of training are kept to go on from"
    events = run([source], network, steps=8, checkpoint=path, resume=True)
    assert "going on after 3 steps" in [e.message for e in events if isinstance(e, Progress)]
    resumed = outcome(events)
    assert resumed.steps == 8
    assert same(resumed.segmenter, whole.segmenter)
    assert not path.exists()
    assert resumed.settings["resumed"] == [{"steps": 3, "positions": whole.positions}]
    assert whole.settings["resumed"] == []


def test_a_checkpoint_of_another_round_is_refused(make: Any, network: Segmenter, tmp_path: Path) -> None:
    source, path = make(), tmp_path / "round.safetensors"
    cancel = CancelToken()
    for event in train_round([source], network, compute=CPU, steps=8, checkpoint=path, cancel=cancel):
        if isinstance(event, LossPoint):
            cancel.cancel()
    with pytest.raises(UserError, match=r"of another kind .settings."):
        run([source], network, seed=1, checkpoint=path, resume=True)
    other = build_segmenter(SPEC, start=None, seed=3)
    with pytest.raises(UserError, match=r"of another kind .start."):
        run([source], other, checkpoint=path, resume=True)
    with pytest.raises(UserError, match=r"of another kind .settings, start."):
        run([source], network, begin=other, checkpoint=path, resume=True)
    coarse = Segmenter(replace(SPEC, mpp=0.55, downsample=2.0))
    coarse.load_state_dict(network.state_dict())
    with pytest.raises(UserError, match=r"of another kind .downsample, mpp."):
        run([source], coarse.eval(), checkpoint=path, resume=True)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"round\.safetensors"):
        run([source], network, checkpoint=path, resume=True)
