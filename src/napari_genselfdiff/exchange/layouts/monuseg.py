"""MoNuSeg: tissue images, and nuclei outlined in ImageScope.

The training part has ``Tissue Images/*.tif`` and ``Annotations/*.xml``, the test part both in one folder
(Kumar et al., IEEE TMI 2017 and 2020).
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.layouts.item import DatasetItem, Finding, Pixels, Request, listed, near
from napari_genselfdiff.exchange.pairs import find_pairs
from napari_genselfdiff.images import IMAGE_SUFFIXES, read_rgb

MPP = 0.25
"""Of all images, which are scans at 40x. The files say 0.2456 to 0.2527, where they say it."""
IMAGES, ANNOTATIONS, DRAWN = "tissue images", "annotations", "instances"
PATIENT = re.compile(r"TCGA-\w\w-\w{4}(?=-|$)")
"""The participant in a barcode of the TCGA, see docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode."""


def detect(folder: Path) -> list[Path]:
    """Folders that have this layout."""
    return [place for place in near(folder) if _folders(place) is not None]


def find(request: Request) -> Finding:
    """Find the images and their annotations.

    An image without XML may have a mask of ids instead, of its name, in a folder ``instances`` beside the
    folders or one above.

    Raises
    ------
    UserError
        If an image has no annotation, or two images share a name.
    """
    folder = request.folder
    folders = _folders(folder)
    if folders is None:
        raise UserError("there are no folders Tissue Images and Annotations", folder, "check the path")
    images = sorted(p for p in folders[0].iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise UserError("no image was found", folders[0], f"images end with {', '.join(IMAGE_SUFFIXES)}")
    if request.labels is not None:
        labels = {pair.image: pair.label for pair in find_pairs(folders[0], request.labels)}
    else:
        labels = _annotations(images, folders[1], [folder / DRAWN, folder.parent / DRAWN])
    yield from ()
    instances = request.instances is not False
    return [
        DatasetItem(
            image.stem,
            patient_of(image.stem),
            MPP if request.mpp is None else request.mpp,
            image,
            labels[image],
            instances,
            partial(_read, image, labels[image], instances),
        )
        for image in images
    ]


def patient_of(name: str) -> str:
    """Patient in the TCGA, by the name of a slide; the name itself where it is another's."""
    found = PATIENT.match(name)
    return found[0] if found else name


def _folders(folder: Path) -> tuple[Path, Path] | None:
    """Folders of the images and of the annotations."""
    children = {child.name.lower(): child for child in folder.iterdir() if child.is_dir()}
    if IMAGES in children:
        return children[IMAGES], children.get(ANNOTATIONS, folder / "Annotations")
    stems: dict[str, set[str]] = {".tif": set(), ".xml": set()}
    for file in folder.iterdir():
        stems.get(file.suffix.lower(), set()).add(file.stem)
    return (folder, folder) if stems[".tif"] & stems[".xml"] else None


def _annotations(images: list[Path], folder: Path, drawn: list[Path]) -> dict[Path, Path]:
    stems = [image.stem for image in images]
    twice = next((image for image in images if stems.count(image.stem) > 1), None)
    if twice is not None:
        raise UserError("two images share a name", twice, "remove one of them")
    found: dict[Path, Path] = {}
    for image in images:
        candidates = [folder / f"{image.stem}.xml", *(masks / f"{image.stem}.png" for masks in drawn)]
        file = next((candidate for candidate in candidates if candidate.is_file()), None)
        if file is not None:
            found[image] = file
    missing = [image.name for image in images if image not in found]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(images)} images have no annotation ({listed(missing)})",
            folder,
            "annotations are named like their image and end with .xml; add them or take the images out",
        )
    return found


def _read(image: Path, label: Path, instances: bool) -> Pixels:
    from napari_genselfdiff.exchange.layouts.aperio import draw_outlines, read_outlines
    from napari_genselfdiff.exchange.rasters import read_labels_image

    rgb = read_rgb(image)
    if label.suffix.lower() == ".xml":
        ids = draw_outlines(read_outlines(label), rgb.shape[:2], label)
    else:
        ids = read_labels_image(label).astype(np.int32)
    return rgb, ids if instances else ids > 0
