"""Scanner formats, read by OpenSlide."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.slides.colours import as_rgb, damaged
from napari_genselfdiff.slides.dicom_reader import CONVERT, dicom_level, is_dicom
from napari_genselfdiff.slides.dicom_reader import read as read_dicom
from napari_genselfdiff.slides.levels import (
    WHITE,
    Calibration,
    Level,
    Pixels,
    tile_side,
    whole_downsample,
)
from napari_genselfdiff.slides.slide import (
    PLAUSIBLE_MPP,
    PLAUSIBLE_TAG_MPP,
    Slide,
    build_slide,
    plausible_mpp,
)
from napari_genselfdiff.slides.tiff_reader import is_tiff, level_of_size
from napari_genselfdiff.slides.units import micrometres

if TYPE_CHECKING:
    from openslide import OpenSlide

# OpenSlide takes the first page of any tiled TIFF, a fluorescence channel too: tifffile knows better.
NOT_OURS = (None, "generic-tiff")


class SlideFile:
    """An OpenSlide handle that is opened when needed, once a process.

    A handle may be used from many threads but not across a fork, and a read error leaves it unusable for
    good: it is dropped then, so that one damaged tile does not take the rest of the slide with it. A dropped
    handle closes itself when the last thread has left it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: OpenSlide | None = None
        self._process = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[SlideFile], tuple[Path]]:
        return SlideFile, (self.path,)

    def handle(self) -> OpenSlide:
        """Return the open slide."""
        from openslide import OpenSlide

        with self._lock:
            if self._handle is None or self._process != os.getpid():
                self._handle = OpenSlide(self.path)
                self._process = os.getpid()
            return self._handle

    def drop(self, handle: OpenSlide) -> None:
        """Forget a handle that failed."""
        with self._lock:
            if self._handle is handle:
                self._handle = None


class OpenSlideSource:
    """Source of one level of an OpenSlide file.

    Parameters
    ----------
    file : SlideFile
    level : int
    downsample : float
        OpenSlide's own.
    background : tuple of int
        Colour of what was not scanned.
    scanned : Region
        What was scanned, in OpenSlide's level-0 pixels.
    rounding : callable
        Makes whole level-0 pixels of the place of a pixel of the level.
    """

    def __init__(
        self,
        file: SlideFile,
        level: int,
        downsample: float,
        background: tuple[int, int, int],
        *,
        scanned: Region,
        rounding: Callable[[float], int] = round,
    ) -> None:
        self.file, self.level, self.downsample, self.background = file, level, downsample, background
        self.scanned, self.rounding = scanned, rounding

    def __call__(self, y: int, x: int, height: int, width: int) -> Pixels:
        """Read pixels inside the level."""
        from openslide import OpenSlideError

        place = (
            self.scanned.x + self.rounding(x * self.downsample),
            self.scanned.y + self.rounding(y * self.downsample),
        )
        handle = None
        try:
            handle = self.file.handle()
            image = handle.read_region(place, self.level, (width, height))
        except (OpenSlideError, OSError) as error:
            if handle is not None:
                self.file.drop(handle)
            raise damaged(self.file.path, error) from error
        return as_rgb(np.asarray(image), background=self.background)


