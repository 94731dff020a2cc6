"""A label map and what a file says about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

HEADER_KEY = "napari-genselfdiff"
IGNORED = 255
"""Value of a class map where nothing is labelled."""

# Okabe and Ito's palette, which colour-blind people can tell apart.
COLORS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)


class LabelInfo(TypedDict):
    """What a label file says about its labels.

    ``mpp`` is micrometres per label pixel or None; ``class_names`` starts with the background; ``offset`` is
    ``(y, x)`` of the first pixel in level-0 pixels; ``downsample`` is level-0 pixels per label pixel;
    ``instances`` is whether the labels are object ids rather than classes; ``object_classes`` holds the class
    of each object whose class is not 1.
    """

    mpp: float | None
    class_names: tuple[str, ...]
    offset: tuple[int, int]
    downsample: float
    instances: bool
    object_classes: dict[int, int]


@dataclass(frozen=True)
class LabelMap:
    """Labels and their :class:`LabelInfo`.

    Attributes
    ----------
    labels : ndarray of uint8, uint16, uint32 or int32, shape (height, width)
        Classes (255 is not labelled), or ids of objects.
    """

    labels: NDArray[Any]
    mpp: float | None = None
    class_names: tuple[str, ...] = ()
    offset: tuple[int, int] = (0, 0)
    downsample: float = 1.0
    instances: bool = False
    object_classes: dict[int, int] = field(default_factory=dict)

    @property
    def info(self) -> LabelInfo:
        """All but the labels."""
        return {
            "mpp": self.mpp,
            "class_names": self.class_names,
            "offset": self.offset,
            "downsample": self.downsample,
            "instances": self.instances,
            "object_classes": dict(self.object_classes),
        }

    def class_of(self, value: int) -> int:
        """Class of a label: of the object, where the labels are ids."""
        return self.object_classes.get(value, 1) if self.instances else value

    def name_of(self, index: int) -> str:
        """Name of a class."""
        return self.class_names[index] if index < len(self.class_names) else f"class {index}"


def color_of(index: int) -> tuple[int, int, int]:
    """RGB colour of a class, 0 to 255; grey for what is not labelled."""
    return (128, 128, 128) if index in (0, IGNORED) else COLORS[(index - 1) % len(COLORS)]


def parse_info(header: Any) -> LabelInfo | None:
    """Read the info that one of our files carries; None where it carries none or a damaged one."""
    if not isinstance(header, dict):
        return None
    try:
        y, x = header.get("offset", (0, 0))
        mpp = header.get("mpp")
        return {
            "mpp": None if mpp is None else float(mpp),
            "class_names": tuple(str(name) for name in header.get("class_names", ())),
            "offset": (int(y), int(x)),
            "downsample": float(header.get("downsample", 1.0)),
            "instances": bool(header.get("instances", False)),
            "object_classes": {int(k): int(v) for k, v in header.get("object_classes", {}).items()},
        }
    except (TypeError, ValueError, AttributeError):
        return None


def looks_like_instances(labels: NDArray[Any]) -> bool:
    """Guess for a file that does not say: more than 255 values cannot be classes."""
    return bool(labels.size) and int(labels.max()) > IGNORED


def smallest_dtype(labels: NDArray[Any]) -> NDArray[Any]:
    """Store labels in the smallest unsigned type that holds them."""
    largest = int(labels.max()) if labels.size else 0
    return labels.astype(np.min_scalar_type(largest), copy=False)
