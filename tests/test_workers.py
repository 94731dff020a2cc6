"""Short work in order, off the thread of the interface."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from qtpy.QtCore import QThreadPool

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Event, Finished
from napari_genselfdiff.widgets.demo import wait_for
from napari_genselfdiff.workers import Job, Queue

pytestmark = pytest.mark.gui


@pytest.fixture
def queue(qapp: Any) -> Iterator[Queue]:
    """A queue that ends with the test."""
    made = Queue()
    yield made
    made.close()


def test_work_is_done_in_another_thread_and_results_come_here_in_order(queue: Queue) -> None:
    gate, threads, results = threading.Event(), set(), []

    def work(number: int) -> int:
        gate.wait(60)
        threads.add(threading.current_thread())
        return number

    def done(number: int) -> None:
        assert threading.current_thread() is threading.main_thread()
        results.append(number)

    for number in range(5):
        queue.submit(lambda number=number: work(number), done, pytest.fail)  # type: ignore[misc]
    assert results == []
    gate.set()
    wait_for(lambda: len(results) == 5)
    assert results == [0, 1, 2, 3, 4]
    assert len(threads) == 1
    assert threading.main_thread() not in threads


def test_waiting_delivers_results_also_of_work_that_they_ask_for(queue: Queue) -> None:
    results: list[int] = []

    def again(number: int) -> None:
        results.append(number)
        if number < 3:
            queue.submit(lambda: number + 1, again, pytest.fail)

    queue.submit(lambda: 0, again, pytest.fail)
    queue.wait()
    assert results == [0, 1, 2, 3]


def test_a_failure_is_told_and_does_not_stop_the_others(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise UserError("no space is left", "edits", "free some")

    def break_down() -> None:
        raise RuntimeError("shapes do not match")

    told: list[str] = []
    queue.submit(refuse, pytest.fail, told.append)
    queue.submit(break_down, pytest.fail, told.append)
    queue.submit(lambda: "kept", told.append, pytest.fail)
    queue.wait()
    assert "no space is left" in told[0]
    assert "shapes do not match" in told[1]
    assert told[2] == "kept"
    assert "shapes do not match" in caplog.text


class Knot:
    """Something that only garbage collection can free."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def nothing_frozen() -> Iterator[None]:
    """No object is left out of garbage collection, and what was is so again afterwards."""
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    yield
    if frozen:
        gc.freeze()


def test_closing_does_not_wait_for_work_that_never_began(qapp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_genselfdiff.workers.PATIENCE_SECONDS", 1.0)
    pool = QThreadPool.globalInstance()
    assert pool is not None
    gate, busy, before = threading.Event(), threading.Event(), pool.maxThreadCount()
    begun: list[bool] = []
    ended: list[bool] = []

    def first() -> Iterator[Event]:
        busy.set()
        gate.wait(60)
        yield Finished()

    def second() -> Iterator[Event]:
        begun.append(True)
        yield Finished()

    say: dict[str, Any] = {"on_event": lambda _event: None, "on_error": pytest.fail}
    pool.setMaxThreadCount(1)
    try:
        working = Job(first(), CancelToken(), on_end=lambda: ended.append(True), **say)
        wait_for(busy.is_set)
        waiting = Job(second(), CancelToken(), on_end=pytest.fail, **say)
        waiting.close()
        waiting.close()
        assert not ended, "the first goes on"
    finally:
        gate.set()
        pool.setMaxThreadCount(before)
    wait_for(lambda: bool(ended) and pool.activeThreadCount() == 0)
    assert not begun
    working.close()


@pytest.mark.usefixtures("nothing_frozen")
@pytest.mark.parametrize("fails", [False, True])
def test_work_does_not_collect_what_was_there_before_and_leaves_it_to_be_collected(
    qapp: Any, fails: bool
) -> None:
    before, during, ended = weakref.ref(Knot()), [], threading.Event()

    def work() -> Iterator[Event]:
        own = weakref.ref(Knot())
        gc.collect()
        during.extend([before() is not None, own() is not None])
        if fails:
            raise UserError("no space is left", "edits", "free some")
        yield Finished(None, "done")

    gc.disable()  # so that nothing else frees it first
    try:
        told: list[object] = []
        job = Job(work(), CancelToken(), on_event=told.append, on_error=told.append, on_end=ended.set)
        wait_for(ended.is_set, 60)
    finally:
        gc.enable()
    assert during == [True, False]
    assert len(told) == 1
    gc.collect()
    assert before() is None
    assert gc.get_freeze_count() == 0
    del job


@pytest.mark.usefixtures("nothing_frozen")
def test_on_windows_a_removed_layer_is_collected_while_work_runs(
    qapp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    frozen, ended = [], threading.Event()

    def work() -> Iterator[Event]:
        frozen.append(gc.get_freeze_count())
        yield Finished(None, "done")

    job = Job(work(), CancelToken(), on_event=lambda _event: None, on_error=pytest.fail, on_end=ended.set)
    wait_for(ended.is_set, 60)
    assert frozen == [0]
    del job


def test_work_leaves_alone_what_others_froze(qapp: Any) -> None:
    ended = threading.Event()
    already = gc.get_freeze_count()
    if not already:
        gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        job = Job(
            iter([Finished(None, "done")]),
            CancelToken(),
            on_event=lambda _event: None,
            on_error=pytest.fail,
            on_end=ended.set,
        )
        wait_for(ended.is_set, 60)
        assert gc.get_freeze_count() >= frozen - 100  # freed ones leave the count
        del job
    finally:
        if not already:
            gc.unfreeze()


def test_work_finds_imported_what_it_needs() -> None:
    """In an interpreter of its own, for here everything is imported."""
    script = (
        "import sys\n"
        "from napari_genselfdiff import workers\n"
        "import napari_genselfdiff.session.session\n"
        "assert 'torch' not in sys.modules, 'a window opens before torch is there'\n"
        "workers.warm_up()\n"
        "before = set(sys.modules)\n"
        "from napari_genselfdiff.session import cohorts, work\n"
        "from napari_genselfdiff.finetuning.rounds import train_round\n"
        "from napari_genselfdiff.finetuning.suggestions import next_place\n"
        "from napari_genselfdiff.diffusion.domain import check_domain\n"
        "from napari_genselfdiff.verbs.streaming import stream_region\n"
        "late = set(sys.modules) - before\n"
        "assert not late, late\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
