"""The one place where device, precision and thread count are decided."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_genselfdiff.errors import UserError

if TYPE_CHECKING:
    import torch

# On Linux, torch asks for huge pages for its larger tensors if this is set before the first of them.
# Otherwise inference on CPUs spends a tenth of its time or more in page faults.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


@dataclass(frozen=True)
class Compute:
    """Where and how tensors are computed.

    Attributes
    ----------
    device : str
        A torch device: ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    autocast : str or None
        Name of the reduced-precision dtype of the network's forward pass, or None for float32. float32 on
        CPUs, where two computers should predict the same.
    threads : int
        Threads of torch's CPU operators.
    training_autocast : str or None
        The same for training. bfloat16 on CPUs that compute with it (AMX or AVX-512 BF16): training is 1.8
        times as fast there, and ten times slower on others.
    """

    device: str
    autocast: str | None
    threads: int
    training_autocast: str | None = None

    def apply(self) -> torch.device:
        """Set torch's thread count and return the device."""
        import torch

        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        return torch.device(self.device)

    def autocasting(self, *, training: bool = False) -> torch.autocast:
        """Context of a forward pass, in use or in training."""
        import torch

        name = self.training_autocast if training else self.autocast
        dtype = getattr(torch, name) if name else None
        return torch.autocast(torch.device(self.device).type, dtype=dtype, enabled=name is not None)


def available_cores() -> int:
    """CPU cores that this process may use (``OMP_NUM_THREADS``, containers and ``taskset`` count)."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity mask
        return os.cpu_count() or 1


def choose_compute(device: str = "auto", *, threads: int | None = None) -> Compute:
    """Decide device, precision and threads.

    Parameters
    ----------
    device : str
        ``auto`` (CUDA, then MPS, then CPU) or a torch device string.
    threads : int, optional
        CPU threads; all available cores by default.

    Raises
    ------
    UserError
        If the device is not known or not present.
    """
    import torch

    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        device = next(name for name in ("cuda", "mps", "cpu") if present[name])
    kind = device.split(":")[0]
    index = device.partition(":")[2]
    count = torch.cuda.device_count() if kind == "cuda" else 1
    known = kind in present and (device == kind or (index.isdecimal() and int(index) < count))
    if not known or not present[kind]:
        names = ", ".join(name for name, there in present.items() if there)
        raise UserError("this device is not available", device, f"use auto or one of: {names}")
    autocast = None
    if kind == "cuda":
        autocast = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    training = "bfloat16" if kind == "cpu" and _has_fast_bfloat16() else autocast
    return Compute(device, autocast, threads or available_cores(), training)


def with_fallback(compute: Compute) -> list[Compute]:
    """A choice of device, and the CPU behind it where it is another one."""
    return [compute] if compute.device == "cpu" else [compute, choose_compute("cpu")]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device has no memory left; torch has a type of its own for CUDA alone."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def release_memory(compute: Compute) -> None:
    """Give the memory that torch holds in reserve back to the device."""
    import torch

    kind = torch.device(compute.device).type
    if kind == "cuda":
        torch.cuda.empty_cache()
    elif kind == "mps":
        torch.mps.empty_cache()


def _has_fast_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; no, where this version of torch does not tell."""
    import torch

    tests = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, test, lambda: False)() for test in tests)
