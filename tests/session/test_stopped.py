"""Fine-tunes that were stopped, and what versions say of where they began."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.session.conftest import SETTINGS, TINY, correct, last

from napari_genselfdiff.annotations import encode
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.events import CancelToken, Finished, Progress
from napari_genselfdiff.finetuning import rounds
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models.weights import save_weights
from napari_genselfdiff.session import Session, Task


def stop_after(session: Session, steps: int) -> None:
    """Begin a fine-tune, and stop it."""
    token = CancelToken()
    for event in session.fine_tune(seconds=None, steps=40, cancel=token):
        if isinstance(event, Progress) and event.message == "training" and event.done >= steps:
            token.cancel()
    assert isinstance(event, Finished)
    assert "kept to go on from" in event.message


def use_other_pretext(session: Session) -> None:
    """As after an adaptation."""
    torch.manual_seed(7)
    card = {"kind": "pretext", "config": TINY.to_dict(), "settings": asdict(SETTINGS), "name": "pretext-1"}
    save_weights(session.folder / "models/pretext-1.safetensors", UNet(TINY).state_dict(), card, half=True)
    session.use_pretext("models/pretext-1.safetensors")


@pytest.mark.parametrize("other", ["pretext", "resolution", "nothing"])
def test_a_stopped_fine_tune_goes_on_only_from_what_it_started_from(
    session: Session, pretext: Path, other: str
) -> None:
    session.start_task(Task.named(["dark"], mpp=0.5))
    correct(session, Region(40, 0, 100, 100))
    stop_after(session, 2)
    if other == "pretext":
        use_other_pretext(session)
    elif other == "resolution":
        session.start_task(Task.named(["dark"], mpp=0.55))
    events = list(session.fine_tune(seconds=None, steps=4))
    went_on = [e.message for e in events if isinstance(e, Progress) and "going on" in e.message]
    assert bool(went_on) == (other == "nothing")
    assert isinstance(events[-1], Finished)
    settings = events[-1].result.version.settings
    assert settings["pretext"] == ("pretext-1.safetensors" if other == "pretext" else "pretext")
    assert bool(settings["resumed"]) == (other == "nothing")


def test_a_version_says_with_which_corrections_its_training_began(session: Session, pretext: Path) -> None:
    session.start_task(Task.named(["dark"], mpp=0.5))
    correct(session, Region(40, 0, 60, 60))
    stop_after(session, 2)
    correct(session, Region(150, 200, 60, 60))
    stop_after(session, 3)
    version = last(session.fine_tune(seconds=None, steps=4)).result.version
    (slide,) = version.positions
    assert version.positions == {slide: 2}
    first, second = version.settings["resumed"]
    assert first == {"steps": 2, "positions": {slide: 1}}
    assert second["positions"] == {slide: 2}
    clean = last(session.fine_tune(seconds=None, steps=4)).result.version
    assert clean.settings["resumed"] == []
    assert clean.settings["start"] == version.settings["start"]


def test_an_adapted_pretext_gets_its_turn_and_is_recorded_only_then(
    session: Session, pretext: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.start_task(Task.named(["dark"], mpp=0.5))
    for y in range(0, 300, 100):
        for x in range(0, 400, 80):
            correct(session, Region(y, x, 20, 20))
    session.adopt(last(session.fine_tune(seconds=None, steps=60)).result)
    use_other_pretext(session)
    everywhere = np.ones((300, 400), np.uint8)
    session.annotations.stroke(0, 0, 0, encode(everywhere), everywhere > 0)  # of one class alone: it goes on
    went_on = last(session.fine_tune(seconds=None, steps=1)).result
    assert "pretext" not in went_on.version.settings
    session.adopt(replace(went_on, accepted=False))
    assert session.newly_adapted
    session.annotations.undo()
    monkeypatch.setattr(rounds, "MANY", 1)
    turn = last(session.fine_tune(seconds=None, steps=1)).result
    assert turn.version.settings["pretext"] == "pretext-1.safetensors"
    session.adopt(replace(turn, accepted=False))
    assert not session.newly_adapted
    assert session.grown
    further = last(session.fine_tune(seconds=None, steps=1)).result
    assert "pretext" not in further.version.settings  # many corrections: it goes on
