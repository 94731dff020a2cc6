"""The edit store: what was drawn on a slide, at the magnification where it was drawn.

Two pyramids of sparse arrays of pixel codes lie in one zarr group:

``own/k``
    What was drawn at layer ``k`` (1 / 2**k of the slide's resolution). This is the truth. A pixel shows the
    finest layer that is not unseen there.
``shown/k``
    What a view at layer ``k`` sees where something finer was drawn: the most frequent seen code of the
    2 x 2 pixels that layer ``k - 1`` shows. Everywhere else it is empty, and the view follows from
    ``own/k`` and the coarser layers. It is derived: a pure function of ``own``.

Notes
-----
Later edits win, whatever their layers. So an edit at layer ``k`` clears what finer layers hold under it, and
only chunks that exist are touched: a stroke over a billion pixels stays a stroke.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from napari_genselfdiff.annotations.chunks import CHUNK, ChunkedArrays, Key, keys_within
from napari_genselfdiff.annotations.codes import ERASED, UNSEEN, Codes, Mask, check, is_edited, visible
from napari_genselfdiff.annotations.delta import Cleared, Patch
from napari_genselfdiff.annotations.pyramid import (
    any_of_four,
    bounds,
    enlarged,
    halved,
    hull,
    layer_count,
    layer_shape,
    rescaled,
    within,
)
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.geometry import Region

FORMAT = 1
_AT_ONCE = 9  # chunks: a stroke of up to 1000 px


class EditStore:
    """Pixel codes of one slide in a folder.

    Use `open`. All boxes are in the pixels of the layer that is named beside them.

    Attributes
    ----------
    folder : Path
        The zarr group.
    shape : tuple of int
        ``(height, width)`` of the slide in level-0 pixels.
    layers : int
        Number of layers; the coarsest is the first that fits into one chunk (512 x 512).
    chunks : ChunkedArrays
        The arrays on disk.
    """

    def __init__(
        self, folder: Path, shape: tuple[int, int], chunks: ChunkedArrays, *, read_only: bool
    ) -> None:
        self.folder = folder
        self.shape = shape
        self.layers = layer_count(shape, CHUNK)
        self.chunks = chunks
        self._read_only = read_only
        self._drawn: dict[Key, Region | None] = {}

    @classmethod
    def open(
        cls, folder: str | Path, *, shape: tuple[int, int], slide_id: str, read_only: bool = False
    ) -> EditStore:
        """Open the store of a slide, and make it when there is none.

        Parameters
        ----------
        folder : str or Path
            The zarr group, usually called ``edits``.
        shape : tuple of int
            ``(height, width)`` of the slide in level-0 pixels.
        slide_id : str
            What identifies the slide.
        read_only : bool
            Look only; a store that is not there is empty.

        Raises
        ------
        UserError
            If the folder is not a store, or belongs to another slide, or cannot be written.
        """
        folder = Path(folder)
        if min(shape) < 1:
            raise UserError(f"a slide of {shape[0]} x {shape[1]} pixels cannot be annotated", folder)
        arrays: dict[str, tuple[int, int]] = {}
        for layer in range(layer_count(shape, CHUNK)):
            arrays[f"own/{layer}"] = layer_shape(shape, layer)
            if layer:
                arrays[f"shown/{layer}"] = layer_shape(shape, layer)
        if folder.exists():
            _check_identity(folder, shape, slide_id)
        elif not read_only:
            attributes = {"format": FORMAT, "shape": list(shape), "slide": slide_id}
            ChunkedArrays.create(folder, arrays, attributes)
        chunks = ChunkedArrays(folder, arrays, read_only=read_only)
        return cls(folder, shape, chunks, read_only=read_only)

    def read(self, layer: int, y: int, x: int, height: int, width: int) -> Codes:
        """Read what is seen at a magnification.

        Parameters
        ----------
        layer, y, x, height, width : int
            A rectangle in the pixels of ``layer``.

        Returns
        -------
        ndarray of uint8, shape (height, width)
            Pixel codes; unseen (0) beyond the slide.

        Raises
        ------
        UserError
            If a stored chunk is damaged.
        """
        out = np.zeros((height, width), np.uint8)
        box = Region(y, x, height, width)
        inside = box.clipped(*layer_shape(self.shape, self._known(layer)))
        if inside is not None:
            out[within(inside, box)] = visible(self._composed(layer, inside))
        return out

    def plan(
        self, layer: int, y: int, x: int, codes: Codes, mask: Mask, *, keep_edited: bool = False
    ) -> list[Patch | Cleared]:
        """Work out what an edit would change in the own layers, without changing it.

        Parameters
        ----------
        layer, y, x : int
            Layer of the edit, and the first pixel of ``codes`` in it.
        codes : ndarray of uint8, shape (height, width)
            New codes; 0 makes a pixel unseen again.
        mask : ndarray of bool, shape (height, width)
            Which pixels are edited. Those beyond the slide are left out.
        keep_edited : bool
            Leave alone what a person drew by hand, at any magnification (for accepting a view).

        Returns
        -------
        list of Patch or Cleared
            The layer of the edit first, then finer ones; empty when nothing changes. Chunks that the edit
            covers wholly are cleared without looking into them.
        """
        check(codes)
        if codes.shape != mask.shape or codes.ndim != 2:
            raise ValueError(f"codes and mask differ in shape: {codes.shape} and {mask.shape}")
        whole = Region(y, x, *codes.shape)
        box = whole.clipped(*layer_shape(self.shape, self._known(layer)))
        crop = bounds(mask[within(box, whole)]) if box is not None else None
        if box is None or crop is None:
            return []
        box = Region(box.y + crop.y, box.x + crop.x, crop.height, crop.width)
        codes, mask = codes[within(box, whole)], mask[within(box, whole)]

        name = f"own/{layer}"
        own = self.chunks.read(name, box)
        below = self._under(layer, box)
        chosen = mask & ~is_edited(np.where(own == UNSEEN, below, own)) if keep_edited else mask
        wanted = codes
        if not bool(codes.all()):
            hidden = visible(below) != UNSEEN
            wanted = np.where((codes == UNSEEN) & hidden, np.uint8(ERASED), codes)
        patches: list[Patch | Cleared | None] = [
            Patch.between(layer, box.y, box.x, own, np.where(chosen, wanted, own))
        ]
        for finer in range(layer - 1, -1, -1):
            fine_box = rescaled(box, layer, finer)
            for key in self.chunks.existing(f"own/{finer}", fine_box):
                part = key.box.intersection(fine_box)
                if part is None:
                    continue
                if not keep_edited and self._covers(mask, box, layer, key, part, finer):
                    patches.append(Cleared(finer, key.box))
                    continue
                old = self.chunks.get(key)[within(part, key.box)]
                covered = enlarged(mask, (box.y, box.x), part, layer - finer) & (old != UNSEEN)
                new: Codes | int = UNSEEN
                if keep_edited:
                    # Hand-drawn pixels of layers in between may stay, so clearing would show those.
                    covered &= ~is_edited(old)
                    new = enlarged(codes, (box.y, box.x), part, layer - finer)
                changed = np.where(covered, new, old).astype(np.uint8)
                patches.append(Patch.between(finer, part.y, part.x, old, changed))
        return [patch for patch in patches if patch is not None]

    def write(self, patches: Sequence[Patch | Cleared]) -> None:
        """Bring the own layers to the patches' ``after`` and show it in the pyramid; doing it twice is safe.

        Raises
        ------
        UserError
            If it cannot be written.
        """
        # Writing a chunk takes milliseconds, so the hundreds under a large edit wait for the next checkpoint.
        # Until then they are in the journal, from where a crash would bring them back.
        touched = sum(1 for patch in patches for _ in keys_within("", patch.box))
        for patch in patches:
            if isinstance(patch, Cleared):
                empty = np.zeros((CHUNK, CHUNK), np.uint8)
                self.put_own(next(keys_within(f"own/{patch.layer}", patch.box)), empty, deferred=True)
                continue
            for key in keys_within(f"own/{patch.layer}", patch.box):
                chunk = self.chunks.get(key).copy()
                patch.draw(chunk, key.box)
                self.put_own(key, chunk, deferred=touched > _AT_ONCE)
        self.refresh_shown([(patch.layer, patch.box) for patch in patches])

    def apply(self, layer: int, y: int, x: int, codes: Codes, mask: Mask) -> list[Patch | Cleared]:
        """Write codes where the mask is set; returns what changed (see `plan`)."""
        patches = self.plan(layer, y, x, codes, mask)
        self.write(patches)
        return patches

    def put_own(self, key: Key, chunk: Codes, *, deferred: bool = False) -> None:
        """Replace a whole chunk of an own layer; `refresh_shown` is left to the caller."""
        self.chunks.put(key, chunk, deferred=deferred)
        self._drawn.pop(key, None)

    def refresh_shown(self, boxes: Iterable[tuple[int, Region]]) -> None:
        """Recompute what coarser views see of places where own layers changed.

        Parameters
        ----------
        boxes : iterable of (int, Region)
            Layer and rectangle of every change.
        """
        changed = list(boxes)
        for layer in range(1, self.layers):
            name, children = f"shown/{layer}", (f"own/{layer - 1}", f"shown/{layer - 1}")
            stale: dict[Key, Region] = {}
            for source, box in changed:
                here = rescaled(box, source, layer)
                below = rescaled(here, layer, layer - 1)
                keys = set(self.chunks.existing(name, here))
                for child in children[: 1 if layer == 1 else 2]:
                    for key in self.chunks.existing(child, below):
                        keys.add(Key(name, key.row // 2, key.column // 2))
                for key in keys:
                    part = key.box.intersection(here)
                    if part is not None:
                        stale[key] = hull([stale[key], part]) if key in stale else part
            for key, part in stale.items():
                self._refresh_chunk(layer, key, part)

    def touched_regions(self, layer: int) -> list[Region]:
        """List where something was drawn at a layer: a box of seen pixels a chunk, in level-0 pixels.

        Notes
        -----
        A pixel that a finer layer made unseen again still counts.
        """
        name = f"own/{self._known(layer)}"
        regions = (self._drawn_box(key) for key in sorted(self.chunks.keys(name)))
        slide = Region(0, 0, *self.shape)
        scaled = (rescaled(region, layer, 0).intersection(slide) for region in regions if region is not None)
        return [region for region in scaled if region is not None]

    def supervised_boxes(self) -> list[Region]:
        """`touched_regions` of all layers, finest first; boxes of different layers may overlap."""
        return [region for layer in range(self.layers) for region in self.touched_regions(layer)]

    def _known(self, layer: int) -> int:
        if not 0 <= layer < self.layers:
            raise ValueError(f"layer {layer} does not exist: the slide has layers 0 to {self.layers - 1}")
        return layer

    def _covers(self, mask: Mask, box: Region, layer: int, key: Key, part: Region, finer: int) -> bool:
        """Whether an edit's mask, at its layer and box, covers all of a finer chunk that is on the slide."""
        if part != key.box.clipped(*layer_shape(self.shape, finer)):
            return False
        return bool(mask[within(rescaled(part, finer, layer), box)].all())

    def _under(self, layer: int, box: Region) -> Codes:
        """Read the stored codes that the layers coarser than one give its pixels."""
        out = np.zeros((box.height, box.width), np.uint8)
        for coarser in range(layer + 1, self.layers):
            coarse_box = rescaled(box, layer, coarser)
            if not self.chunks.existing(f"own/{coarser}", coarse_box):
                continue
            coarse = self.chunks.read(f"own/{coarser}", coarse_box)
            large = enlarged(coarse, (coarse_box.y, coarse_box.x), box, coarser - layer)
            out = np.where(out == UNSEEN, large, out)
        return out

    def _composed(self, layer: int, box: Region) -> Codes:
        """Read what a layer shows, as stored codes."""
        own = self.chunks.read(f"own/{layer}", box)
        if layer:
            shown = self.chunks.read(f"shown/{layer}", box)
            own = np.where(shown == UNSEEN, own, shown)
        if bool(own.all()):
            return own
        return np.where(own == UNSEEN, self._under(layer, box), own)

    def _refresh_chunk(self, layer: int, key: Key, part: Region) -> None:
        # Reading beyond the slide gives unseen pixels, so the last, partial pixels need no special case.
        below = rescaled(part, layer, layer - 1)
        children = (f"own/{layer - 1}", f"shown/{layer - 1}")[: 1 if layer == 1 else 2]
        existing = [child for child in children if self.chunks.existing(child, below)]
        if not existing and part == key.box:  # nothing is left of it, whatever it held
            self.chunks.put(key, np.zeros((CHUNK, CHUNK), np.uint8), deferred=True)
            return
        drawn = np.zeros((below.height, below.width), bool)
        for child in existing:
            drawn |= self.chunks.read(child, below) != UNSEEN
        touched = any_of_four(drawn)
        new = np.zeros((part.height, part.width), np.uint8)
        inner = bounds(touched)
        if inner is not None:  # often a stroke in a chunk: what lies around it is not looked at
            where = Region(part.y + inner.y, part.x + inner.x, inner.height, inner.width)
            finer = rescaled(where, layer, layer - 1)
            seen = halved(self.read(layer - 1, finer.y, finer.x, finer.height, finer.width))
            seen = np.where(seen == UNSEEN, np.uint8(ERASED), seen)
            here = within(where, part)
            np.copyto(new[here], seen, where=touched[here])
        self._replace_shown(key, part, new)

    def _replace_shown(self, key: Key, part: Region, new: Codes) -> None:
        old = self.chunks.get(key)
        window = within(part, key.box)
        if not np.array_equal(old[window], new):
            chunk = old.copy()
            chunk[window] = new
            self.chunks.put(key, chunk, deferred=True)

    def _drawn_box(self, key: Key) -> Region | None:
        if self._read_only or key not in self._drawn:
            box = bounds(visible(self.chunks.get(key)) != UNSEEN)
            if box is not None:
                box = Region(key.box.y + box.y, key.box.x + box.x, box.height, box.width)
            self._drawn[key] = box
        return self._drawn[key]


