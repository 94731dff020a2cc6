"""The pretext's training loop: checkpoints, resumes, yields events."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_genselfdiff.compute import Compute, is_out_of_memory
from napari_genselfdiff.diffusion.config import UNetConfig
from napari_genselfdiff.diffusion.denoising import CALIBRATION_STEP, CALIBRATION_TILES, calibrated
from napari_genselfdiff.diffusion.distributed import Step, Team, joined, shared
from napari_genselfdiff.diffusion.draws import PartGenerator
from napari_genselfdiff.diffusion.objectives import OBJECTIVES, OUTPUTS, Objective, ObjectiveOptions
from napari_genselfdiff.diffusion.patches import PatchSource, Picture
from napari_genselfdiff.diffusion.pictures import COLUMNS, SheetWriter, sheet_path
from napari_genselfdiff.diffusion.settings import SETTINGS as SETTINGS
from napari_genselfdiff.diffusion.settings import PretrainSettings as PretrainSettings
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.errors import OutOfMemoryError, UserError
from napari_genselfdiff.events import CancelToken, Clock, Event, Finished, LossPoint, Progress
from napari_genselfdiff.models.weights import read_weights, save_weights

CHECKPOINT_SECONDS = 120.0
LOSS_EVERY = 20
SHEET_STEP = 2**32
"""A step that no run reaches: the tiles of the sheet are random, but the same for all of a run."""


@dataclass
class _Run:
    """Everything that a checkpoint holds."""

    network: UNet
    average: UNet
    objective: Objective
    optimizer: torch.optim.Adam
    step: int = 0
    seconds: float = 0.0

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What is trained, by name: the network, and the objective where it has weights of its own."""
        own = {"objective": self.objective} if isinstance(self.objective, nn.Module) else {}
        return {"network": self.network, **own}

    def parameters(self) -> dict[str, nn.Parameter]:
        """All that is trained, by name; the network's have no prefix."""
        return {
            name if part == "network" else f"{part}.{name}": parameter
            for part, module in self.modules.items()
            for name, parameter in module.named_parameters()
        }

    def to_tensors(self) -> dict[str, Tensor]:
        parts = self.modules | {"average": self.average}
        tensors = {f"{part}.{k}": v for part, module in parts.items() for k, v in module.state_dict().items()}
        for name, parameter in self.parameters().items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"adam.{key}.{name}"] = value
        return tensors

    def load(self, tensors: dict[str, Tensor], card: dict[str, Any]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        for name, module in (self.modules | {"average": self.average}).items():
            module.load_state_dict(part(f"{name}."))
        self.step, self.seconds = card["steps"], card["seconds"]
        if not self.step:
            return  # Adam has no state before its first step.
        fused = bool(self.optimizer.defaults["fused"])
        for name, parameter in self.parameters().items():
            step = tensors[f"adam.step.{name}"]
            self.optimizer.state[parameter] = {
                # Only the fused Adam counts its steps where the parameter is.
                "step": step.to(parameter.device if fused else "cpu"),
                # It also walks through memory without looking at strides: the moments must lie as their
                # parameter does (channels last), or it mixes them up silently.
                **{
                    key: torch.empty_like(parameter, requires_grad=False).copy_(tensors[f"adam.{key}.{name}"])
                    for key in ("exp_avg", "exp_avg_sq")
                },
            }


def checkpoint_path(output: str | Path) -> Path:
    """Where a run keeps its checkpoint, beside its output."""
    output = Path(output)
    return output.with_name(f"{output.stem}.checkpoint.safetensors")


def pretrain(
    pictures: Sequence[Picture],
    output: str | Path,
    *,
    config: UNetConfig,
    compute: Compute,
    settings: PretrainSettings | None = None,
    seconds: float | None = None,
    steps: int | None = None,
    resume: bool = False,
    start: dict[str, Tensor] | None = None,
    heads_first: int = 0,
    card: dict[str, Any] | None = None,
    cancel: CancelToken | None = None,
) -> Iterator[Event]:
    """Train the pretext on unlabelled images.

    Parameters
    ----------
    pictures : sequence of Path or ndarray
        Images, 8-bit RGB: files, or pixels such as tiles of slides.
    output : str or Path
        Weights file to write (the moving average, half precision, with its card). A checkpoint with
        everything that resuming needs lies beside it, see `checkpoint_path`, and so does a sheet of what the
        average has learned to draw, see `pictures`.
    config : UNetConfig
        The network.
    compute : Compute
    settings : PretrainSettings, optional
        Those of the configuration by default.
    seconds, steps : float, int, optional
        When to stop, counted over all resumed parts of the run; whichever comes first. One is needed.
    resume : bool
        Go on from the checkpoint; the data order continues as if the run had not stopped.
    start : dict of str to Tensor, optional
        Weights to start from instead of random ones.
    heads_first : int
        Steps at the beginning in which the network stays as it is while an objective's own heads, which are
        not kept with the weights, are learned anew; see `Objective`.
    card : dict, optional
        Further entries of the card (data, licence, command).
    cancel : CancelToken, optional

    Yields
    ------
    Event
        `Progress` each step, `LossPoint` every 20 steps, and `Finished` with the path of the weights.

    Raises
    ------
    UserError
        If the checkpoint does not fit, or neither ``seconds`` nor ``steps`` is given.
    OutOfMemoryError
        If the device ran out of memory.

    Notes
    -----
    The batch of a step, its time steps and its noise depend on the seed and the number of the step alone, so
    a resumed run sees the same data as an uninterrupted one. Processes that ``torchrun`` started share each
    batch (see `distributed`), so that they do what one would; only the first one writes, and yields
    `Progress` and `LossPoint`.
    """
    if seconds is None and steps is None:
        raise UserError("the run has no end", None, "give --seconds or --steps")
    settings = settings or SETTINGS[config.name]
    cancel = cancel or CancelToken()
    with joined(compute) as (team, compute):
        device = compute.apply()
        torch.manual_seed(settings.seed)
        network = UNet(config)
        if start is not None:
            try:
                network.load_state_dict(start)
            except RuntimeError as error:
                raise UserError(
                    "the weights do not fit the network",
                    config.name,
                    "choose weights that were made with the same --config",
                ) from error
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        fused = device.type in ("cpu", "cuda")
        options = ObjectiveOptions(
            network.level_widths, settings.schedule, settings.weighting, settings.stain
        )
        objective = OBJECTIVES[settings.objective](options)
        groups = [{"params": list(network.parameters()), "waits": heads_first}]
        if isinstance(objective, nn.Module):
            groups.append({"params": list(objective.to(device).parameters()), "waits": 0})
        optimizer = torch.optim.Adam(groups, lr=settings.learning_rate, fused=fused)
        run = _Run(network, copy.deepcopy(network).requires_grad_(False), objective, optimizer)
        if resume:
            _resume(run, output, config, settings)

        step = shared(Step(network, objective), team, device)
        source = PatchSource(pictures, settings.patch, settings.zoom, settings.seed)
        sheet = _sheet(source, output, settings)
        details = dict(card or {}) | {"images": len(pictures)}
        clock, before, first, saved = Clock(), run.seconds, run.step, 0.0
        total_loss, counted = 0.0, 0
        try:
            while not team.any(_ended(run, seconds, steps) or cancel.cancelled, device):
                total_loss += _step(run, step, source, settings, compute, team)
                counted += 1
                run.seconds = before + clock.seconds
                if run.step % LOSS_EVERY == 0:
                    loss = team.mean(total_loss / counted, device)
                    if team.leads:
                        yield LossPoint(run.step, loss, run.seconds)
                    total_loss, counted = 0.0, 0
                if not team.leads:
                    continue
                yield _progress(run, clock, first, seconds, steps)
                if clock.seconds - saved > CHECKPOINT_SECONDS:
                    _save(run, output, config, settings, details)
                    saved = clock.seconds
                    sheet.write_if_due(run.average, clock.seconds)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError("the device ran out of memory: use a smaller batch") from error
        cancelled = team.any(cancel.cancelled, device)
        if team.leads and not cancelled:
            tiles = source.batch(CALIBRATION_STEP, CALIBRATION_TILES)
            details |= {"denoising": calibrated(run.average, settings, tiles, compute).to_dict()}
        if team.leads:
            _save(run, output, config, settings, details)
        team.wait()
        if team.leads and not cancelled:  # whoever stops a run does not wait for a picture
            sheet.write(run.average)
        yield Finished(
            result=Path(output),
            message=f"{run.step} steps in {run.seconds / 60:.1f} minutes",
            cancelled=cancelled,
        )


def load_pretext(path: str | Path) -> tuple[UNet, dict[str, Any]]:
    """Read a pretext network and its card.

    Raises
    ------
    UserError
        If the file is not a pretext.
    """
    tensors, card = read_weights(path)
    if card.get("kind") != "pretext":
        raise UserError("these are not pretext weights", path, "choose weights made by pretrain or adapt")
    try:
        network = UNet(UNetConfig.from_dict(card["config"]))
        network.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(
            "the weights do not fit the model card", path, "the file is damaged; export it anew"
        ) from error
    return network.to(memory_format=torch.channels_last).eval(), card  # type: ignore[call-overload]


def _step(
    run: _Run,
    step: nn.Module,
    source: PatchSource,
    settings: PretrainSettings,
    compute: Compute,
    team: Team,
) -> float:
    """One optimisation step; returns the loss of this process's part of the batch."""
    part = team.part(settings.batch)
    x0 = source.batch(run.step, settings.batch, part).to(torch.device(compute.device))
    seed = settings.seed * 1_000_003 + run.step
    generator = PartGenerator.seeded(seed, first=part.start, total=settings.batch)
    for group in run.optimizer.param_groups:
        done = run.step + 1 - group["waits"]
        group["lr"] = settings.learning_rate * min(1.0, max(0, done) / max(1, settings.warmup))
    run.network.train()
    run.optimizer.zero_grad(set_to_none=True)
    with compute.autocasting(training=True):
        loss = step(x0, generator)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.parameters().values(), 1.0)
    run.optimizer.step()
    run.step += 1
    decay = min(settings.ema, (1 + run.step) / (10 + run.step))
    follow(run.average, run.network, decay)
    return float(loss.detach())


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move a moving average of weights towards a network.

    The statistics of batch normalisation are moving averages themselves and are copied: averaged once more
    they would lag behind, and a short run would end with those of its beginning.
    """
    averages: list[Tensor] = list(average.parameters())
    torch._foreach_lerp_(averages, list(network.parameters()), 1 - decay)
    for mine, value in zip(average.buffers(), network.buffers(), strict=True):
        mine.copy_(value)


def _ended(run: _Run, seconds: float | None, steps: int | None) -> bool:
    return (steps is not None and run.step >= steps) or (seconds is not None and run.seconds >= seconds)


def _progress(run: _Run, clock: Clock, first: int, seconds: float | None, steps: int | None) -> Progress:
    if steps is not None and seconds is None:
        left = clock.left(run.step - first, steps - first)
        return Progress(run.step, steps, "pretraining", left)
    assert seconds is not None
    return Progress(run.seconds, seconds, "pretraining", max(0.0, seconds - run.seconds))


def _save(
    run: _Run, output: str | Path, config: UNetConfig, settings: PretrainSettings, details: dict[str, Any]
) -> None:
    card = details | {
        "kind": "pretext",
        "name": Path(output).stem,
        "config": config.to_dict(),
        "settings": asdict(settings),
        "input_range": [-1, 1],
        "steps": run.step,
        "seconds": round(run.seconds, 1),
        "gigapixels": round(run.step * settings.batch * settings.patch**2 / 1e9, 4),
    }
    save_weights(checkpoint_path(output), run.to_tensors(), card)
    save_weights(output, run.average.state_dict(), card, half=True)


def _sheet(source: PatchSource, output: str | Path, settings: PretrainSettings) -> SheetWriter:
    return SheetWriter(
        sheet_path(output),
        lambda: source.batch(SHEET_STEP, COLUMNS),
        schedule=settings.schedule,
        prediction=OUTPUTS[settings.objective],
        seed=settings.seed,
    )


def _resume(run: _Run, output: str | Path, config: UNetConfig, settings: PretrainSettings) -> None:
    path = checkpoint_path(output)
    tensors, card = read_weights(path)
    if not {"config", "settings", "steps", "seconds"} <= card.keys():
        raise UserError("this is not a checkpoint", path, "start anew without --resume")
    if card["config"] != json.loads(json.dumps(config.to_dict())):
        raise UserError(
            "the checkpoint is of another network", path, f"use --config {card['config']['name']}"
        )
    if card["settings"] != json.loads(json.dumps(asdict(settings))):
        raise UserError(
            "the checkpoint was made with other settings",
            path,
            f"use --seed {card['settings']['seed']} --objective {card['settings']['objective']}, "
            "or start anew without --resume",
        )
    try:
        run.load(tensors, card)
    except (KeyError, RuntimeError) as error:
        raise UserError("the checkpoint is damaged", path, "start anew without --resume") from error
