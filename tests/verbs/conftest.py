"""Large slides, worker processes, and what cohorts make of them."""

from __future__ import annotations

import json
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
from distributed import LocalCluster
from numpy.typing import NDArray

from napari_genselfdiff import compute
from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.events import Event, Finished, Progress
from napari_genselfdiff.segmentation.network import SegmenterSpec, build_segmenter, save_segmenter
from napari_genselfdiff.verbs.cluster import ONE_EACH
from napari_genselfdiff.verbs.cohort import Cohort, segment_cohort

TINY = replace(COMPACT, name="tiny", widths=(8, 16), full_width=8)
TALL, WIDE = 3000, 2104
ALL_CELLS = 3 * 3
Arrays = dict[str, NDArray[Any]]


@pytest.fixture
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
        dask.config.set({"distributed.scheduler.allowed-failures": 0} | ONE_EACH),
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
