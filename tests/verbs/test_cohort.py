"""Cohorts: many slides, many processes, one of which dies; the stores are those of one thread."""

from __future__ import annotations

import json
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import fsspec
import numpy as np
import pytest
import tifffile
import torch
import zarr
from distributed import Client, LocalCluster, WorkerPlugin
from numpy.typing import NDArray

from napari_genselfdiff import compute
from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Event, Finished, Progress
from napari_genselfdiff.segmentation.network import SegmenterSpec, build_segmenter, save_segmenter
from napari_genselfdiff.verbs import cells, cluster
from napari_genselfdiff.verbs.cohort import Cohort, segment_cohort

TINY = replace(COMPACT, name="tiny", widths=(8, 16), full_width=8)
TALL, WIDE = 3000, 2104
ALL_CELLS = 3 * 3
Arrays = dict[str, NDArray[Any]]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "available_cores", lambda: 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = SegmenterSpec(TINY, ("background", "nucleus"), mpp=0.5, instances=True)
    made = build_segmenter(spec, start=None)
    with torch.no_grad():
        made.unet.output.weight.mul_(20)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_segmenter(made, path)
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of 9 cells, all tissue."""
    return draw(tmp_path_factory.mktemp("large") / "large.tif", TALL, WIDE)


def draw(path: Path, height: int, width: int, seed: int = 0) -> Path:
    small = np.random.default_rng(seed).integers(60, 220, (height // 8, width // 8, 3), dtype=np.uint8)
    image = np.kron(small, np.ones((8, 8, 1), np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"tile": (256, 256), "compression": "deflate", "photometric": "rgb"}
    with tifffile.TiffWriter(path) as file:
        file.write(image, subifds=4, **options)
        for level in range(1, 5):
            file.write(image[:: 2**level, :: 2**level], subfiletype=1, **options)
    return path


@pytest.fixture(scope="module")
def two_workers() -> Iterator[LocalCluster]:
    """Two worker processes; one death is one too many for a task."""
    with (
        pytest.MonkeyPatch.context() as patch,
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=":0",
            memory_limit=None,
            silence_logs=60,
            env={"FSSPEC_FILE": '{"auto_mkdir": true}'},
        ) as started,
    ):
        # Local files as if they were far away, in this process and in those of the workers.
        patch.setitem(fsspec.config.conf, "file", {"auto_mkdir": True})
        yield started


Run = Callable[..., Iterator[Event]]


@pytest.fixture
def begin(model: Path) -> Run:
    def started(*slides: Path | str, output: Path | str, **options: Any) -> Iterator[Event]:
        given = {"model": model, "mpp": 0.5, "device": "cpu"} | options
        return segment_cohort([str(slide) for slide in slides], str(output), **given)

    return started


@pytest.fixture
def run(begin: Run) -> Callable[..., tuple[list[Event], Cohort]]:
    def finished(*slides: Path | str, **options: Any) -> tuple[list[Event], Cohort]:
        events = list(begin(*slides, **options))
        assert isinstance(events[-1], Finished)
        return events, events[-1].result

    return finished


def arrays(store: Path | str) -> Arrays:
    members = zarr.open_group(store, mode="r").members(max_depth=None)
    return {name: np.asarray(node[:]) for name, node in members if isinstance(node, zarr.Array)}


def assert_same(a: Arrays, b: Arrays) -> None:
    assert a.keys() == b.keys()
    for name, values in a.items():
        np.testing.assert_array_equal(values, b[name], err_msg=name)


def assert_layers_agree(found: Arrays) -> None:
    """What is finished is the same on every layer; workers that were not waited for may have written more."""
    finished = np.kron(found["cells"], np.ones((1024, 1024), np.uint8))[:TALL, :WIDE] > 0
    for layer, (fine, coarse) in enumerate(pairwise(found[f"labels/{layer}"] for layer in range(4)), start=1):
        here = finished[:: 2**layer, :: 2**layer]
        np.testing.assert_array_equal(coarse[here], fine[::2, ::2][here])


def manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "cohort.json").read_text())
    return content


def cells_of(events: list[Event]) -> float:
    return max(event.done for event in events if isinstance(event, Progress))


@pytest.fixture(scope="module")
def once(model: Path, large: Path, tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    """What one thread says of the large slide."""
    folder = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compute, "available_cores", lambda: 1)
        *_, last = segment_cohort([str(large)], str(folder), model=model, mpp=0.5, device="cpu")
    assert isinstance(last, Finished)
    found = arrays(folder / "large.zarr")
    assert found["cells"].sum() == ALL_CELLS
    assert (found["labels/0"] > 0).all()
    assert 0.05 < (found["labels/0"] > 1).mean() < 0.95
    assert_layers_agree(found)
    return found


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
    assert found["cells"].sum() >= ALL_CELLS - 2  # a neighbour may have been on the worker that died
    assert found["cells"][2, 1] == 0
    assert_layers_agree(found)


def test_slides_are_found_in_folders_and_by_patterns_each_once(run: Run, tmp_path: Path) -> None:
    one = draw(tmp_path / "in" / "a.tif", 300, 300)
    two = draw(tmp_path / "in" / "deep" / "a.tif", 300, 300, seed=1)
    picture = tmp_path / "in" / "deep" / "b.png"
    picture.write_bytes(b"not yet")
    pattern = str(tmp_path / "in" / "**" / "*.tif")
    _, done = run(one.parent, pattern, two, output=tmp_path / "in")
    assert done.done == [str(one), str(two)]
    names = {entry["slide"]: entry["output"] for entry in manifest(one.parent)["slides"]}
    assert names == {str(one): "a.zarr", str(two): "a-2.zarr"}
    # Outputs beside the slides are not taken for slides, and names stay.
    events, done = run(one.parent, two, output=tmp_path / "in")
    assert done.done == [str(one), str(two)]
    assert cells_of(events) == 0
    for wrong, what in ((tmp_path / "none", "no such slide"), (tmp_path / "in" / "*.svs", "no such slide")):
        with pytest.raises(UserError, match=what):
            run(wrong, output=tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no slide was found.*\.svs"):
        run(tmp_path / "empty", output=tmp_path / "out")


def test_a_removed_output_is_made_again_and_another_slide_is_not_mixed_in(run: Run, tmp_path: Path) -> None:
    slide, output = draw(tmp_path / "a.tif", 300, 300), tmp_path / "out"
    run(slide, output=output)
    draw(slide, 300, 300, seed=1)
    _, done = run(slide, output=output)
    assert "not the one that was segmented before" in done.failed[str(slide)]
    assert f"remove {output / 'a.zarr'}" in done.failed[str(slide)]
    (output / "a.zarr").rename(tmp_path / "old.zarr")
    _, done = run(slide, output=output)
    assert done.failed == {}
    assert (arrays(output / "a.zarr")["labels/0"] > 0).all()


def test_a_folder_is_of_one_model_one_resolution_and_one_run(
    begin: Run, run: Run, model: Path, tmp_path: Path
) -> None:
    slide, output = draw(tmp_path / "a.tif", 300, 300), tmp_path / "out"
    events = begin(slide, output=output)
    next(events)
    with pytest.raises(UserError, match="another run"):
        run(slide, output=output)
    events.close()  # type: ignore[attr-defined]
    run(slide, output=output)
    with pytest.raises(UserError, match=r"--mpp 0\.5"):
        run(slide, output=output, mpp=0.4)
    other = tmp_path / "other.safetensors"
    spec = SegmenterSpec(TINY, ("background", "nucleus"), mpp=0.5)
    save_segmenter(build_segmenter(spec, start=None, seed=3), other)
    with pytest.raises(UserError, match="the model tiny"):
        run(slide, output=output, model=other)
    (output / "cohort.json").write_text("[]")
    with pytest.raises(UserError, match="no list of a cohort"):
        run(slide, output=output)


def test_stores_may_lie_at_an_address(run: Run, large: Path, once: Arrays, tmp_path: Path) -> None:
    address = f"memory://{uuid.uuid4().hex}"
    _, done = run(large, output=address)
    assert done.manifest == f"{address}/cohort.json"
    assert_same(arrays(f"{address}/large.zarr"), once)
    events, _ = run(large, output=address)
    assert cells_of(events) == 0
    with pytest.raises(UserError, match="cannot be reached"):
        run(large, output="nowhere://bucket/x")


def test_workers_write_to_an_address(
    run: Run, large: Path, once: Arrays, two_workers: LocalCluster, tmp_path: Path
) -> None:
    _, done = run(large, output=f"local://{tmp_path}/far", scheduler=two_workers.scheduler_address)
    assert done.failed == {}
    assert_same(arrays(tmp_path / "far" / "large.zarr"), once)


def test_a_scheduler_must_be_one_and_answer(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = draw(tmp_path / "a.tif", 300, 300)
    for wrong in ("local:0", "local:many", "node7"):
        with pytest.raises(UserError, match="this is no scheduler"):
            run(slide, output=tmp_path, scheduler=wrong)
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    with pytest.raises(UserError, match="does not answer"):
        run(slide, output=tmp_path, scheduler="tcp://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r'pip install "napari-genselfdiff\[cluster\]"'):
        run(slide, output=tmp_path, scheduler="local:2")
    assert run(slide, output=tmp_path)[1].failed == {}  # threads do not need it


def test_a_worker_of_another_version_is_told(
    run: Run, two_workers: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = draw(tmp_path / "a.tif", 300, 300)
    monkeypatch.setattr(cluster, "__version__", "99.0")
    with pytest.raises(UserError, match=r"install 99\.0"):
        run(slide, output=tmp_path, scheduler=two_workers.scheduler_address)


def test_workers_use_their_own_threads_and_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "_worker", lambda: ("tcp://somewhere", 6))
    assert cells._worker_compute("cpu", None).threads == 6
    assert cells._worker_compute("cpu", 2).threads == 2
    monkeypatch.setattr(cells, "choose_compute", lambda *a, **k: compute.Compute("cuda", None, 1))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert cells._worker_compute("auto", None).device == "cuda"
    monkeypatch.setattr(cells, "_worker", lambda: (6, 1))
    assert cells._worker_compute("auto", None).device == "cuda:2"
