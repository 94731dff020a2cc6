"""Configurations of the one U-Net; saved in the metadata of every weights file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a U-Net.

    Attributes
    ----------
    name : str
        Name of the configuration.
    widths : tuple of int
        Channels of each level, from fine to coarse; each level has half the resolution of the one before.
    stem_stride : int
        Stride of the first convolution: 1, or 2 to begin at half the resolution.
    blocks : int
        Residual blocks of each level.
    norm : {"batch", "group", "pixel"}
        ``batch``: batch normalisation, whose statistics are fixed in use and fold into the convolutions, so
        that a prediction does not depend on the tile. ``group``: GroupNorm with 8 groups, whose statistics
        are those of the whole tile. ``pixel``: layer normalisation over the channels of each pixel.
    attention : bool
        Linear attention on each level and full attention in the middle (statistics of the whole tile).
    time_scale : bool
        Whether the time embedding scales features as well as shifting them (FiLM, Perez et al. 2018).
    resample_kernel : {2, 4}
        Kernel of the strided and transposed convolutions between levels.
    full_width : int
        Channels at full resolution behind a stride-2 stem; not used with stride 1.
    """

    name: str
    widths: tuple[int, ...]
    stem_stride: Literal[1, 2]
    blocks: int
    norm: Literal["batch", "group", "pixel"]
    attention: bool
    time_scale: bool
    resample_kernel: Literal[2, 4]
    full_width: int = 16

    @property
    def stride(self) -> int:
        """Total stride in pixels; input sizes are multiples of it, tiles start at multiples of it."""
        return int(self.stem_stride * 2 ** (len(self.widths) - 1))

    @property
    def tile_independent(self) -> bool:
        """Whether a prediction is free of statistics over the tile."""
        return self.norm != "group" and not self.attention

    @property
    def reach(self) -> int:
        """How far a pixel sees at most, in pixels, rounded up to the stride; for tile-independent networks.

        Two 3 x 3 convolutions a block: ``blocks`` blocks on the way down and up at every level (one at the
        end of the way up), one in the middle.
        """
        levels: list[int] = [self.stem_stride << index for index in range(len(self.widths))]
        pixels = 2 * self.blocks * (2 * sum(levels) - levels[0]) + 2 * levels[0] + 2 * levels[-1]
        pixels += 4 + (self.resample_kernel // 2 - 1) * 2 * sum(levels)  # the first and last convolution
        return -(-pixels // self.stride) * self.stride

    @property
    def decoder_margins(self) -> tuple[int, ...]:
        """Pixels around a place that each level of the decoder must see, coarsest first, in its pixels."""
        margins = [(1 if self.stem_stride == 2 else 0) + 2]
        for _ in self.widths[1:]:
            margins.append(-(-margins[-1] // 2) + self.resample_kernel // 2 - 1 + 2 * self.blocks)
        return tuple(margins[::-1])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> UNetConfig:
        """Inverse of `to_dict`."""
        return cls(**{**values, "widths": tuple(values["widths"])})


PAPER = UNetConfig(
    name="paper",
    widths=(64, 128, 256, 512),
    stem_stride=1,
    blocks=2,
    norm="group",
    attention=True,
    time_scale=False,
    resample_kernel=4,
)
"""The network of arXiv 2309.01487: about 31 million parameters."""

COMPACT = UNetConfig(
    name="compact",
    widths=(32, 64, 128, 256),
    stem_stride=2,
    blocks=1,
    norm="batch",
    attention=False,
    time_scale=True,
    resample_kernel=2,
)
"""A network for two CPU cores."""

CONFIGS = {config.name: config for config in (COMPACT, PAPER)}
