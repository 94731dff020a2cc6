"""Labels as PNG and TIFF."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.labelmap import (
    HEADER_KEY,
    LabelInfo,
    LabelMap,
    looks_like_instances,
    parse_info,
    smallest_dtype,
)
from napari_genselfdiff.files import atomic_path
from napari_genselfdiff.slides.colours import UNREADABLE

PLAUSIBLE_MPP = (0.02, 100.0)
"""A TIFF whose resolution is outside, such as 72 dpi, does not mean the tissue's."""


class Stored(NamedTuple):
    """What stands in a file.

    Attributes
    ----------
    pixels : ndarray
        As they are stored, in any shape and type.
    info : LabelInfo or None
        What a file of ours says about its labels; None for other programs' files.
    mpp : float or None
        Micrometres per pixel by the tags of a TIFF.
    """

    pixels: NDArray[Any]
    info: LabelInfo | None
    mpp: float | None = None


def write_png(path: Path, label_map: LabelMap, *, bits: int = 8) -> None:
    """Write 8 bits a pixel, or 16 where a label is above 255 or ``bits`` says so."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    labels = smallest_dtype(label_map.labels)
    if bits == 16 and labels.dtype == np.uint8:
        labels = labels.astype(np.uint16)
    if labels.dtype.itemsize > 2:
        raise UserError(f"PNG cannot hold labels up to {labels.max()}", path, "write a .tif or a .zarr")
    text = PngInfo()
    text.add_text(HEADER_KEY, json.dumps(label_map.info))
    with atomic_path(path) as temporary:
        Image.fromarray(labels).save(temporary, pnginfo=text)


def write_tiff(path: Path, label_map: LabelMap) -> None:
    """Write 8, 16 or 32 bits a pixel in compressed tiles, with the resolution in the tags."""
    import tifffile

    per_centimetre = None if label_map.mpp is None else (1e4 / label_map.mpp, 1e4 / label_map.mpp)
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            smallest_dtype(label_map.labels),
            tile=(512, 512),
            compression="zlib",
            photometric="minisblack",
            resolution=per_centimetre,
            resolutionunit="CENTIMETER" if per_centimetre else None,
            description=json.dumps({HEADER_KEY: label_map.info}),
            metadata=None,
            software=False,
        )


def read_image(path: Path) -> LabelMap:
    """Read PNG or BMP: 1, 8 or 16 bits a pixel, or a palette, whose indices are the labels."""
    return _label_map(path)


def read_tiff(path: Path) -> LabelMap:
    """Read the first page of a TIFF; its resolution tags count where they are plausible."""
    return _label_map(path)


def read_labels_image(path: Path) -> NDArray[Any]:
    """Labels of a PNG, BMP or TIFF, without what the file says about them."""
    return checked_labels(read_stored(path).pixels, path)


def read_stored(path: Path) -> Stored:
    """Read an image file as it is, of a TIFF the first page.

    Raises
    ------
    UserError
        If the file is missing or damaged.
    """
    if path.suffix.lower() in (".tif", ".tiff"):
        return _stored_in_tiff(path)
    from napari_genselfdiff.images import open_image

    image = open_image(path)
    try:
        header = json.loads(str(image.info.get(HEADER_KEY, "null")))
    except json.JSONDecodeError:
        header = None
    return Stored(np.asarray(image), parse_info(header))


def checked_labels(labels: NDArray[Any], path: Path) -> NDArray[Any]:
    """Labels as unsigned integers; True is 1.

    Raises
    ------
    UserError
        If the array is not one plane of whole, non-negative numbers below 2^31.
    """
    labels = np.asarray(labels)
    while labels.ndim > 2 and labels.shape[0] == 1:
        labels = labels[0]
    if labels.ndim != 2:
        raise UserError(
            f"labels must have one channel, not the shape {labels.shape}", path, "save them as class numbers"
        )
    if labels.dtype == bool:
        return labels.astype(np.uint8)
    if labels.dtype.kind not in "iu":
        raise UserError(f"labels must be whole numbers, not {labels.dtype}", path, "save them as integers")
    if labels.size and (int(labels.min()) < 0 or int(labels.max()) >= 2**31):
        raise UserError("labels must lie between 0 and 2147483647", path, "number them anew")
    return labels


def _stored_in_tiff(path: Path) -> Stored:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            pixels, description = page.asarray(), page.description
            mpp = _resolution(page)
    except FileNotFoundError as error:
        raise UserError("there is no such file", path, "check the path") from error
    except UNREADABLE as error:  # the codecs' errors are RuntimeErrors
        raise UserError("the labels could not be read", path, "the file is damaged or not a TIFF") from error
    try:
        content = json.loads(description)
    except json.JSONDecodeError:
        content = None
    return Stored(pixels, parse_info(content.get(HEADER_KEY) if isinstance(content, dict) else None), mpp)


def _label_map(path: Path) -> LabelMap:
    pixels, info, mpp = read_stored(path)
    labels = checked_labels(pixels, path)
    if info is None:
        return LabelMap(labels, mpp=mpp, instances=looks_like_instances(labels))
    return LabelMap(labels, **info)


def _resolution(page: Any) -> float | None:
    per_unit, unit = page.tags.get("XResolution"), page.tags.get("ResolutionUnit")
    micrometres = {2: 25400.0, 3: 10000.0}.get(int(unit.value) if unit else 0)
    if per_unit is None or micrometres is None or not all(per_unit.value):
        return None
    mpp = micrometres * per_unit.value[1] / per_unit.value[0]
    return mpp if PLAUSIBLE_MPP[0] <= mpp <= PLAUSIBLE_MPP[1] else None
