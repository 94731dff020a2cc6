"""OME-Zarr (0.4 and 0.5) and plain Zarr arrays of RGB: folders, zip files, and addresses."""

from __future__ import annotations

import math
import os
import threading
import weakref
import zipfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides.addresses import name_of, open_store
from napari_genselfdiff.slides.colours import UNREADABLE, ArraySource
from napari_genselfdiff.slides.levels import Calibration, Level, Pixels, tile_side, whole_downsample
from napari_genselfdiff.slides.slide import PLAUSIBLE_MPP, Slide, build_slide, plausible_mpp
from napari_genselfdiff.slides.units import micrometres

if TYPE_CHECKING:
    import zarr

    Node: TypeAlias = zarr.Array[Any] | zarr.Group

MARKERS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
TODO = "open an OME-Zarr image or a Zarr array of 8-bit RGB"
ZIP = b"PK\3\4"


class ZarrHandle:
    """A Zarr that is opened when needed, once a process: zip files and connections do not survive a fork.

    Parameters
    ----------
    where : Path or str
        A folder, a zip file, or an address.
    """

    def __init__(self, where: Path | str) -> None:
        self.where = where
        self._root: Node | None = None
        self._arrays: dict[str, Any] = {}
        self._process = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[ZarrHandle], tuple[Path | str]]:
        return ZarrHandle, (self.where,)

    def root(self) -> Node:
        """The array or group that lies there."""
        with self._lock:
            return self._open()

    def array(self, name: str) -> Any:
        """The array of that name in the group, or the only one for ``""``."""
        with self._lock:
            root = self._open()
            if name not in self._arrays:
                self._arrays[name] = root[name] if name else root  # type: ignore[index]
            return self._arrays[name]

    def _open(self) -> Node:
        import zarr
        from zarr.storage import LocalStore, ZipStore

        if self._root is None or self._process != os.getpid():
            store: Any
            folder = ""
            if isinstance(self.where, str):
                store = open_store(self.where)
            elif self.where.is_dir():
                store = LocalStore(self.where, read_only=True)
            else:
                folder = _folder_in_zip(self.where)
                store = ZipStore(self.where, mode="r", read_only=True)
                weakref.finalize(self, store.close)
            self._root = zarr.open(store, path=folder, mode="r")
            self._arrays, self._process = {}, os.getpid()
        return self._root


class ZarrSource(ArraySource):
    """Source of one level of a Zarr."""

    def __init__(self, handle: ZarrHandle, array: str, axes: str) -> None:
        super().__init__(None, axes, name=handle.where)
        self.handle, self.name_in_group = handle, array

    @property
    def array(self) -> Any:
        """The level, decoded (and fetched) on demand."""
        return self.handle.array(self.name_in_group)

    def __call__(self, y: int, x: int, height: int, width: int) -> Pixels:
        """Read pixels inside the level."""
        if isinstance(self.handle.where, Path):
            return super().__call__(y, x, height, width)
        try:
            return super().__call__(y, x, height, width)
        except Exception as error:
            cause = error.__cause__ if isinstance(error, UserError) else error
            raise UserError(
                f"a part of the slide could not be fetched ({_told(cause or error)})",
                self.handle.where,
                "check the network and try again",
            ) from error


def read(path: Path) -> Slide | None:
    """Open a Zarr folder, or a zip file of one; None for anything else.

    Raises
    ------
    UserError
        If the Zarr is damaged or is not an RGB image.
    """
    if path.is_dir():
        if not any((path / marker).is_file() for marker in MARKERS):
            return None
    elif not _is_zip(path):
        return None
    try:
        return _read(ZarrHandle(path))
    except UserError:
        raise
    except (*UNREADABLE, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"the Zarr could not be read ({type(error).__name__}: {error})", path, "it may be damaged"
        ) from error


def read_address(address: str) -> Slide:
    """Open the Zarr at an address, such as ``https://host/slide.ome.zarr``.

    Raises
    ------
    UserError
        If it cannot be reached or is not an RGB image.
    """
    try:
        return _read(ZarrHandle(address))
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(
            "there is no Zarr at this address",
            address,
            "give the address of the .zarr folder; download slides of other formats and open the files",
        ) from error
    except (KeyError, IndexError, AttributeError) as error:  # in what it says of itself
        raise UserError(
            f"the Zarr could not be read ({_told(error)})", address, "it may be damaged"
        ) from error
    except Exception as error:  # each kind of server has errors of its own
        raise UserError(
            f"the address could not be read ({_told(error)})",
            address,
            "check the address, the network, and whether it asks for a password",
        ) from error


