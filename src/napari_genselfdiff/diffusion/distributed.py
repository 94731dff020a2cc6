"""A pretext run on several processes, as ``torchrun`` starts them: each takes its part of every batch.

The batch of a step is the one that a single process would see, and so are its time steps and its noise, so
that the number of processes is a matter of speed and not of the result (to rounding).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module

import torch
import torch.distributed as dist
from torch import Tensor, nn

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.objectives import Objective
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.errors import UserError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Team:
    """The processes of a run; a single one is a team as well.

    Attributes
    ----------
    rank : int
        Number of this process; the first, 0, writes files and tells how it goes.
    size : int
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and tells."""
        return self.rank == 0

    def part(self, batch: int) -> slice:
        """Which images of a batch are this process's.

        Raises
        ------
        UserError
            If the batch cannot be shared evenly.
        """
        if batch % self.size:
            raise UserError(
                f"a batch of {batch} cannot be shared evenly by {self.size} processes",
                "torchrun",
                "start as many as divide it",
            )
        count = batch // self.size
        return slice(self.rank * count, (self.rank + 1) * count)

    def any(self, wish: bool, device: torch.device) -> bool:
        """Whether any process wishes something; asked by all of them at once."""
        if self.size == 1:
            return wish
        wishes = torch.tensor([float(wish)], device=device)
        dist.all_reduce(wishes, dist.ReduceOp.MAX)
        return bool(wishes.item())

    def mean(self, value: float, device: torch.device) -> float:
        """Mean of the processes' numbers; asked by all of them at once."""
        if self.size == 1:
            return value
        total = torch.tensor([value], device=device, dtype=torch.float32)
        dist.all_reduce(total)
        return float(total.item()) / self.size

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.size > 1:
            dist.barrier()


def torchrun_rank() -> int:
    """Number of this process among those that ``torchrun`` started; 0 where it did not."""
    return int(os.environ["RANK"]) if _started_by_torchrun() else 0


def _started_by_torchrun() -> bool:
    return all(name in os.environ for name in VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def joined(compute: Compute) -> Iterator[tuple[Team, Compute]]:
    """Find the other processes of the run, by the environment that ``torchrun`` sets.

    Yields
    ------
    Team
    Compute
        With the graphics card that is this process's, where there are several.

    Raises
    ------
    UserError
        If two processes of a machine would have to share a card.
    """
    if not _started_by_torchrun():
        yield Team(), compute
        return
    backend = "gloo"
    if compute.device.startswith("cuda"):
        backend, local = "nccl", int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise UserError(
                f"there are {torch.cuda.device_count()} graphics cards for more processes",
                "torchrun",
                "start one process a card: --nproc-per-node",
            )
        compute = replace(compute, device=f"cuda:{local}")
        torch.cuda.set_device(local)
    # DistributedDataParallel imports it, and its functions take the group of that moment for a default, and
    # keep it for ever: threads that are alive when the interpreter ends may abort the process.
    import_module("torch.distributed.nn.functional")
    dist.init_process_group(backend)
    try:
        yield Team(dist.get_rank(), dist.get_world_size()), compute
    finally:
        dist.destroy_process_group()


class Step(nn.Module):
    """The loss of a batch as the forward pass of one module, so that all of it goes through DDP's."""

    def __init__(self, network: UNet, objective: Objective) -> None:
        super().__init__()
        self.network, self.objective = network, objective

    def forward(self, x0: Tensor, generator: torch.Generator) -> Tensor:
        """Loss of clean images."""
        return self.objective(self.network, x0, generator)


def shared(step: Step, team: Team, device: torch.device) -> nn.Module:
    """A step whose gradients are those of the whole batch.

    Notes
    -----
    Batch normalisation must see the whole batch too: its layers are made synchronised ones, in place, with
    the same parameters, buffers and names. torch has them for CUDA alone.
    """
    if team.size == 1:
        return step
    _synchronise(step, torch.nn.SyncBatchNorm if device.type == "cuda" else _SharedBatchNorm)
    module = nn.parallel.DistributedDataParallel(step, device_ids=[device] if device.type == "cuda" else None)
    # Its reducer, in C++, holds the group, and frees it with the interpreter locked: that waits for the
    # group's threads, of which one may wait for the interpreter to free a tensor. Python unlocks before it
    # frees a group. Attributes go in the order in which they came: with this one Python is the last.
    vars(module)["group_to_free_last"] = module.process_group
    return module


def _synchronise(module: nn.Module, kind: type[nn.SyncBatchNorm] | type[_SharedBatchNorm]) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            new = kind(child.num_features, eps=child.eps, momentum=child.momentum, affine=child.affine)
            # The very parameters: the optimiser and the checkpoint hold these.
            new._parameters, new._buffers = child._parameters, child._buffers
            setattr(module, name, new.train(child.training))
        else:
            _synchronise(child, kind)


class _SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the images of all processes, on any device."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        values = x.float()
        count = values.numel() // values.shape[1] * dist.get_world_size()
        mean = _sum(values.sum(dim=(0, 2, 3))) / count
        centred = values - mean[:, None, None]
        # From the deviations and not from the squares, whose difference would lose its digits.
        variance = _sum(centred.square().sum(dim=(0, 2, 3))) / count
        self._remember(mean.detach(), variance.detach() * (count / (count - 1)))
        scale = (variance + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        shift = 0 if self.bias is None else self.bias[:, None, None]
        normed: Tensor = centred * scale[:, None, None] + shift
        return normed.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def _sum(x: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return total


class _Sum(torch.autograd.Function):
    """Sum over the processes; so is its gradient, as the sum goes into the loss of each of them."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total
