"""DICOM whole-slide images that OpenSlide refuses, read by wsidicom, an extra."""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides.colours import as_rgb, damaged
from napari_genselfdiff.slides.levels import Calibration, Level, Pixels, tile_side, whole_downsample
from napari_genselfdiff.slides.slide import PLAUSIBLE_MPP, Slide, build_slide, plausible_mpp

if TYPE_CHECKING:
    from wsidicom import WsiDicom

CONVERT = "convert it to OME-TIFF (with Bio-Formats or QuPath, for example) and open that"
PREAMBLE = 128


class DicomSeries:
    """The files of one series, opened when needed, once a process.

    Parameters
    ----------
    path : Path
        One of them; the others lie in the same folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._slide: WsiDicom | None = None
        self._process = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[DicomSeries], tuple[Path]]:
        return DicomSeries, (self.path,)

    def slide(self) -> WsiDicom:
        """Return the open slide."""
        from wsidicom import WsiDicom

        with self._lock:
            if self._slide is None or self._process != os.getpid():
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of names that are longer than the standard allows
                    self._slide = WsiDicom.open(_series_of(self.path))
                self._process = os.getpid()
                weakref.finalize(self, self._slide.close)
            return self._slide


class DicomSource:
    """Source of one level; ``level`` is wsidicom's, which counts halvings."""

    def __init__(self, series: DicomSeries, level: int) -> None:
        self.series, self.level = series, level

    def __call__(self, y: int, x: int, height: int, width: int) -> Pixels:
        """Read pixels inside the level."""
        try:
            pixels = self.series.slide().read_region((x, y), self.level, (width, height), as_array=True)
        except Exception as error:
            raise damaged(self.series.path, error) from error
        return as_rgb(np.asarray(pixels))


def is_dicom(path: Path) -> bool:
    """Whether a file starts as a DICOM file does."""
    with path.open("rb") as file:
        return file.read(PREAMBLE + 4)[PREAMBLE:] == b"DICM"


def read(path: Path, reason: str) -> Slide:
    """Open a DICOM file with its series.

    Parameters
    ----------
    path : Path
    reason : str
        Why OpenSlide refused it.

    Raises
    ------
    UserError
        If wsidicom is not installed or refuses it too.
    """
    try:
        import wsidicom  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"OpenSlide could not read this DICOM slide ({reason})",
            path,
            f'pip install "napari-genselfdiff[dicom]" and try again, or {CONVERT}',
        ) from error
    series = DicomSeries(path)
    try:
        said = _header(path, "OpticalPathSequence", "BitsAllocated")
        if said.get("BitsAllocated", 8) != 8:
            raise UserError(f"the DICOM slide has {said.BitsAllocated} bits a colour", path, CONVERT)
        levels = _levels(series)
        spacing = series.slide().levels[0].mpp
    except UserError:
        raise
    except Exception as error:
        # the message of wsidicom repeats the path, and OpenSlide's says more
        raise UserError(
            f"neither OpenSlide ({reason}) nor wsidicom ({type(error).__name__}) could read this DICOM slide",
            path,
            f"the file is damaged or does not say that it is a slide's pixels: {CONVERT}",
        ) from error
    mpp = plausible_mpp([spacing.width, spacing.height], low=PLAUSIBLE_MPP[0], high=PLAUSIBLE_MPP[1])
    return build_slide(
        path.name,
        levels,
        [whole_downsample(levels[0].size, level.size) for level in levels],
        backend="wsidicom",
        calibration=Calibration(mpp),
        where=path,
        icc_profile=_icc_profile(said),
    )


def dicom_level(path: Path, size: tuple[int, int]) -> Level | None:
    """Return the level of a DICOM slide that has this size, or None without wsidicom or such a level."""
    try:
        levels = _levels(DicomSeries(path)) if is_dicom(path) else []
    except Exception:  # noqa: BLE001 - OpenSlide's level does nearly as well
        return None
    return next((level for level in levels if level.size == size), None)


def _levels(series: DicomSeries) -> list[Level]:
    return [
        Level(
            DicomSource(series, level.level),
            (level.size.height, level.size.width),
            tile=(tile_side(level.tile_size.height), tile_side(level.tile_size.width)),
        )
        for level in series.slide().levels
    ]


def _icc_profile(said: Any) -> bytes | None:
    paths = said.get("OpticalPathSequence") or [{}]
    profile = paths[0].get("ICCProfile")
    return None if profile is None else bytes(profile)


def _series_of(path: Path) -> list[Path]:
    """The files of the folder that belong to the same series; WsiDicom would take all of the folder."""
    wanted = _header(path, "SeriesInstanceUID").SeriesInstanceUID
    files = [file for file in sorted(path.parent.iterdir()) if file.is_file() and is_dicom(file)]
    return [file for file in files if _header(file, "SeriesInstanceUID").get("SeriesInstanceUID") == wanted]


def _header(path: Path, *tags: str) -> Any:
    import pydicom

    return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(tags))
