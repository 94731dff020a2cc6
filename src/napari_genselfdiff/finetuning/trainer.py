"""One network in training: steps of the optimiser, the moving average, and what a device has memory for."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_genselfdiff.compute import Compute, is_out_of_memory, release_memory
from napari_genselfdiff.diffusion.pretraining import follow
from napari_genselfdiff.errors import OutOfMemoryError, TrainingError, UserError
from napari_genselfdiff.finetuning.augmentation import Appearance
from napari_genselfdiff.finetuning.examples import PatchBatch
from napari_genselfdiff.segmentation.losses import LOSSES, core_loss
from napari_genselfdiff.segmentation.network import Segmenter, copy_segmenter

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW remembers of each parameter beside the number of steps."""
SKIPPED = "skipped"
FAILURES = 5
"""Steps in a row without a finite loss and gradient, after which a training is given up."""


@dataclass(frozen=True)
class FineTuneSettings:
    """How a fine-tune is run, apart from how long.

    Attributes
    ----------
    patch, batch : int
        Side of the patches in pixels, and patches a step.
    learning_rate : float
        AdamW's highest.
    body_rate : float
        Learning rate of all but the output layer, in multiples of ``learning_rate``.
    weight_decay : float
    pull : float
        How strongly weights are pulled back to where they began (L2-SP, Li et al. 2018, decoupled as weight
        decay is in AdamW): a step takes off ``learning_rate * pull`` of the way.
    ema : float
        Decay of the moving average of the weights, which is what is scored and kept.
    loss : {"dice", "paper"}
        Name of a sum of losses, see `losses.LOSSES`. Soft Dice and cross-entropy learn much faster than the
        paper's (``benchmarks/losses.py``).
    core_weight : float
        How much the loss of the cores of objects counts beside that of the classes. With 1 they come apart a
        little better, but a network that starts from nothing may not find the foreground in time.
    fixed_statistics : bool
        Whether batch normalisation keeps the statistics that the model came with: right for one that knows
        the task and now sees a few corrected places, whose statistics are not those of the slide.
    frozen : tuple of str
        Parts of the network that are not trained, by the beginnings of their names, such as ``stem``.
    appearance : Appearance
        How far the look of the patches may change.
    seed : int
        Seed of the patches.
    """

    patch: int = 128
    batch: int = 8
    learning_rate: float = 1e-3
    body_rate: float = 1.0
    weight_decay: float = 1e-4
    pull: float = 0.0
    ema: float = 0.99
    loss: str = "dice"
    core_weight: float = 0.5
    fixed_statistics: bool = False
    frozen: tuple[str, ...] = ()
    appearance: Appearance = field(default_factory=Appearance)
    seed: int = 0


@dataclass(frozen=True)
class StepLoss:
    """What one step cost: the loss, and the cross-entropy of each patch."""

    loss: float
    patches: list[float]


