"""Events of long work, its cancelling and its clock."""

from __future__ import annotations

import dataclasses
import threading
import time

import numpy as np
import pytest

from napari_genselfdiff.events import CancelToken, Clock, Finished, LossPoint, Progress, TileDone


def test_events_cannot_be_changed() -> None:
    tile = TileDone((0, 0), np.zeros((1, 1)), np.zeros((1, 1)))
    for event in (Progress(1, 2), LossPoint(1, 0.5, 1.0), tile, Finished()):
        field = dataclasses.fields(event)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(event, field, None)


def test_cancelling_is_seen_by_other_threads_and_stays() -> None:
    cancel = CancelToken()
    assert not cancel.cancelled
    thread = threading.Thread(target=cancel.cancel)
    thread.start()
    thread.join()
    assert cancel.cancelled
    cancel.cancel()
    assert cancel.cancelled


def test_the_time_left_is_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 <= Clock().seconds < 60
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    clock = Clock(started=70.0)
    assert clock.seconds == 30
    assert clock.left(3, 12) == 90
    assert clock.left(12, 12) == 0
    assert clock.left(0, 12) is None  # nothing is known before the first step
    assert clock.left(5, 0) is None
