"""TIFF, BigTIFF and OME-TIFF, with or without a pyramid, read by tifffile."""

from __future__ import annotations

import math
import os
import re
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides.colours import UNREADABLE, ArraySource
from napari_genselfdiff.slides.levels import TILE, Calibration, Level, whole_downsample
from napari_genselfdiff.slides.slide import (
    PLAUSIBLE_MPP,
    PLAUSIBLE_TAG_MPP,
    Slide,
    build_slide,
    plausible_mpp,
)
from napari_genselfdiff.slides.units import micrometres

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
LARGEST_CHUNK = 512 * 2**20
MIN_IS_WHITE, YCBCR = 0, 6
NOT_RGB = (3, 5, 8, 9, 10)
"""Palettes, CMYK, and L*a*b* in three kinds."""
LOSSLESS = (1, 5, 8, 32773, 32946, 34925, 50000)
"""Compressions that keep YCbCr as it is; JPEG's decoders make RGB of it."""


class TiffHandle:
    """A tifffile handle that is opened when needed, once a process, and its levels as arrays."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tiff: TiffFile | None = None
        self._arrays: dict[tuple[int, int], Any] = {}
        self._process = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[TiffHandle], tuple[Path]]:
        return TiffHandle, (self.path,)

    def tiff(self) -> TiffFile:
        """Return the open file."""
        with self._lock:
            return self._open()

    def array(self, series: int, level: int) -> Any:
        """Return a level as an array that decodes what is asked for (zarr or a memory map)."""
        import tifffile
        import zarr

        with self._lock:
            image = self._open().series[series]
            pages = image.levels[level]
            if (series, level) not in self._arrays:
                if pages.dataoffset is not None and pages.keyframe.is_memmappable:
                    array: Any = tifffile.memmap(self.path, series=series, level=level, mode="r")
                else:
                    # tiles that a sparse file leaves out are glass
                    store = image.aszarr(level=level, fillvalue=255)
                    array = zarr.open_array(store, mode="r")
                self._arrays[series, level] = array
            return self._arrays[series, level]

    def _open(self) -> TiffFile:
        from tifffile import TiffFile

        if self._tiff is None or self._process != os.getpid():
            self._tiff = TiffFile(self.path)
            self._process = os.getpid()
            self._arrays = {}
            weakref.finalize(self, self._tiff.close)
        return self._tiff


class TiffSource(ArraySource):
    """Source of one level of a TIFF file."""

    def __init__(
        self, handle: TiffHandle, series: int, level: int, axes: str, *, inverted: bool = False
    ) -> None:
        super().__init__(None, axes, name=handle.path, inverted=inverted)
        self.handle, self.series, self.level = handle, series, level

    @property
    def array(self) -> Any:
        """The level, decoded on demand."""
        return self.handle.array(self.series, self.level)


def is_tiff(path: Path) -> bool:
    """Whether a file starts as a TIFF does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) in SIGNATURES


def read(path: Path) -> Slide | None:
    """Open a TIFF of RGB or grey 8-bit pixels; None for other formats, and for colours that Pillow converts.

    Raises
    ------
    UserError
        If the TIFF is damaged, has more than 8 bits, channels instead of colours, or is a stack.
    """
    if not is_tiff(path):
        return None
    handle = TiffHandle(path)
    try:
        found = _levels(handle)
        if found is None:
            return None
        levels, series = found
        calibration = _calibration(handle.tiff(), series)
    except UserError:
        raise
    except UNREADABLE as error:
        raise UserError(
            f"the TIFF could not be read ({error})", path, "it may be damaged: copy or download it again"
        ) from error
    return build_slide(
        path.name,
        levels,
        [whole_downsample(levels[0].size, level.size) for level in levels],
        backend="tifffile",
        calibration=calibration,
        where=path,
        icc_profile=handle.tiff().series[series].keyframe.iccprofile,
    )


def level_of_size(path: Path, size: tuple[int, int]) -> Level | None:
    """Return the level of a TIFF's largest image that has this size, if there is one."""
    try:
        found = _levels(TiffHandle(path))
    except (UserError, *UNREADABLE):
        return None
    return next((level for level in found[0] if level.size == size), None) if found else None


def _levels(handle: TiffHandle) -> tuple[list[Level], int] | None:
    """Levels of the largest image of a file, and its number."""
    series = handle.tiff().series
    if not series:
        raise UserError("the TIFF has no image in it", handle.path, "it may be damaged: copy it again")
    number = max(range(len(series)), key=lambda i: math.prod(_size(series[i])))
    image = series[number]
    page = image.keyframe
    if page.photometric in NOT_RGB or image.dtype.kind == "b":
        return None  # small pictures; Pillow converts their colours
    if page.photometric == YCBCR and page.compression in LOSSLESS:
        return None  # small pictures; Pillow converts their colours
    axes = _check(image, handle.path)
    levels: list[Level] = []
    height, width = _size(image)
    for index, pages in enumerate(image.levels):
        size = _size(pages)
        if not any(pages.keyframe.dataoffsets):
            raise UserError("the TIFF has no pixels in it", handle.path, "it may be damaged: copy it again")
        # A thumbnail or label that was taken for a level betrays itself by its aspect.
        slack = max(0.02, 1.5 / min(size))
        if abs(size[0] * width / (size[1] * height) - 1) > slack or (levels and size >= levels[-1].size):
            continue
        inverted = page.photometric == MIN_IS_WHITE and "c" not in axes
        source = TiffSource(handle, number, index, axes, inverted=inverted)
        levels.append(_level(source, size, pages, handle.path))
    return levels, number


