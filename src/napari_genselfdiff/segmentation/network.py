"""The segmenter: the pretext's U-Net at a fixed time step, with a class head and a core head."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_genselfdiff.diffusion.config import UNetConfig
from napari_genselfdiff.diffusion.folding import folded
from napari_genselfdiff.diffusion.objectives.base import TASK_TIMESTEP
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.errors import MissingScaleError, UserError
from napari_genselfdiff.models.weights import read_weights, save_weights

BACKGROUND = "background"
MAX_CLASSES = 17
"""Background and up to 16 classes."""

SAME_SCALE = 0.05
"""Scales that differ from a power of two by less are taken as that power."""

UNKNOWN_CLASS = 4.0
"""Logits by which a class that is new to a model lies below the background."""

DEFAULT_TIMESTEP = TASK_TIMESTEP
"""Time step of the clean input; features are best at small, non-zero noise levels (Baranchuk et al. 2022)."""


@dataclass(frozen=True)
class SegmenterSpec:
    """What a segmenter is, apart from its weights.

    Attributes
    ----------
    config : UNetConfig
        The network.
    classes : tuple of str
        Names; the first is the background.
    mpp : float or None
        Micrometres per pixel that the model works at; None when it was trained on images of unknown
        resolution, which it then takes as they are.
    instances : bool
        Whether a head for the cores of objects separates touching objects.
    timestep : int
        Time step that conditions the network.
    downsample : float
        Input pixels a model pixel; only used when ``mpp`` is None.
    object_area : float or None
        Median area of the objects that it learned, in model pixels; None when it is not known.
    """

    config: UNetConfig
    classes: tuple[str, ...]
    mpp: float | None
    instances: bool = False
    timestep: int = DEFAULT_TIMESTEP
    downsample: float = 1.0
    object_area: float | None = None

    def __post_init__(self) -> None:
        if not 2 <= len(self.classes) <= MAX_CLASSES:
            raise UserError(
                f"a model has 1 to {MAX_CLASSES - 1} classes beside the background",
                f"{len(self.classes) - 1} were given",
                "label fewer classes",
            )

    @property
    def channels(self) -> int:
        """Output channels of the network."""
        return len(self.classes) + int(self.instances)

    def to_card(self) -> dict[str, Any]:
        """Entries of the model card."""
        return {
            "kind": "segmenter",
            "config": self.config.to_dict(),
            "classes": list(self.classes),
            "mpp": self.mpp,
            "instances": self.instances,
            "timestep": self.timestep,
            "downsample": self.downsample,
            "object_area": self.object_area,
            "input_range": [-1, 1],
        }

    def scale_for(self, mpp: float | None, which: str | Path) -> float:
        """Input pixels a model pixel.

        Parameters
        ----------
        mpp : float or None
            Micrometres per pixel of the input.
        which : str or Path
            The input, for the message.

        Raises
        ------
        MissingScaleError
            If the model works at a known resolution and the input does not say its own.
        """
        if self.mpp is None:
            return self.downsample
        if mpp is None:
            raise MissingScaleError(which)
        scale = self.mpp / mpp
        # Objects a few per cent larger or smaller look the same to the network, but pixels that coincide with
        # those of a slide's level are read without resampling.
        nearest = 2.0 ** round(math.log2(scale))
        return nearest if abs(scale / nearest - 1) < SAME_SCALE else scale

    @classmethod
    def from_card(cls, card: dict[str, Any]) -> SegmenterSpec:
        """Inverse of `to_card`; further entries of the card are left alone."""
        return cls(
            config=UNetConfig.from_dict(card["config"]),
            classes=tuple(card["classes"]),
            mpp=card["mpp"],
            instances=card["instances"],
            timestep=card["timestep"],
            downsample=card["downsample"],
            object_area=card.get("object_area"),  # older weights do not say
        )


class Segmenter(nn.Module):
    """Class logits, and the cores of objects where the model knows instances.

    Parameters
    ----------
    spec : SegmenterSpec
    card : dict, optional
        Where the weights come from; kept with them when they are saved.
    """

    def __init__(self, spec: SegmenterSpec, card: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.card = dict(card or {})
        self.unet = UNet(spec.config, spec.channels)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor, *, margin: int = 0) -> tuple[Tensor, Tensor | None]:
        """Segment images.

        Parameters
        ----------
        x : Tensor, shape (n, 3, height, width)
            Images in [-1, 1]; sides are multiples of ``spec.config.stride``.
        margin : int
            Pixels at every border that are seen only, a multiple of the stride.

        Returns
        -------
        logits : Tensor, shape (n, classes, height - 2 * margin, width - 2 * margin)
            softmax over the classes gives probabilities.
        core : Tensor, shape (n, height - 2 * margin, width - 2 * margin), or None
            Logits of lying in the core of an object (`instances.core_target`).
        """
        t = torch.full((1,), self.spec.timestep, device=x.device)
        out = self.unet(x, t, margin=margin).float()
        count = len(self.spec.classes)
        return out[:, :count], out[:, count] if self.spec.instances else None

    def for_inference(self) -> Segmenter:
        """Return this segmenter, or a faster copy that computes the same and cannot be trained."""
        self.eval()
        unet = folded(self.unet, self.spec.timestep)
        if unet is self.unet:
            return self
        fast = copy.copy(self)
        fast._modules = self._modules | {"unet": unet}
        return fast

    def load_body(self, tensors: dict[str, Tensor]) -> None:
        """Take all weights but the output layer from a U-Net (a pretext or another segmenter)."""
        body = {k: v for k, v in tensors.items() if not k.startswith("output.")}
        own = {k: v.shape for k, v in self.unet.state_dict().items() if not k.startswith("output.")}
        if own != {k: v.shape for k, v in body.items()}:
            raise UserError(
                "the weights do not fit the network",
                self.spec.config.name,
                "choose weights that were made with the same --config",
            )
        self.unet.load_state_dict(body, strict=False)


def build_segmenter(spec: SegmenterSpec, *, start: dict[str, Tensor] | None, seed: int = 0) -> Segmenter:
    """Make a segmenter.

    Parameters
    ----------
    spec : SegmenterSpec
    start : dict of str to Tensor or None
        Weights of a U-Net whose layers, but the output layer, are taken over; None for random ones.
    seed : int
        Seed of the random weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        segmenter = Segmenter(spec)
    if start is not None:
        segmenter.load_body(start)
    return segmenter