def read(path: Path) -> Slide | None:
    """Open a slide of a format that OpenSlide knows; None for all others.

    Raises
    ------
    UserError
        If OpenSlide knows the format but cannot read this file.
    """
    from openslide import OpenSlide, OpenSlideError

    if path.is_dir():
        return None
    if OpenSlide.detect_format(path) in NOT_OURS:
        if path.suffix.lower() == ".mrxs":
            # a JPEG file of the whole glass: without its folder it would open as the picture that it is
            raise UserError(
                "the folder with the data of this MRXS slide is missing or damaged",
                path,
                f"put its folder, {path.stem}, beside it",
            )
        return None
    file = SlideFile(path)
    try:
        slide = file.handle()
    except OpenSlideError as error:
        if is_tiff(path):
            return None
        # the message repeats the path in front of the reason
        reason = str(error).replace(str(path), "").removeprefix("Reading : ")
        if is_dicom(path):
            return read_dicom(path, reason)
        raise UserError(
            f"OpenSlide could not read this slide ({reason})",
            path,
            f"the file is damaged or of a kind that OpenSlide does not know: {CONVERT}",
        ) from error

    levels, downsamples = [], []
    scanned = _scanned(slide)
    size = (scanned.height, scanned.width)
    whole = size == _size(slide, 0)
    background = _background(slide)
    # places are asked for in level 0, and of this format OpenSlide drops the fractions that come of it
    rounding = math.ceil if slide.properties.get("openslide.vendor") == "leica" else round
    for index, factor in enumerate(slide.level_downsamples):
        level_size = _size(slide, index) if whole else _shrunk(size, factor)
        level = None
        if factor != round(factor):
            # OpenSlide puts such a level's pixels between level-0 pixels and blends neighbours
            exact = level_of_size if is_tiff(path) else dicom_level
            level = exact(path, level_size)
        if level is None:
            source = OpenSlideSource(file, index, factor, background, scanned=scanned, rounding=rounding)
            level = Level(source, level_size, tile=_tile(slide, index))
        levels.append(level)
        downsamples.append(whole_downsample(size, level_size))
    return build_slide(
        path.name,
        levels,
        downsamples,
        backend="openslide",
        calibration=_calibration(slide),
        where=path,
        icc_profile=_icc_profile(slide),
    )


def _size(slide: OpenSlide, level: int) -> tuple[int, int]:
    width, height = slide.level_dimensions[level]
    return height, width


def _shrunk(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, round(size[0] / factor)), max(1, round(size[1] / factor))


def _scanned(slide: OpenSlide) -> Region:
    """The part of the canvas that the scanner filled, which is what QuPath takes for the slide, too."""
    height, width = _size(slide, 0)
    canvas = Region(0, 0, height, width)
    try:
        y, x, rows, columns = (
            int(slide.properties[f"openslide.bounds-{name}"]) for name in ("y", "x", "height", "width")
        )
    except (KeyError, ValueError):
        return canvas
    return Region(y, x, rows, columns).intersection(canvas) or canvas


def _tile(slide: OpenSlide, level: int) -> tuple[int, int]:
    def side(name: str) -> int:
        return tile_side(int(slide.properties.get(f"openslide.level[{level}].tile-{name}", 0)))

    return side("height"), side("width")


def _calibration(slide: OpenSlide) -> Calibration:
    low, high = PLAUSIBLE_MPP
    sizes = [_number(slide, f"openslide.mpp-{axis}") for axis in "xy"]
    mpp = plausible_mpp(sizes, low=low, high=high)
    if sizes == [None, None]:
        # what every TIFF can say, where the vendor's own words are missing
        unit = slide.properties.get("tiff.ResolutionUnit")
        low, high = PLAUSIBLE_TAG_MPP
        counts = [_number(slide, f"tiff.{axis}Resolution") for axis in "XY"]
        mpp = plausible_mpp(
            [micrometres(1 / count, unit) if count else None for count in counts], low=low, high=high
        )
    return Calibration(mpp, _number(slide, "openslide.objective-power"))


def _icc_profile(slide: OpenSlide) -> bytes | None:
    from PIL import ImageCms

    try:
        profile = slide.color_profile
    except (ImageCms.PyCMSError, OSError):  # a damaged one
        return None
    return None if profile is None else bytes(profile.tobytes())


def _number(slide: OpenSlide, name: str) -> float | None:
    try:
        return float(slide.properties[name])
    except (KeyError, ValueError):
        return None


def _background(slide: OpenSlide) -> tuple[int, int, int]:
    colour = bytes.fromhex(slide.properties.get("openslide.background-color", f"{WHITE:02x}" * 3))
    return colour[0], colour[1], colour[2]