def _level(source: TiffSource, size: tuple[int, int], pages: TiffPageSeries, path: Path) -> Level:
    page = pages.keyframe
    if pages.dataoffset is not None and page.is_memmappable:
        return Level(source, size, cached=False)
    length, width = page.chunks[:2]
    if length * width * 3 > LARGEST_CHUNK:
        raise UserError(
            f"the TIFF holds {length} x {width} pixels in one compressed piece, too large to open by parts",
            path,
            "convert it to a tiled TIFF (vips tiffsave --tile, or QuPath's OME-TIFF export)",
        )
    if (length, width) == size and size[0] * size[1] > TILE * TILE:
        # One piece: decoding it again for every look would cost more than keeping it.
        return Level(
            ArraySource(source.array[...], source.axes, name=path, inverted=source.inverted),
            size,
            cached=False,
        )
    return Level(source, size, tile=(_whole(length), _whole(width)))


def _whole(native: int) -> int:
    return native * max(1, round(TILE / native))


def _size(series: TiffPageSeries) -> tuple[int, int]:
    extents = dict(zip(series.axes, series.shape, strict=True))
    return extents.get("Y", 0), extents.get("X", 0)


def _check(image: TiffPageSeries, path: Path) -> str:
    """Return the axes as ``ArraySource`` wants them, or tell why the pixels are not RGB."""
    extents = dict(zip(image.axes, image.shape, strict=True))
    todo = "export the slide as 8-bit RGB, for example with QuPath or Fiji"
    if image.dtype != "uint8":
        raise UserError(f"the TIFF has {image.dtype} pixels instead of 8-bit RGB", path, todo)
    extra = {axis: extent for axis, extent in extents.items() if axis not in "YXS" and extent > 1}
    if "C" in extra:
        raise UserError(
            f"the TIFF has {extra['C']} separate channels (fluorescence?) instead of RGB colours", path, todo
        )
    if extra:
        raise UserError(
            f"the TIFF is a stack of {math.prod(extra.values())} images",
            path,
            "save one image of it as a file of its own",
        )
    if extents.get("S", 3) not in (1, 3, 4):
        raise UserError(f"the TIFF has {extents['S']} samples a pixel instead of RGB", path, todo)
    return image.axes.lower().replace("c", "-").replace("s", "c")


def _calibration(tiff: TiffFile, series: int) -> Calibration:
    page = tiff.series[series].keyframe
    if tiff.is_ome and tiff.ome_metadata:
        return Calibration(_ome_mpp(tiff.ome_metadata, series))
    description = page.description or ""
    said = re.search(r"\bMPP\s*=\s*([0-9.]+)", description)
    power = re.search(r"\bAppMag\s*=\s*([0-9.]+)", description)
    mpp = plausible_mpp([float(said[1])], low=PLAUSIBLE_MPP[0], high=PLAUSIBLE_MPP[1]) if said else None
    unit = (tiff.imagej_metadata or {}).get("unit") if tiff.is_imagej else None
    unit = unit and unit.replace(r"\u00B5", "µ")  # as Java escapes it
    return Calibration(mpp or _tag_mpp(page, unit), float(power[1]) if power else None)


def _ome_mpp(xml: str, series: int) -> float | None:
    from tifffile import xml2dict

    try:
        images = xml2dict(xml)["OME"]["Image"]
        pixels = (images[series] if isinstance(images, list) else images)["Pixels"]
        sizes = [
            micrometres(float(pixels[f"PhysicalSize{axis}"]), pixels.get(f"PhysicalSize{axis}Unit", "µm"))
            for axis in "XY"
        ]
    except (KeyError, IndexError, TypeError, ValueError, SyntaxError):  # invalid XML is a SyntaxError
        return None
    return plausible_mpp(sizes, low=PLAUSIBLE_MPP[0], high=PLAUSIBLE_MPP[1])


def _tag_mpp(page: Any, unit: str | None) -> float | None:
    """Resolution in the tags; ``unit`` is ImageJ's, which it keeps elsewhere."""
    unit = {2: "inch", 3: "cm"}.get(int(page.resolutionunit)) or unit
    sizes = [micrometres(1 / value, unit) if value else None for value in page.resolution]
    return plausible_mpp(sizes, low=PLAUSIBLE_TAG_MPP[0], high=PLAUSIBLE_TAG_MPP[1])
