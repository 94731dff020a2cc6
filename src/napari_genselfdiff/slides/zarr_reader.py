"""OME-Zarr (0.4 and 0.5) and plain Zarr arrays of RGB."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides.colours import UNREADABLE, ArraySource
from napari_genselfdiff.slides.levels import Calibration, Level, tile_side, whole_downsample
from napari_genselfdiff.slides.slide import PLAUSIBLE_MPP, Slide, build_slide, plausible_mpp
from napari_genselfdiff.slides.units import micrometres

if TYPE_CHECKING:
    import zarr

MARKERS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
TODO = "open an OME-Zarr image or a Zarr array of 8-bit RGB"


def read(path: Path) -> Slide | None:
    """Open a Zarr folder; None for anything else.

    Raises
    ------
    UserError
        If the Zarr is damaged or is not an RGB image.
    """
    import zarr

    if not path.is_dir() or not any((path / marker).is_file() for marker in MARKERS):
        return None
    try:
        node = zarr.open(path, mode="r")
        if isinstance(node, zarr.Array):
            axes = "cyx" if node.ndim == 3 and node.shape[0] in (3, 4) and node.shape[2] > 4 else "yxc"
            return _build(path, [node], axes[: node.ndim] if node.ndim == 2 else axes, [1.0], None)
        return _read_multiscale(path, node)
    except UserError:
        raise
    except (*UNREADABLE, AttributeError) as error:
        raise UserError(
            f"the Zarr could not be read ({type(error).__name__}: {error})", path, "it may be damaged"
        ) from error


def _read_multiscale(path: Path, group: zarr.Group) -> Slide:
    if _ome(group).get("bioformats2raw.layout") == 3 and "multiscales" not in _ome(group):
        group = group["0"]  # type: ignore[assignment]  # the first image of bioformats2raw's collection
    metadata = _ome(group)
    if "multiscales" not in metadata:
        raise UserError("the Zarr group is not an OME-Zarr image", path, TODO)
    if "image-label" in metadata:
        raise UserError("these are labels and not an image", path, TODO)
    multiscale = metadata["multiscales"][0]
    named = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in multiscale["axes"]]
    axes = "".join(axis["name"][0].lower() for axis in named)
    datasets = multiscale["datasets"]
    arrays = [group[dataset["path"]] for dataset in datasets]
    pixel_sizes = [_pixel_size(dataset, multiscale, axes) for dataset in datasets]
    sizes = [
        micrometres(size, named[axes.index(axis)].get("unit"))
        for axis, size in zip("yx", pixel_sizes[0], strict=True)
    ]
    mpp = plausible_mpp(sizes, low=PLAUSIBLE_MPP[0], high=PLAUSIBLE_MPP[1])
    downsamples = [
        math.sqrt(size[0] / pixel_sizes[0][0] * size[1] / pixel_sizes[0][1]) for size in pixel_sizes
    ]
    return _build(path, arrays, axes, downsamples, mpp)


def _ome(group: zarr.Group) -> Mapping[str, Any]:
    attributes = dict(group.attrs)
    nested = attributes.get("ome")  # 0.5 puts the metadata one level deeper than 0.4
    return nested if isinstance(nested, Mapping) else attributes


def _pixel_size(dataset: Mapping[str, Any], multiscale: Mapping[str, Any], axes: str) -> tuple[float, float]:
    """Height and width of a level's pixel in the unit of the axes."""
    size = [1.0, 1.0]
    for transform in (
        *dataset.get("coordinateTransformations", ()),
        *multiscale.get("coordinateTransformations", ()),
    ):
        if transform.get("type") == "scale":
            size = [
                side * transform["scale"][axes.index(axis)] for side, axis in zip(size, "yx", strict=True)
            ]
    return size[0], size[1]


def _build(path: Path, arrays: list[Any], axes: str, downsamples: list[float], mpp: float | None) -> Slide:
    for array in arrays:
        _check(array, axes, path)
    levels = [_level(array, axes, path) for array in arrays]
    base = levels[0].size
    factors = [1.0]
    for level, said in zip(levels[1:], downsamples[1:], strict=True):
        shaped = whole_downsample(base, level.size)
        # metadata without scales says 1 for every level
        factors.append(said if abs(said / shaped - 1) < 0.05 else shaped)
    if any(after <= before for before, after in pairwise(factors)):
        raise UserError("the levels of the OME-Zarr do not become smaller", path, "it may be damaged")
    return build_slide(path.name, levels, factors, backend="zarr", calibration=Calibration(mpp), path=path)


def _level(array: Any, axes: str, path: Path) -> Level:
    extents, chunks = (dict(zip(axes, of, strict=True)) for of in (array.shape, array.chunks))
    return Level(
        ArraySource(array, axes, name=path),
        (extents["y"], extents["x"]),
        tile=(tile_side(chunks["y"]), tile_side(chunks["x"])),
    )


def _check(array: Any, axes: str, path: Path) -> None:
    extents = dict(zip(axes, array.shape, strict=True))
    if "y" not in extents or "x" not in extents:
        raise UserError("the Zarr array has no y and x axes", path, TODO)
    if array.dtype != "uint8":
        raise UserError(f"the Zarr holds {array.dtype} pixels instead of 8-bit RGB", path, TODO)
    if extents.get("c", 3) not in (1, 3, 4):
        raise UserError(
            f"the Zarr has {extents['c']} channels (fluorescence?) instead of RGB colours", path, TODO
        )
    stack = math.prod(extent for axis, extent in extents.items() if axis not in "yxc")
    if stack > 1:
        raise UserError(f"the Zarr is a stack of {stack} images", path, "save one image of it on its own")