def _told(error: BaseException) -> str:
    line = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == ZIP


def _folder_in_zip(path: Path) -> str:
    """Where in a zip file the Zarr lies: at its top, or in a folder that was zipped."""
    with zipfile.ZipFile(path) as archive:
        found = [name for name in archive.namelist() if name.rpartition("/")[2] in MARKERS]
    if not found:
        raise UserError(
            "there is no Zarr in this zip file", path, "unpack it, and open the slide that is in it"
        )
    return min(found, key=lambda name: name.count("/")).rpartition("/")[0]


def _read(handle: ZarrHandle) -> Slide:
    import zarr

    node = handle.root()
    if isinstance(node, zarr.Array):
        axes = "cyx" if node.ndim == 3 and node.shape[0] in (3, 4) and node.shape[2] > 4 else "yxc"
        return _build(handle, [""], axes[: node.ndim] if node.ndim == 2 else axes, [1.0], None)
    return _read_multiscale(handle, node)


def _read_multiscale(handle: ZarrHandle, group: zarr.Group) -> Slide:
    path, folder = handle.where, ""
    if _ome(group).get("bioformats2raw.layout") == 3 and "multiscales" not in _ome(group):
        folder = f"{_largest(group)}/"
        group = group[folder[:-1]]  # type: ignore[assignment]
    metadata = _ome(group)
    if "multiscales" not in metadata:
        raise UserError("the Zarr group is not an OME-Zarr image", path, TODO)
    if "image-label" in metadata:
        raise UserError("these are labels and not an image", path, TODO)
    multiscale = metadata["multiscales"][0]
    named = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in multiscale["axes"]]
    axes = "".join(axis["name"][0].lower() for axis in named)
    datasets = multiscale["datasets"]
    arrays = [folder + dataset["path"] for dataset in datasets]
    pixel_sizes = [_pixel_size(dataset, multiscale, axes) for dataset in datasets]
    sizes = [
        micrometres(size, named[axes.index(axis)].get("unit"))
        for axis, size in zip("yx", pixel_sizes[0], strict=True)
    ]
    mpp = plausible_mpp(sizes, low=PLAUSIBLE_MPP[0], high=PLAUSIBLE_MPP[1])
    downsamples = [
        math.sqrt(size[0] / pixel_sizes[0][0] * size[1] / pixel_sizes[0][1]) for size in pixel_sizes
    ]
    return _build(handle, arrays, axes, downsamples, mpp)


def _largest(collection: zarr.Group) -> str:
    """Name of the slide in bioformats2raw's collection: label and macro images may come before it."""
    import zarr

    sizes: dict[str, int] = {}
    # numbered without a gap; asked for one by one, as an address cannot always be listed
    while isinstance(image := collection.get(name := str(len(sizes))), zarr.Group):
        multiscales = _ome(image).get("multiscales")
        level = image.get(multiscales[0]["datasets"][0]["path"]) if multiscales else None
        sizes[name] = math.prod(level.shape) if isinstance(level, zarr.Array) else 0
    return max(sizes, key=sizes.__getitem__, default="0")


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


def _build(
    handle: ZarrHandle, arrays: list[str], axes: str, downsamples: list[float], mpp: float | None
) -> Slide:
    for array in arrays:
        _check(handle.array(array), axes, handle.where)
    levels = [_level(handle, array, axes) for array in arrays]
    base = levels[0].size
    factors = [1.0]
    for level, said in zip(levels[1:], downsamples[1:], strict=True):
        shaped = whole_downsample(base, level.size)
        # metadata without scales says 1 for every level
        factors.append(said if abs(said / shaped - 1) < 0.05 else shaped)
    if any(after <= before for before, after in pairwise(factors)):
        raise UserError("the levels of the OME-Zarr do not become smaller", handle.where, "it may be damaged")
    name, calibration = name_of(handle.where), Calibration(mpp)
    return build_slide(name, levels, factors, backend="zarr", calibration=calibration, where=handle.where)


def _level(handle: ZarrHandle, name: str, axes: str) -> Level:
    array = handle.array(name)
    extents, chunks = (dict(zip(axes, of, strict=True)) for of in (array.shape, array.chunks))
    return Level(
        ZarrSource(handle, name, axes),
        (extents["y"], extents["x"]),
        tile=(tile_side(chunks["y"]), tile_side(chunks["x"])),
    )


def _check(array: Any, axes: str, path: Path | str) -> None:
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
