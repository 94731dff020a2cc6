"""Other inference engines than eager torch: speed and difference in probability, on this machine's CPU.

Two networks, one tile of the size that the plugin uses, float32 where nothing else is said: `compact` with
random weights, its batch normalisation folded into the convolutions, and the bundled nuclei segmenter. The
engines, each in a process of its own, take turns, so that whatever else the machine does slows all of them.
In its turn an engine makes some passes in succession, as for a region: the first pass after a pause is
slower, torch's most of all. What is not installed is named and left out.

    pip install onnxruntime onnx openvino
    python benchmarks/engines.py --images runs/nuinsseg/held-out/images --json docs/benchmarks/engines.json

Bar: an engine is used if it is at least 1.5 times as fast as torch and differs by at most 1e-3.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import io
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from napari_genselfdiff import __version__
from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.models.library import DEFAULT_SEGMENTER, resolve
from napari_genselfdiff.segmentation.network import (
    Segmenter,
    SegmenterSpec,
    build_segmenter,
    load_segmenter,
)

TILE = 960
SPEED_BAR = 1.5
DIFFERENCE_BAR = 1e-3
REFERENCE = "torch"
RANDOM = "compact, folded, random"
REDUCED = {"OpenVINO default precision", "torch bfloat16 autocast"}
"""Not held to float32, so not candidates: how far they are off depends on the weights."""
PAUSE = 0.3
"""Seconds between two turns: the threads of an engine still spin for a moment and would slow the next one."""
PASSES = 4
"""Passes in a turn; the first one does not count."""

Run = Callable[[], NDArray[np.float32]]
"""One pass over the tile; returns (1, channels, height, width) probabilities, the core last."""


class EngineMissing(Exception):
    """What an engine needs is not there; the message says what."""


class Probabilities(nn.Module):
    """A segmenter with the softmax and sigmoid that follow it in use, as one graph."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities of the classes, then the core where there is one."""
        logits, core = self.segmenter(x)
        probabilities = logits.softmax(dim=1)
        if core is None:
            return cast(Tensor, probabilities)
        return torch.cat([probabilities, core.sigmoid()[:, None]], dim=1)


@dataclass(frozen=True)
class Job:
    """What an engine is to compute."""

    network: nn.Module
    x: Tensor
    threads: int


def eager(job: Job) -> Run:
    """Torch as the plugin uses it: channels last, no graph."""
    return _with_torch(job.network, job.x)


def eager_bfloat16(job: Job) -> Run:
    """Torch with bfloat16 autocast."""

    def network(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return cast(Tensor, job.network(x))

    return _with_torch(network, job.x)


def frozen(job: Job) -> Run:
    """TorchScript, traced and frozen."""
    return _with_torch(_traced(job), job.x)


def optimised(job: Job) -> Run:
    """The same with `torch.jit.optimize_for_inference`: weights stay in oneDNN's layout."""
    return _with_torch(torch.jit.optimize_for_inference(_traced(job)), job.x)


def fused(job: Job) -> Run:
    """The same as `frozen` with oneDNN Graph, which fuses an activation with its convolution."""
    torch.jit.enable_onednn_fusion(True)
    try:
        run = _with_torch(_traced(job), job.x)
        for _ in range(3):  # the graph is rewritten in the first passes
            run()
    finally:
        torch.jit.enable_onednn_fusion(False)
    return run


def compiled(job: Job) -> Run:
    """`torch.compile` with frozen weights; it needs a C++ compiler, which users seldom have."""
    if not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        raise EngineMissing("no C++ compiler")
    inductor: Any = importlib.import_module("torch._inductor.config")
    inductor.freezing = True
    return _with_torch(torch.compile(job.network), job.x)


def onnx_runtime(job: Job) -> Run:
    """ONNX Runtime's CPU provider."""
    runtime = _needed("onnxruntime")
    _needed("onnx")
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter without further dependencies is the older one
        torch.onnx.export(
            job.network, (job.x,), cast(Any, buffer), dynamo=False, input_names=["x"], opset_version=17
        )
    options = runtime.SessionOptions()
    options.intra_op_num_threads = job.threads
    session = runtime.InferenceSession(buffer.getvalue(), options, providers=["CPUExecutionProvider"])
    x = job.x.contiguous().numpy()
    return lambda: cast(NDArray[np.float32], session.run(None, {"x": x})[0])


def openvino_float32(job: Job) -> Run:
    """OpenVINO, held to float32."""
    return _with_openvino(job, {"INFERENCE_PRECISION_HINT": "f32"})


def openvino_default(job: Job) -> Run:
    """OpenVINO with the precision that it chooses: bfloat16 on CPUs that multiply it in hardware."""
    return _with_openvino(job, {})


ENGINES: dict[str, Callable[[Job], Run]] = {
    REFERENCE: eager,
    "torch trace + freeze": frozen,
    "torch optimize_for_inference": optimised,
    "torch trace + oneDNN Graph": fused,
    "torch.compile": compiled,
    "ONNX Runtime": onnx_runtime,
    "OpenVINO f32": openvino_float32,
    "OpenVINO default precision": openvino_default,
    "torch bfloat16 autocast": eager_bfloat16,
}


def _with_torch(network: Callable[[Tensor], Tensor], x: Tensor) -> Run:
    @torch.inference_mode()
    def run() -> NDArray[np.float32]:
        return cast(NDArray[np.float32], network(x).numpy())

    return run


def _traced(job: Job) -> torch.jit.ScriptModule:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        # No operation depends on the size, and a small example is traced at once.
        traced: Any = cast(Any, torch.jit.trace)(job.network, job.x[..., :64, :64], check_trace=False)
        return cast(torch.jit.ScriptModule, cast(Any, torch.jit.freeze)(traced))


def _with_openvino(job: Job, hints: dict[str, str]) -> Run:
    openvino = _needed("openvino")
    model = openvino.convert_model(_traced(job), input=[list(job.x.shape)])
    settings = {"INFERENCE_NUM_THREADS": job.threads, "PERFORMANCE_HINT": "LATENCY", **hints}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    x = job.x.contiguous().numpy()
    return lambda: np.array(request.infer({0: x}, share_inputs=True)[0], np.float32)


def _needed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EngineMissing(f"{name} is not installed") from error


def tile(images: Path | None) -> NDArray[np.uint8]:
    """An RGB tile: a mosaic of a folder's first 16 images, or noise where there is no folder.

    The time does not depend on it, the difference in probability does.
    """
    if images is None:
        return np.random.default_rng(0).integers(0, 256, (TILE, TILE, 3), dtype=np.uint8)
    side = TILE // 4
    paths = sorted(path for path in images.iterdir() if path.suffix.lower() in {".png", ".tif", ".jpg"})[:16]
    pictures = [
        np.asarray(Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BOX))
        for path in paths
    ]
    rows = [np.concatenate(pictures[start : start + 4], axis=1) for start in range(0, 16, 4)]
    return np.concatenate(rows)


