"""What an edit changed: the pixels, what they were and what they are, and the bytes of it in the journal."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from napari_genselfdiff.annotations.codes import Codes, Mask
from napari_genselfdiff.annotations.pyramid import bounds, within
from napari_genselfdiff.geometry import Region

# Small deltas (strokes) are packed well; large ones (a whole accepted view) fast, at about 150 MB/s.
_PACKED_WELL = 64 * 1024


@dataclass(frozen=True)
class Patch:
    """Changed pixels of one layer, as they are stored there.

    Attributes
    ----------
    layer : int
    box : Region
        Where, in the pixels of that layer.
    mask : ndarray of bool, shape (box.height, box.width)
        Which pixels changed.
    before, after : ndarray of uint8, shape (mask.sum(),)
        Stored codes of these pixels, in reading order.
    """

    layer: int
    box: Region
    mask: Mask
    before: Codes
    after: Codes

    @classmethod
    def between(cls, layer: int, y: int, x: int, before: Codes, after: Codes) -> Patch | None:
        """Compare two images at a place of a layer, cropped to what differs; None when nothing does."""
        changed = before != after
        crop = bounds(changed)
        if crop is None:
            return None
        window = np.s_[crop.y : crop.bottom, crop.x : crop.right]
        mask = changed[window]
        box = Region(y + crop.y, x + crop.x, crop.height, crop.width)
        return cls(layer, box, mask, before[window][mask], after[window][mask])

    def swapped(self) -> Patch:
        """Return the patch that takes this one back."""
        return Patch(self.layer, self.box, self.mask, self.after, self.before)

    def draw(self, image: Codes, box: Region) -> None:
        """Write ``after`` into an image of a place of the layer, where the two overlap."""
        part = self.box.intersection(box)
        if part is None:
            return
        here = within(part, self.box)
        np.copyto(image[within(part, box)], self._drawn[here], where=self.mask[here])

    @cached_property
    def _drawn(self) -> Codes:
        # Kept, because a large patch is drawn into one chunk after the other.
        full = np.zeros(self.mask.shape, np.uint8)
        full[self.mask] = self.after
        return full


@dataclass(frozen=True)
class Cleared:
    """A chunk that a coarser edit covers wholly: nothing is left in it, whatever it held.

    What it held is not repeated here, so that an edit over half a slide stays small: to bring it back, the
    journal is read again.

    Attributes
    ----------
    layer : int
    box : Region
        The whole chunk, in the pixels of that layer; also beyond the slide.
    """

    layer: int
    box: Region

    def draw(self, image: Codes, box: Region) -> None:
        """Clear an image of a place of the layer, where the two overlap."""
        part = self.box.intersection(box)
        if part is not None:
            image[within(part, box)] = 0


Part = tuple[int, Region]
"""Layer and box of a patch: what the journal says of it in the clear."""


def pack(patches: Sequence[Patch]) -> str:
    """Pixels of some patches as base64 of zlib of, for each, mask bits, before and after."""
    raw = b"".join(
        np.packbits(patch.mask).tobytes() + patch.before.tobytes() + patch.after.tobytes()
        for patch in patches
    )
    return base64.b64encode(zlib.compress(raw, 6 if len(raw) < _PACKED_WELL else 1)).decode("ascii")


def unpack(delta: str, parts: Sequence[Part]) -> list[Patch]:
    """Patches from their bytes and their boxes.

    Raises
    ------
    ValueError
        If the bytes do not fit the boxes.
    """
    try:
        raw = np.frombuffer(zlib.decompress(base64.b64decode(delta, validate=True)), np.uint8)
    except (zlib.error, binascii.Error) as error:
        raise ValueError("the delta is damaged") from error
    patches: list[Patch] = []
    at = 0
    for layer, box in parts:
        pixels = box.height * box.width
        packed = raw[at : at + -(-pixels // 8)]
        mask = np.unpackbits(packed, count=pixels).view(np.bool_).reshape(box.height, box.width)
        at += packed.size
        changed = int(np.count_nonzero(mask))
        patches.append(Patch(layer, box, mask, raw[at : at + changed], raw[at + changed : at + 2 * changed]))
        at += 2 * changed
    if at != raw.size:
        raise ValueError("the delta does not fit its boxes")
    return patches
