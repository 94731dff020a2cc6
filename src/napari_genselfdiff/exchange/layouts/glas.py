"""GlaS, also called Warwick-QU: glands at 20x, in BMP, with the patients in ``Grade.csv``.

Sirinukunwattana et al., Medical Image Analysis 2017. Images are called ``train_1.bmp``, ``testA_1.bmp``,
``testB_1.bmp``, and ``train_1_anno.bmp`` has an id for each gland.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.layouts.item import DatasetItem, Finding, Pixels, Request, listed, near
from napari_genselfdiff.exchange.layouts.table import read_table
from napari_genselfdiff.exchange.pairs import find_pairs
from napari_genselfdiff.exchange.rasters import read_labels_image
from napari_genselfdiff.images import read_rgb

MPP = 0.62
"""Of all images: 0.62005 micrometres per pixel, by the publication."""
TABLE, PATIENT = "Grade.csv", "patient id"
ENDING = "_anno"
PARTS = ("train_*_anno.bmp", "testA_*_anno.bmp", "testB_*_anno.bmp")


def detect(folder: Path) -> list[Path]:
    """Folders that have this layout."""
    return [place for place in near(folder) if any(any(place.glob(part)) for part in PARTS)]


def find(request: Request) -> Finding:
    """Find the images, their annotations and the patients.

    Raises
    ------
    UserError
        If an image has no annotation or the other way round, or ``Grade.csv`` is missing or says no patient
        of an image.
    """
    folder = request.folder
    if not (folder / TABLE).is_file():
        raise UserError(
            f"there is no {TABLE}, which says the patients",
            folder,
            f"copy it beside the images, or give --layout pairs --instances --mpp {MPP}",
        )
    patients = {name: row.get(PATIENT, "") for name, row in read_table(folder / TABLE).items()}
    if patients and not any(patients.values()):
        raise UserError("the table has no column 'patient ID'", folder / TABLE, "download it again")
    images = {path.stem for path in folder.glob("*.bmp") if not path.stem.endswith(ENDING)}
    alone = sorted(p.name for p in folder.glob(f"*{ENDING}.bmp") if p.stem.removesuffix(ENDING) not in images)
    if alone:
        raise UserError(
            f"{len(alone)} annotations have no image ({listed(alone)})", folder, "copy the images beside them"
        )
    pairs = find_pairs(folder, request.labels or folder)
    unknown = [pair.name for pair in pairs if not patients.get(pair.name)]
    if unknown:
        raise UserError(
            f"{len(unknown)} of {len(pairs)} images have no patient in the table ({listed(unknown)})",
            folder / TABLE,
            "add a line for each; images of one patient must not be divided",
        )
    yield from ()
    instances = request.instances is not False
    return [
        DatasetItem(
            pair.name,
            patients[pair.name],
            MPP if request.mpp is None else request.mpp,
            pair.image,
            pair.label,
            instances,
            partial(_read, pair.image, pair.label, instances),
        )
        for pair in pairs
    ]


def _read(image: Path, label: Path, instances: bool) -> Pixels:
    ids = read_labels_image(label)
    return read_rgb(image), ids if instances else ids > 0
