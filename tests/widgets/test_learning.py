"""What the window does with the outcome of a fine-tune."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.widgets.conftest import Wait

from napari_genselfdiff.annotations import encode
from napari_genselfdiff.events import Event, Finished
from napari_genselfdiff.geometry import Region


def test_one_that_was_refused_before_is_used_and_seen(
    dock: Any, tissue: np.ndarray[Any, Any], wait_for: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    dock.viewer.add_image(tissue, rgb=True, name="tissue", scale=(0.5, 0.5), units=("um", "um"))
    session = dock.session
    session.use_model("nuclei")
    box = Region(0, 0, 200, 200)
    dark = session.slide.read(box.y, box.x, box.height, box.width)[..., 0] < 150
    session.annotations.accept(0, box, encode(dark.astype(np.uint8)))
    for _ in range(2):
        *_, last = session.fine_tune(seconds=None, steps=1)
        refused = replace(last.result, accepted=False)
        session.adopt(refused)
    assert session.current == "nuclei"
    assert not session.active.has_predictions("round-1")

    def fine_tuned(**_: object) -> Iterator[Event]:
        yield Finished(replace(refused, instead="round-1"), "round-1, which was refused before, is used now")

    monkeypatch.setattr(session, "fine_tune", fine_tuned)
    dock.learning.fine_tune()
    wait_for(lambda: session.current == "round-1" and dock.job is None)
    assert dock.fine_tune_section.answer.text() == "round-1, which was refused before, is used now"
    assert session.active.has_predictions("round-1"), "the view is segmented again"
