"""OME-Zarr images that hold their labels: one, or a folder of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.layouts.item import DatasetItem, Finding, Pixels, Request, near
from napari_genselfdiff.exchange.layouts.masks import Meaning, Plane, meaning_of
from napari_genselfdiff.exchange.omezarr import label_names, read_ome_zarr, stored_info

MARKERS = ("zarr.json", ".zgroup")
MAX_PIXELS = 178_956_970
"""Of the image files that are written; Pillow warns of larger ones, and training reads them whole."""


def detect(folder: Path) -> list[Path]:
    """Folders that have this layout."""
    if _is_zarr(folder):
        return [folder]
    return [place for place in near(folder) if _images(place)]


def find(request: Request) -> Finding:
    """Find the images and their labels, and look at what the labels hold.

    Raises
    ------
    UserError
        If there is no image, or one has no labels, or several and ``request.labels`` names none of them.
    """
    folder = request.folder
    images = [folder] if _is_zarr(folder) else _images(folder)
    if not images:
        raise UserError("there is no OME-Zarr image", folder, "their folders end with .zarr")
    labels = {image: _label(image, request.labels) for image in images}
    meaning = yield from meaning_of(
        list(labels.values()), _plane, instances=request.instances, cancel=request.cancel
    )
    return [
        DatasetItem(
            image.name.removesuffix(".zarr").removesuffix(".ome"),
            image.name.removesuffix(".zarr").removesuffix(".ome"),
            _mpp(image, label, request.mpp),
            image,
            label,
            meaning.instances,
            partial(_read, image, label, meaning),
        )
        for image, label in labels.items()
    ]


def _is_zarr(folder: Path) -> bool:
    return any((folder / marker).is_file() for marker in MARKERS)


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.zarr") if path.is_dir() and _is_zarr(path))


def _label(image: Path, wanted: str | None) -> Path:
    # bioformats2raw writes a collection, whose first image is 0
    root = image / "0" if _is_zarr(image / "0") and not (image / "labels").is_dir() else image
    names = label_names(root)
    if wanted is None and len(names) == 1:
        return root / "labels" / names[0]
    listed = ", ".join(names)
    if not names:
        raise UserError("the OME-Zarr image has no labels", image, "write them into its group 'labels'")
    if wanted is None:
        raise UserError(f"the image has several label images ({listed})", image, "name one with --labels")
    if wanted not in names:
        raise UserError(f"the image has no labels {wanted!r}, but {listed}", image, "name one of these")
    return root / "labels" / wanted


def _plane(label: Path) -> Plane:
    info = stored_info(label)
    return Plane(read_ome_zarr(label).labels, None if info is None else info["instances"])


def _mpp(image: Path, label: Path, mpp: float | None) -> float | None:
    from napari_genselfdiff.slides import open_slide

    if mpp is not None:
        return mpp
    known, info = open_slide(image).mpp, stored_info(label)
    return known if known is None or info is None else known * info["downsample"]


def _read(image: Path, label: Path, meaning: Meaning) -> Pixels:
    """Read labels and the part of the image that they cover: a region may have been segmented."""
    from napari_genselfdiff.slides import open_slide

    slide, label_map = open_slide(image), read_ome_zarr(label)
    height, width = label_map.labels.shape
    if height * width > MAX_PIXELS:
        raise UserError(
            f"the labels are {width} x {height} pixels, too many for one training image",
            label,
            "cut them into smaller images",
        )
    scale = label_map.downsample
    y, x = (round(start / scale) for start in label_map.offset)
    inside = y >= 0 and x >= 0 and (y + height - 1) * scale < slide.shape[0]
    inside = inside and (x + width - 1) * scale < slide.shape[1]
    part = label_map.offset != (0, 0) or scale != 1
    if part and inside and label_map.labels.shape != slide.shape:
        rgb = slide.read_scaled(y, x, height, width, scale=scale)
    else:
        rgb = slide.read(0, 0, *slide.shape)
    return rgb, meaning.apply(label_map.labels)