class Trainer:
    """A copy of a segmenter in training; the one given is not changed.

    Parameters
    ----------
    segmenter : Segmenter
    compute : Compute
    settings : FineTuneSettings
    anchor : dict of str to Tensor, optional
        Weights of the U-Net that ``settings.pull`` pulls to; those that the training begins with by default.
        Weights that the anchor lacks, or has in another shape, are not pulled.

    Attributes
    ----------
    average : Segmenter
        The moving average of the weights: the result.
    step : int
        Steps done.
    skipped : int
        Those of them that changed nothing, as their loss or gradient was not finite.
    micro : int
        Patches that go through the network at once; a step adds up the gradients of several such parts.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        compute: Compute,
        settings: FineTuneSettings,
        *,
        anchor: dict[str, Tensor] | None = None,
    ) -> None:
        self.compute, self.settings = compute, settings
        self.device = compute.apply()
        self.trainee = copy_segmenter(segmenter).to(self.device)
        self.average = copy.deepcopy(self.trainee).requires_grad_(False)
        self.step = self.skipped = self._failures = 0
        self.micro = settings.batch
        for name, parameter in self.trainee.unet.named_parameters():
            parameter.requires_grad_(not name.startswith(settings.frozen))
        head = list(self.trainee.unet.output.parameters())
        own = {id(parameter) for parameter in head}
        body = [p for p in self.trainee.parameters() if id(p) not in own and p.requires_grad]
        groups = [{"params": head, "share": 1.0}, {"params": body, "share": settings.body_rate}]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self._anchor = self._anchored(anchor) if settings.pull else []

    def train_step(self, batch: PatchBatch, rate: float) -> StepLoss | None:
        """One step of the optimiser at a share ``rate`` of the highest learning rate.

        Returns
        -------
        StepLoss or None
            None when the loss or its gradient was not finite: the weights stay as they were.

        Raises
        ------
        OutOfMemoryError
            If the device has no memory for the batch: `shrink`, and take the step again.
        TrainingError
            If so many steps in a row came to nothing.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * group["share"] * rate
        self._to_training_mode()
        self.optimizer.zero_grad(set_to_none=True)
        # Statistics of batch normalisation are taken on the way to the loss.
        statistics = [buffer.clone() for buffer in self.trainee.buffers()]
        try:
            parts = [self._backward(part) for part in _parts(batch, self.micro)]
            norm = torch.nn.utils.clip_grad_norm_(self.trainee.parameters(), 1.0)
            if not math.isfinite(sum(part.loss for part in parts) + float(norm)):
                self._skip(statistics)
                return None
            self.optimizer.step()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError("the device ran out of memory: use a smaller batch, or the CPU") from error
        self._pull(self.settings.learning_rate * rate * self.settings.pull)
        self.step, self._failures = self.step + 1, 0
        follow(self.average, self.trainee, min(self.settings.ema, (1 + self.step) / (10 + self.step)))
        patches = [value for part in parts for value in part.patches]
        return StepLoss(sum(part.loss for part in parts), patches)

    def check(self) -> None:
        """Refuse what a training made when it is worth nothing.

        Raises
        ------
        TrainingError
            If no step changed anything, or the weights are not finite.
        """
        finite = all(bool(v.isfinite().all()) for v in self.average.state_dict().values())
        if not finite or self.step == self.skipped > 0:
            raise _came_to_nothing()

    def shrink(self) -> bool:
        """Halve the patches that go through the network at once; False when it is one already."""
        self.optimizer.zero_grad(set_to_none=True)
        release_memory(self.compute)
        if self.micro == 1:
            return False
        self.micro = -(-self.micro // 2)
        return True

    def snapshot(self) -> Segmenter:
        """A copy of the moving average, ready to be used."""
        return copy_segmenter(self.average).eval()

    def to_tensors(self) -> dict[str, Tensor]:
        """Weights, moving average and the optimiser's memory, by name."""
        tensors = {f"network.{k}": v for k, v in self.trainee.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for name, parameter in self.trainee.named_parameters():
            for moment in MOMENTS:
                if moment in self.optimizer.state.get(parameter, {}):
                    tensors[f"{moment}.{name}"] = self.optimizer.state[parameter][moment]
        return tensors | {SKIPPED: torch.tensor(self.skipped)}

    def load(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go on from what `to_tensors` gave at a step.

        Raises
        ------
        KeyError, RuntimeError
            If the tensors are of another network.
        """

        def named(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.trainee.load_state_dict(named("network."))
        self.average.load_state_dict(named("average."))
        self.step, self.skipped = step, int(tensors.get(SKIPPED, torch.tensor(0)))
        taken = step - self.skipped
        for name, parameter in self.trainee.named_parameters():
            if parameter.requires_grad and taken:
                # preserve_format keeps the strides of the parameter, as the optimiser's own memory has them.
                state = {m: torch.empty_like(parameter).copy_(tensors[f"{m}.{name}"]) for m in MOMENTS}
                where = self.device if self.device.type in ("cpu", "cuda") else "cpu"
                count = torch.tensor(float(taken), device=where)
                self.optimizer.state[parameter] = {"step": count, **{k: v.detach() for k, v in state.items()}}

    def _backward(self, part: tuple[PatchBatch, float]) -> StepLoss:
        """Add the gradient of a part of the batch that counts by its share."""
        batch, share = part
        labels, weight = batch.labels.to(self.device), batch.weight.to(self.device)
        with self.compute.autocasting(training=True):
            logits, core = self.trainee(batch.images.to(self.device))
        loss = torch.stack([term(logits, labels, weight) for term in LOSSES[self.settings.loss]]).sum()
        if core is not None and batch.core is not None:
            target = batch.core.to(self.device)
            loss = loss + self.settings.core_weight * core_loss(core, target, weight * (target >= 0))
        (loss * share).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            entropy = F.cross_entropy(logits, labels, reduction="none")
            patches = (entropy * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1e-6)
        return StepLoss(float(loss.detach()) * share, patches.tolist())

    def _skip(self, statistics: list[Tensor]) -> None:
        """Leave a step out that would spoil the weights; what follows sees other patches."""
        for buffer, before in zip(self.trainee.buffers(), statistics, strict=True):
            buffer.copy_(before)
        self.step, self.skipped, self._failures = self.step + 1, self.skipped + 1, self._failures + 1
        if self._failures >= FAILURES:
            raise _came_to_nothing()

    def _to_training_mode(self) -> None:
        self.trainee.train()
        if self.settings.fixed_statistics:
            for module in self.trainee.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    def _anchored(self, anchor: dict[str, Tensor] | None) -> list[tuple[Tensor, Tensor]]:
        start = anchor if anchor is not None else self.trainee.unet.state_dict()
        return [
            (parameter, start[name].detach().to(parameter).clone())
            for name, parameter in self.trainee.unet.named_parameters()
            if parameter.requires_grad and name in start and start[name].shape == parameter.shape
        ]

    @torch.no_grad()
    def _pull(self, share: float) -> None:
        for parameter, place in self._anchor:
            parameter.lerp_(place, share)


def _parts(batch: PatchBatch, size: int) -> Iterator[tuple[PatchBatch, float]]:
    """Cut a batch; each part counts by the weight of its pixels, as in the loss of the whole."""
    count = len(batch.images)
    if size >= count:
        yield batch, 1.0
        return
    total = float(batch.weight.sum())
    for start in range(0, count, size):
        part = slice(start, start + size)
        weight = batch.weight[part]
        share = float(weight.sum()) / total if total > 0 else 0.0
        core = None if batch.core is None else batch.core[part]
        yield PatchBatch(batch.images[part], batch.labels[part], weight, core), share


def _came_to_nothing() -> TrainingError:
    return TrainingError(
        "the training came to nothing, its numbers are not finite",
        None,
        "start it again; if that does not help, go back to another version of the model, or use the CPU",
    )


def check_end(seconds: float | None, steps: int | None) -> None:
    """Refuse a training that would not end."""
    if seconds is None and steps is None:
        raise UserError("the training has no end", None, "give --seconds or --steps")
