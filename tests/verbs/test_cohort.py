"""Cohorts: many slides, many processes, one of which dies; the stores are those of one thread."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from distributed import Client, LocalCluster, WorkerPlugin
from tests.verbs.conftest import (
    ALL_CELLS,
    WIDE,
    Arrays,
    Run,
    arrays,
    assert_layers_agree,
    assert_same,
    cells_of,
    draw,
    manifest,
)

from napari_genselfdiff.events import CancelToken, Finished, Progress

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_worker_that_is_killed_half_way_leaves_no_trace(
    begin: Run, large: Path, once: Arrays, two_workers: LocalCluster, tmp_path: Path
) -> None:
    two_workers.scheduler.allowed_failures = 3  # Dask's own default
    try:
        with Client(two_workers, set_as_default=False) as client:
            before = set(client.run(os.getpid).values())
            assert len(before) == 2
            killed: int | None = None
            for event in begin(large, output=tmp_path, scheduler=two_workers.scheduler_address):
                if isinstance(event, Progress) and event.done >= 4 and killed is None:
                    killed = min(before)
                    os.kill(killed, signal.SIGKILL)
            assert isinstance(event, Finished)
            assert killed is not None
            client.wait_for_workers(2)
            after = set(client.run(os.getpid).values())
    finally:
        two_workers.scheduler.allowed_failures = 0
    assert killed not in after
    assert event.result.failed == {}
    assert_same(arrays(tmp_path / "large.zarr"), once)
    assert manifest(tmp_path)["slides"][0]["state"] == "done"


def test_local_processes_do_it_too(run: Run, large: Path, once: Arrays, tmp_path: Path) -> None:
    events, done = run(large, output=tmp_path, scheduler="local:2")
    assert done.done == [str(large)]
    assert cells_of(events) == ALL_CELLS
    timed = [event for event in events if isinstance(event, Progress) and event.done]
    assert all(event.total == ALL_CELLS for event in timed)
    assert all(event.seconds_left is not None for event in timed)
    assert_same(arrays(tmp_path / "large.zarr"), once)


@pytest.mark.parametrize("where", ["threads", "cluster"])
def test_an_interrupted_run_goes_on_with_the_missing_cells(
    begin: Run, run: Run, large: Path, once: Arrays, two_workers: LocalCluster, tmp_path: Path, where: str
) -> None:
    scheduler = "threads" if where == "threads" else two_workers.scheduler_address
    cancel, events = CancelToken(), []
    for event in begin(large, output=tmp_path, scheduler=scheduler, cancel=cancel):
        events.append(event)
        if isinstance(event, Progress) and event.done >= 3:
            cancel.cancel()
    assert isinstance(event, Finished)
    assert event.cancelled
    assert "the same command goes on" in event.message
    left = arrays(tmp_path / "large.zarr")
    kept = int(left["cells"].sum())
    assert 3 <= kept < ALL_CELLS
    assert_layers_agree(left)
    assert manifest(tmp_path)["slides"][0]["state"] == "started"

    events, done = run(large, output=tmp_path, scheduler=scheduler)
    assert done.done == [str(large)]
    assert cells_of(events) == ALL_CELLS - kept
    assert_same(arrays(tmp_path / "large.zarr"), once)

    events, done = run(large, output=tmp_path, scheduler=scheduler)
    assert done.done == [str(large)]
    assert cells_of(events) == 0


@pytest.mark.parametrize("then", ["threads", "cluster"])
def test_holes_that_a_killed_run_left_in_coarse_layers_are_filled(
    begin: Run, run: Run, large: Path, once: Arrays, two_workers: LocalCluster, tmp_path: Path, then: str
) -> None:
    events = begin(large, output=tmp_path, scheduler="threads")
    while not (isinstance(event := next(events), Progress) and event.done == 3):
        pass
    events.close()  # type: ignore[attr-defined]
    for layer in (2, 3):
        zarr.open_array(tmp_path / "large.zarr" / "labels" / str(layer), mode="r+")[:] = 0
    scheduler = then if then == "threads" else two_workers.scheduler_address
    run(large, output=tmp_path, scheduler=scheduler)
    assert_same(arrays(tmp_path / "large.zarr"), once)


@pytest.mark.parametrize("where", ["threads", "cluster"])
def test_bad_slides_do_not_stop_the_others(
    run: Run, two_workers: LocalCluster, tmp_path: Path, where: str
) -> None:
    scheduler = "threads" if where == "threads" else two_workers.scheduler_address
    slides, output = tmp_path / "slides", tmp_path / "out"
    for index, name in enumerate(("a", "c")):
        draw(slides / f"{name}.tif", 1200, 600, seed=index)
    (slides / "b.svs").write_bytes(b"II*\0" + bytes(range(200)))
    tifffile.imwrite(slides / "glass.tif", np.full((900, 900, 3), 244, np.uint8), photometric="rgb")
    (slides / "notes.txt").write_text("no slide")
    _, done = run(slides, output=output, scheduler=scheduler)
    assert done.done == [str(slides / "a.tif"), str(slides / "c.tif")]
    assert list(done.failed) == [str(slides / "b.svs"), str(slides / "glass.tif")]
    assert "b.svs" in done.failed[str(slides / "b.svs")]
    assert "no tissue" in done.failed[str(slides / "glass.tif")]
    assert (arrays(output / "a.zarr")["labels/0"] > 0).all()
    states = {entry["output"]: entry["state"] for entry in manifest(output)["slides"]}
    assert states == {"a.zarr": "done", "b.zarr": "failed", "c.zarr": "done", "glass.zarr": "failed"}

    draw(slides / "b.svs", 1200, 600, seed=5)  # it was copied again
    events, done = run(slides, output=output, scheduler=scheduler)
    assert cells_of(events) == 2
    assert list(done.failed) == [str(slides / "glass.tif")]


def test_a_damaged_place_is_named_and_the_rest_of_the_slide_is_there(
    run: Run, two_workers: LocalCluster, once: Arrays, large: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.tif"
    damaged.write_bytes(large.read_bytes())
    with tifffile.TiffFile(damaged) as file:
        page = file.pages[0]
        index = (2900 // 256) * -(-WIDE // 256) + 100 // 256  # a tile that the cell 2, 0 alone sees
        start, length = page.dataoffsets[index], page.databytecounts[index]
    with damaged.open("r+b") as raw:
        raw.seek(start)
        raw.write(b"\xff" * length)
    _, done = run(damaged, output=tmp_path / "out", scheduler=two_workers.scheduler_address)
    (error,) = done.failed.values()
    assert "cell 2, 0 (from pixel y 2048, x 0" in error
    assert str(damaged) in error
    found = arrays(tmp_path / "out" / "damaged.zarr")
    assert found["cells"].sum() == ALL_CELLS - 1
    np.testing.assert_array_equal(found["labels/0"][:2048], once["labels/0"][:2048])
    assert not found["labels/0"][2048:, :1024].any()
    assert_layers_agree(found)


def test_a_cell_that_kills_every_worker_is_named(
    run: Run, large: Path, two_workers: LocalCluster, tmp_path: Path
) -> None:
    class Deadly(WorkerPlugin):
        """Workers die of one cell, those too that take the place of dead ones."""

        def setup(self, worker: Any) -> None:
            from napari_genselfdiff.segmentation import streaming

            self.before = streaming.AroundReader

            def around(read: Any, part: Any, *rest: Any) -> Any:
                if (part.y, part.x) == (2048, 1024):
                    os._exit(1)
                return self.before(read, part, *rest)

            streaming.AroundReader = around  # type: ignore[assignment, misc]

        def teardown(self, worker: Any) -> None:
            from napari_genselfdiff.segmentation import streaming

            streaming.AroundReader = self.before  # type: ignore[misc]

    with Client(two_workers, set_as_default=False) as client:
        client.register_plugin(Deadly(), name="deadly")
        try:
            _, done = run(large, output=tmp_path, scheduler=two_workers.scheduler_address)
        finally:
            client.wait_for_workers(2)
            client.unregister_worker_plugin("deadly")
    (error,) = done.failed.values()
    assert "cell 2, 1 (" in error
    assert "KilledWorker" in error
    assert str(large) in error
    found = arrays(tmp_path / "large.zarr")
    assert found["cells"].sum() == ALL_CELLS - 1, "no cell that waited is blamed"
    assert found["cells"][2, 1] == 0
    assert_layers_agree(found)