def is_store(folder: Path) -> bool:
    """Whether a folder says of itself that it is an edit store, of whatever slide."""
    return identity(folder) is not None


def identity(folder: Path) -> tuple[int, tuple[int, int], str] | None:
    """Format, shape and slide of a store; None when its description cannot be read."""
    try:
        attributes = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))["attributes"]
        height, width = attributes["shape"]
        return int(attributes["format"]), (int(height), int(width)), str(attributes["slide"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_identity(folder: Path, shape: tuple[int, int], slide_id: str) -> None:
    known = identity(folder)
    if known is None:
        raise UserError(
            "the annotations cannot be read: this is no edit store",
            folder,
            "move the folder away and open the session again: it is rebuilt from the journal",
        )
    if known[0] != FORMAT:
        raise UserError(f"the annotations have format {known[0]}", folder, "update napari-genselfdiff")
    if known[1] != tuple(shape):
        raise UserError(
            f"the annotations belong to a slide of {known[1][0]} x {known[1][1]} pixels, not"
            f" {shape[0]} x {shape[1]}",
            folder,
            "open the session with its own slide, or choose another session folder",
        )
    if known[2] != slide_id:
        raise UserError(
            "the annotations belong to another slide",
            folder,
            "open the session with its own slide, or choose another session folder",
        )
