"""Cohorts: which slides, into which folder or address, and by which workers."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

import pytest
import torch
from distributed import LocalCluster
from tests.verbs.conftest import TINY, Arrays, Run, arrays, assert_same, cells_of, draw, manifest

from napari_genselfdiff import compute
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.segmentation.network import SegmenterSpec, build_segmenter, save_segmenter
from napari_genselfdiff.verbs import cells, cluster

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_a_damaged_output_is_told_and_the_others_are_done(run: Run, tmp_path: Path) -> None:
    slides = [draw(tmp_path / "in" / f"{name}.tif", 300, 300) for name in "ab"]
    output = tmp_path / "out"
    run(*slides[:1], output=output)
    (output / "a.zarr" / "zarr.json").write_text('{"cut')
    _, done = run(*slides, output=output)
    assert done.done == [str(slides[1])]
    assert list(done.failed) == [str(slides[0])]


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
