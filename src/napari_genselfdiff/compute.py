"""The one place where device, precision and thread count are decided."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_genselfdiff.errors import UserError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Compute:
    """Where and how tensors are computed.

    Attributes
    ----------
    device : str
        A torch device: ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    autocast : str or None
        Name of the reduced-precision dtype of the network's forward pass, or None for float32. float32 on
        CPUs: bfloat16 is ten times slower there without AMX or AVX-512 BF16.
    threads : int
        Threads of torch's CPU operators.
    """

    device: str
    autocast: str | None
    threads: int

    def apply(self) -> torch.device:
        """Set torch's thread count and return the device."""
        import torch

        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        return torch.device(self.device)

    def autocasting(self) -> torch.autocast:
        """Context of a forward pass."""
        import torch

        kind = torch.device(self.device).type
        dtype = getattr(torch, self.autocast) if self.autocast else None
        return torch.autocast(kind, dtype=dtype, enabled=self.autocast is not None)


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
    return Compute(device=device, autocast=autocast, threads=threads or available_cores())
