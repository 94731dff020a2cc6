"""Device, precision and threads."""

from __future__ import annotations

import os

import pytest
import torch

from napari_genselfdiff.compute import Compute, available_cores, choose_compute
from napari_genselfdiff.errors import UserError


@pytest.fixture
def cpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)


@pytest.mark.usefixtures("cpu_only")
def test_cpus_compute_in_float32_on_all_cores() -> None:
    for device in ("auto", "cpu", "cpu:0"):
        compute = choose_compute(device)
        assert torch.device(compute.device).type == "cpu"
        assert compute.autocast is None
        assert compute.threads == available_cores()
    assert choose_compute(threads=1).threads == 1


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_is_preferred_and_computes_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_compute() == Compute("cuda", "bfloat16", available_cores(), "bfloat16")
    assert choose_compute("cuda:1").device == "cuda:1"
    assert choose_compute("cpu").autocast is None
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert choose_compute().autocast == "float16"
    with pytest.raises(UserError, match="not available, cuda:2"):
        choose_compute("cuda:2")


@pytest.mark.usefixtures("cpu_only")
@pytest.mark.parametrize(
    ("tiles", "avx512", "expected"),
    [(True, False, "bfloat16"), (False, True, "bfloat16"), (False, False, None)],
)
def test_cpus_train_in_half_precision_where_they_have_it_and_predict_in_single_precision(
    monkeypatch: pytest.MonkeyPatch, tiles: bool, avx512: bool, expected: str | None
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    compute = choose_compute("cpu")
    assert (compute.autocast, compute.training_autocast) == (None, expected)
    a, b = torch.ones(2, 2), torch.ones(2, 2)
    with compute.autocasting():
        assert (a @ b).dtype == torch.float32
    with compute.autocasting(training=True):
        assert (a @ b).dtype == (torch.bfloat16 if expected else torch.float32)


@pytest.mark.usefixtures("cpu_only")
def test_a_version_of_torch_that_does_not_tell_trains_in_single_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert choose_compute("cpu").training_autocast is None


@pytest.mark.usefixtures("cpu_only")
def test_apple_silicon_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_compute() == Compute("mps", None, available_cores())


@pytest.mark.usefixtures("cpu_only")
@pytest.mark.parametrize("device", ["tpu", "cuda", "cuda:0", "mps", "cpu:7", "cpu:", "cpu:x", "gpu", ""])
def test_devices_that_are_not_there_are_told(device: str) -> None:
    with pytest.raises(UserError, match=r"this device is not available.*use auto or one of: cpu$"):
        choose_compute(device)


def test_what_is_chosen_is_applied() -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            assert Compute("cpu", None, threads).apply() == torch.device("cpu")
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    a = torch.ones(2, 2)
    with Compute("cpu", None, 1).autocasting():
        assert (a @ a).dtype == torch.float32
    with Compute("cpu", "bfloat16", 1).autocasting():
        assert (a @ a).dtype == torch.bfloat16


def test_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 6}, raising=False)
    assert available_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert available_cores() == (os.cpu_count() or 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert available_cores() == 1