def random_compact(x: Tensor) -> Segmenter:
    """`compact` with random weights and the batch statistics of the tile's patches."""
    spec = SegmenterSpec(
        config=replace(COMPACT, norm="batch"), classes=("background", "nucleus"), mpp=0.5, instances=True
    )
    segmenter = build_segmenter(spec, start=None).train()
    patches = x.unfold(2, 128, 128).unfold(3, 128, 128).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 128, 128)
    with torch.no_grad():
        for start in range(0, len(patches), 8):
            segmenter(patches[start : start + 8])
    return segmenter.eval()


def job(network: str, images: Path | None, threads: int) -> Job:
    """The network of this name and the tile."""
    torch.set_num_threads(threads)
    x = to_unit_range(tile(images)[None])
    segmenter = random_compact(x) if network == RANDOM else load_segmenter(resolve(network))
    return Job(Probabilities(segmenter.for_inference()).eval(), x, threads)


class Worker:
    """One engine in a process of its own: the waiting threads of one slow the others down in the same."""

    run: Run

    def __init__(self, engine: str, network: str, images: Path | None, threads: int) -> None:
        self.pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        self.output = self.pool.submit(_prepare, engine, network, images, threads).result()

    def seconds(self) -> float:
        """Seconds a pass, in one turn."""
        return self.pool.submit(_time).result()


def _prepare(engine: str, network: str, images: Path | None, threads: int) -> NDArray[np.float32]:
    Worker.run = staticmethod(ENGINES[engine](job(network, images, threads)))
    Worker.run()
    return Worker.run().copy()


def _time() -> float:
    Worker.run()
    start = time.perf_counter()
    for _ in range(PASSES - 1):
        Worker.run()
    return (time.perf_counter() - start) / (PASSES - 1)


def measured(
    network: str, names: list[str], rounds: int, images: Path | None, threads: int
) -> dict[str, Any]:
    """Medians, ratios and differences of the engines for one network."""
    workers, missing = {}, {}
    for name in [REFERENCE, *(name for name in names if name != REFERENCE)]:
        try:
            workers[name] = Worker(name, network, images, threads)
        except EngineMissing as error:
            missing[name] = str(error)
        except Exception as error:  # noqa: BLE001 - whatever one engine fails with, the others are measured
            missing[name] = f"failed: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
    outputs = {name: worker.output for name, worker in workers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for first in range(rounds):
        order = list(workers)
        first %= len(order)
        for name in order[first:] + order[:first]:  # another one begins in each round
            time.sleep(PAUSE)
            seconds[name].append(workers[name].seconds())
    for worker in workers.values():
        worker.pool.shutdown()
    engines = {}
    for name, output in outputs.items():
        difference = np.abs(output - outputs[REFERENCE])
        # Within a round whatever slows one engine slows the others too: the ratio is taken there.
        ratios = [a / b for a, b in zip(seconds[REFERENCE], seconds[name], strict=True)]
        ratio, largest = statistics.median(ratios), float(difference.max())
        engines[name] = {
            "seconds": round(statistics.median(seconds[name]), 4),
            "seconds_range": [round(min(seconds[name]), 4), round(max(seconds[name]), 4)],
            "times_as_fast": round(ratio, 3),
            "times_as_fast_range": [round(min(ratios), 3), round(max(ratios), 3)],
            "largest_difference": float(f"{largest:.2g}"),
            "mean_difference": float(f"{difference.mean():.2g}"),
            "passes": name not in REDUCED and ratio >= SPEED_BAR and largest <= DIFFERENCE_BAR,
        }
    return {"rounds": rounds, "engines": engines, "left_out": missing}


def versions() -> dict[str, str]:
    """Versions of the engines that are installed."""
    result = {}
    for name in ("torch", "onnxruntime", "onnx", "openvino"):
        try:
            result[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            result[name] = "not installed"
    return result


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of 16 or more images for the tile; else noise")
    parser.add_argument("--only", nargs="+", choices=ENGINES, default=list(ENGINES), help="these engines")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the report here")
    arguments = parser.parse_args()

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    report = {
        "version": __version__,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "threads": arguments.threads,
            "load_before": load,
        },
        "versions": versions(),
        "tile": TILE,
        "content": "mosaic of 16 images" if arguments.images else "noise",
        "bars": {"times_as_fast": SPEED_BAR, "largest_difference": DIFFERENCE_BAR},
        "networks": {
            network: measured(network, arguments.only, arguments.rounds, arguments.images, arguments.threads)
            for network in (RANDOM, DEFAULT_SEGMENTER)
        },
    }
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
