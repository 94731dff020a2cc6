"""Images and masks of the same names, in one folder or in two.

``images/NAME.jpg`` and ``masks/NAME.png``, or ``NAME.png`` and ``NAME_mask.png`` side by side. With them may
stand a ``dataset.csv`` with columns ``name``, ``group`` and, if wanted, ``mpp``.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.layouts.item import DatasetItem, Finding, Pixels, Request, listed, near
from napari_genselfdiff.exchange.layouts.masks import MASK_SUFFIXES, Meaning, meaning_of, read_mask
from napari_genselfdiff.exchange.layouts.table import read_table
from napari_genselfdiff.exchange.pairs import LABEL_ENDINGS, Pair, find_pairs
from napari_genselfdiff.images import IMAGE_SUFFIXES, read_rgb
from napari_genselfdiff.slides.slide import PLAUSIBLE_MPP

TABLE = "dataset.csv"
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "tissue images")
LABEL_FOLDERS = ("labels", "label", "masks", "mask", "instances", "annotations", "gt", "groundtruth")
TIFF = (".tif", ".tiff")


def detect(folder: Path) -> list[Path]:
    """Folders that have this layout."""
    return [place for place in near(folder) if (_two(place) and _labels(place)) or _side_by_side(place)]


def find(request: Request) -> Finding:
    """Find the images and masks, and look at what the masks hold.

    Raises
    ------
    UserError
        If an image has no mask, it is not clear which folder has the masks or what they mean, or
        ``dataset.csv`` is there and lacks an image.
    """
    folder = request.folder
    pairs = find_pairs(_two(folder) or folder, _masks(request), suffixes=MASK_SUFFIXES)
    rows = _rows(folder / TABLE, pairs)
    meaning = yield from meaning_of(
        [pair.label for pair in pairs], read_mask, instances=request.instances, cancel=request.cancel
    )
    return [
        DatasetItem(
            pair.name,
            rows.get(pair.name, {}).get("group") or pair.name,
            _mpp(pair, rows.get(pair.name, {}), request),
            pair.image,
            pair.label,
            meaning.instances,
            partial(_read, pair, meaning),
        )
        for pair in pairs
    ]


def _masks(request: Request) -> Path:
    if request.labels is not None:
        return Path(request.labels)
    folder = request.folder
    if _two(folder) is None:
        return folder
    found = _labels(folder)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UserError(f"there are several folders of masks ({names})", folder, "name one with --labels")
    if not found:
        raise UserError(
            "there is no folder of masks beside the images",
            folder,
            f"call it {', '.join(LABEL_FOLDERS[:3])}, or name it with --labels",
        )
    return found[0]


def _two(folder: Path) -> Path | None:
    """The folder of images in a folder, if there is one."""
    children = sorted(child for child in folder.iterdir() if child.is_dir())
    return next((child for child in children if child.name.lower() in IMAGE_FOLDERS), None)


def _labels(folder: Path) -> list[Path]:
    return sorted(
        child for child in folder.iterdir() if child.is_dir() and child.name.lower() in LABEL_FOLDERS
    )


def _side_by_side(folder: Path) -> bool:
    stems = {path.stem for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
    return any(stem + ending in stems for stem in stems for ending in LABEL_ENDINGS if ending)


def _rows(path: Path, pairs: list[Pair]) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    rows = read_table(path)
    missing = [pair.name for pair in pairs if pair.name not in rows]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(pairs)} images are not in the table ({listed(missing)})",
            path,
            "add a line for each",
        )
    return rows


def _mpp(pair: Pair, row: dict[str, str], request: Request) -> float | None:
    if request.mpp is not None:
        return request.mpp
    said = row.get("mpp")
    if said:
        return _number(said, pair.name, request.folder / TABLE)
    if pair.image.suffix.lower() not in TIFF:
        return None  # PNG, JPEG and BMP know a printer's resolution at best
    from napari_genselfdiff.slides import open_slide

    try:
        return open_slide(pair.image).mpp
    except UserError:
        return None  # Read as a plain picture, which knows no resolution either.


def _number(said: str, name: str, table: Path) -> float:
    try:
        value = float(said)
    except ValueError:
        value = math.nan
    if not PLAUSIBLE_MPP[0] <= value <= PLAUSIBLE_MPP[1]:
        raise UserError(
            f"the mpp of {name} is {said!r}, which cannot be a resolution",
            table,
            "write micrometres per pixel, such as 0.25",
        )
    return value


def _read(pair: Pair, meaning: Meaning) -> Pixels:
    return read_rgb(pair.image), meaning.apply(read_mask(pair.label).labels)