def copy_segmenter(segmenter: Segmenter) -> Segmenter:
    """An independent copy, weights and card."""
    twin = Segmenter(segmenter.spec, segmenter.card)
    twin.load_state_dict(segmenter.state_dict())
    return twin.to(next(segmenter.parameters()).device)


def with_classes(segmenter: Segmenter, names: Sequence[str]) -> Segmenter:
    """A copy with other names for its classes, and further classes that it does not know yet.

    Parameters
    ----------
    segmenter : Segmenter
    names : sequence of str
        Of all classes, the background first; the first ones are those that it has.

    Returns
    -------
    Segmenter
        It says of every pixel what the other says: a new class is as likely as the background, times a
        small number, until it is learned.
    """
    old = len(segmenter.spec.classes)
    more = len(names) - old
    if more < 0:
        raise ValueError("a model does not forget classes")
    grown = Segmenter(replace(segmenter.spec, classes=tuple(names)), segmenter.card)
    state = dict(segmenter.unet.state_dict())
    for name in ("output.weight", "output.bias"):
        values = state[name]
        new = values[:1].expand(more, *values.shape[1:])
        new = new - UNKNOWN_CLASS if name == "output.bias" else new
        state[name] = torch.cat([values[:old], new, values[old:]])
    grown.unet.load_state_dict(state)
    return grown.to(next(segmenter.parameters()).device).eval()


def save_segmenter(segmenter: Segmenter, path: str | Path, **entries: Any) -> None:
    """Write a segmenter (half precision) with its card, to which ``entries`` are added.

    The segmenter in memory is rounded to what was written, so that it predicts the same after reloading.
    """
    path = Path(path)
    segmenter.card = segmenter.card | entries | {"name": path.stem} | segmenter.spec.to_card()
    save_weights(path, segmenter.unet.state_dict(), segmenter.card, half=True)
    with torch.no_grad():
        for parameter in segmenter.parameters():
            parameter.copy_(parameter.half().float())


def load_segmenter(path: str | Path) -> Segmenter:
    """Read a segmenter.

    Raises
    ------
    UserError
        If the file is missing, damaged or not a segmenter.
    """
    tensors, card = read_weights(path)
    if card.get("kind") != "segmenter":
        raise UserError(
            "these weights do not segment", path, "fine-tune from them first, or choose a segmenter"
        )
    try:
        segmenter = Segmenter(SegmenterSpec.from_card(card), card)
        segmenter.unet.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(
            "the weights do not fit the model card", path, "the file is damaged; export it anew"
        ) from error
    return segmenter.eval()
