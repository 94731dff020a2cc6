"""Data sets in the layouts that the field has them in; a layout is one file in ``layouts``."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.layouts.item import DatasetItem, Finding, Request, listed

AUTO = "auto"
# The first that is found counts: what is more particular comes before what is less.
LAYOUTS = {"monuseg": "monuseg", "glas": "glas", "ome-zarr": "omezarr", "pairs": "pairs"}


def open_dataset(
    folder: str | Path,
    layout: str = AUTO,
    *,
    mpp: float | None = None,
    labels: str | Path | None = None,
    instances: bool | None = None,
) -> list[DatasetItem]:
    """Open a data set; pixels are read when an item is loaded.

    Parameters
    ----------
    folder : str or Path
        The data set, or up to two folders above it.
    layout : str
        A name in ``LAYOUTS``, or ``auto``.
    mpp : float, optional
        Micrometres per pixel, in place of what the layout or the files say.
    labels : str or Path, optional
        Folder of masks, in place of the layout's own annotations; name of the label image in OME-Zarr.
    instances : bool, optional
        Whether labels shall be ids of objects or classes. MoNuSeg and GlaS have ids, which become one class
        with False. Of masks and OME-Zarr it says what they hold, where that is not clear.

    Returns
    -------
    list of DatasetItem
        Sorted by name; at least one.

    Raises
    ------
    UserError
        If the folder does not exist or has no layout that is known, or the data set is not complete.
    """
    _, finding = find_dataset(
        Request(Path(folder), mpp, None if labels is None else str(labels), instances), layout
    )
    while True:
        try:
            next(finding)
        except StopIteration as stop:
            items: list[DatasetItem] = stop.value
            return items


def find_dataset(request: Request, layout: str = AUTO) -> tuple[str, Finding]:
    """Recognise a layout.

    Returns
    -------
    layout : str
        A name in ``LAYOUTS``.
    finding : generator
        Yields `Progress` and returns the items, sorted by name.

    Raises
    ------
    UserError
        If the folder does not exist, has no layout that is known, or holds several data sets.
    """
    folder = request.folder
    if not folder.is_dir():
        raise UserError("there is no such folder", folder, "check the path")
    try:
        name, place = _detect(folder, layout, request.labels)
    except OSError as error:
        raise UserError(f"the folder could not be read ({error.strerror})", folder, "check it") from error
    request = Request(place, request.mpp, request.labels, request.instances, request.cancel)
    return name, _finding(name, request)


def _detect(folder: Path, layout: str, labels: str | None) -> tuple[str, Path]:
    if layout != AUTO and layout not in LAYOUTS:
        raise UserError("there is no such layout", layout, f"use {AUTO}, {', '.join(LAYOUTS)}")
    places: dict[Path, str] = {}
    for name in LAYOUTS if layout == AUTO else [layout]:
        for place in _module(name).detect(folder):
            places.setdefault(place, name)
    # A folder in a data set is a part of it, whatever it looks like on its own.
    places = {place: name for place, name in places.items() if not places.keys() & set(place.parents)}
    if len(places) > 1:
        named = listed(sorted(place.relative_to(folder).as_posix() for place in places))
        raise UserError(f"there are {len(places)} data sets ({named})", folder, "name one of them")
    for place, name in places.items():
        return name, place
    if layout != AUTO:
        return layout, folder  # whose own message says what is missing
    if labels is not None:
        return "pairs", folder
    raise UserError(
        "the layout of the data set is not known",
        folder,
        "images and masks of the same names go into folders images and masks; docs/datasets.md shows more",
    )


def _finding(name: str, request: Request) -> Finding:
    items: list[DatasetItem] = yield from _module(name).find(request)
    return sorted(items, key=lambda item: item.name)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"napari_genselfdiff.exchange.layouts.{LAYOUTS[name]}")


__all__ = ["AUTO", "LAYOUTS", "DatasetItem", "Request", "find_dataset", "open_dataset"]
