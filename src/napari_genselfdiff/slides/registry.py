"""Readers: functions ``path -> Slide | None``, asked in turn; addresses are Zarr's."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides.addresses import located
from napari_genselfdiff.slides.slide import Slide

Reader = Callable[[Path], Slide | None]


def _load_and_read(module: str, path: Path) -> Slide | None:
    reader: Reader = importlib.import_module(f"napari_genselfdiff.slides.{module}").read
    return reader(path)


# OpenSlide knows the scanners' formats best; what it refuses falls through to the readers behind it.
_READERS: list[Reader] = [
    partial(_load_and_read, module)
    for module in ("openslide_reader", "tiff_reader", "zarr_reader", "image_reader")
]


def register_reader(reader: Reader) -> Callable[[], None]:
    """Add a format; it is asked before those that are there.

    Parameters
    ----------
    reader : callable
        ``path -> Slide | None``: None when the file is not of its format, a ``UserError`` when it is but
        cannot be read.

    Returns
    -------
    callable
        Takes the reader out again.
    """
    _READERS.insert(0, reader)

    def unregister() -> None:
        if reader in _READERS:
            _READERS.remove(reader)

    return unregister


def open_slide(path: str | Path, *, mpp: float | None = None, icc: bool = False) -> Slide:
    """Open a slide file, or an OME-Zarr at an address.

    Parameters
    ----------
    path : str or Path
        A file, the folder of an (OME-)Zarr, or the address of one (``https://``, ``s3://`` and what else
        fsspec can read).
    mpp : float, optional
        Micrometres per pixel, in place of what the file says.
    icc : bool
        Show the colours as the profile in the file means them, where there is one; see `Slide.with_icc`.

    Raises
    ------
    UserError
        If the file is missing, damaged, or in no format that is known, or the address cannot be reached.
    """
    slide = _read(located(path))
    slide = slide.with_icc() if icc else slide
    return slide if mpp is None else slide.with_mpp(mpp)


def _read(path: Path | str) -> Slide:
    if isinstance(path, str):
        from napari_genselfdiff.slides.zarr_reader import read_address

        return read_address(path)
    if not path.exists():
        raise UserError("there is no such slide", path, "check the path")
    if path.is_file() and not path.stat().st_size:
        raise UserError("the slide file is empty", path, "copy or download it again")
    try:
        for reader in list(_READERS):
            slide = reader(path)
            if slide is not None:
                return slide
    except PermissionError as error:
        raise UserError("the slide may not be read", path, "check the file's permissions") from error
    raise UserError(
        "this is not a slide or image that can be opened",
        path,
        "it may be damaged; SVS, NDPI, MRXS, SCN, BIF, DICOM, TIFF, OME-Zarr, PNG and JPEG can be opened",
    )
