"""Tasks that run a little after they were asked for."""

from __future__ import annotations

import threading

import pytest

from napari_genselfdiff.annotations.background import GroupedTask


def test_closing_at_the_very_moment_at_which_a_run_begins_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = GroupedTask(lambda: None, delay=0.0, name="grouped")
    closer = threading.Thread(target=task.close, daemon=True)
    begun = threading.Event()
    requested, clear = task._requested, task._requested.clear

    def closed_meanwhile() -> None:
        clear()
        closer.start()
        begun.set()
        requested.wait()  # `close` has asked the thread to look, and waits for its end
        clear()

    monkeypatch.setattr(requested, "clear", closed_meanwhile)
    task.request()
    assert begun.wait(timeout=20)
    closer.join(timeout=20)
    assert not closer.is_alive()
