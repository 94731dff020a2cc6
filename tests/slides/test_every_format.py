"""Every format to the pixel: what is read is what the format's own library reads."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import openslide
import pytest
import tifffile
import wsidicom
import zarr
from PIL import Image
from tests.slides import makers
from tests.slides.server import serve

from napari_genselfdiff.slides import Slide, open_slide

Where = Path | str
Direct = Callable[[Where, int], np.ndarray]
"""``(path or address, level) -> the whole level``"""


@dataclass(frozen=True)
class Workshop:
    """What slides are made of: a folder that is served at an address, a picture, and real files."""

    folder: Path
    url: str
    picture: np.ndarray
    write_ome_zarr: Callable[..., Path]
    data_dir: Path | None


@dataclass(frozen=True)
class Format:
    """How a slide of a format is made, how its library reads a level, and what is known of it."""

    make: Callable[[Workshop], Where]
    direct: Direct
    backend: str
    mpp: float | None
    levels: int = 2
    hidden: set[tuple[int, int]] = field(default_factory=set)


def by_openslide(path: Where, level: int) -> np.ndarray:
    slide = openslide.OpenSlide(path)
    place, size = (0, 0), slide.level_dimensions[level]
    if "openslide.bounds-x" in slide.properties:
        left, top, width, height = (
            int(slide.properties[f"openslide.bounds-{name}"]) for name in ("x", "y", "width", "height")
        )
        factor = round(slide.level_downsamples[level])
        place, size = (left, top), (width // factor, height // factor)
    region = slide.read_region(place, level, size)
    glass = Image.new("RGBA", region.size, "white")
    glass.alpha_composite(region)
    return np.asarray(glass.convert("RGB"))


def by_tifffile(path: Where, level: int) -> np.ndarray:
    return tifffile.imread(path, series=0, level=level)


def by_pillow(path: Where, level: int) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def of_zarr(axes: str) -> Direct:
    def direct(where: Where, level: int) -> np.ndarray:
        # whatever carries it, the bytes are in the folder that it was made in
        array = np.asarray(zarr.open_group(MADE[str(where)], mode="r")[str(level)])
        array = array.squeeze(tuple(i for i, axis in enumerate(axes) if axis not in "yxc"))
        kept = [axis for axis in axes if axis in "yxc"]
        return array.transpose([kept.index(axis) for axis in "yxc"])

    return direct


MADE: dict[str, Path] = {}


def real(name: str) -> Callable[[Workshop], Where]:
    def make(shop: Workshop) -> Where:
        if shop.data_dir is None:
            pytest.skip("no histology data: set GENSELFDIFF_DATA, see docs/development.md")
        return shop.data_dir / "slides" / name

    return make


def written(name: str, write: Callable[..., Any], **options: Any) -> Callable[[Workshop], Where]:
    def make(shop: Workshop) -> Where:
        made = write(shop.folder / name, shop.picture, **options)
        return made[0] if isinstance(made, list) else made

    return make


def write_scn(path: Path, picture: np.ndarray) -> Path:
    """Of a size whose second level begins a tile between two level-0 pixels."""
    return makers.write_scn(path, picture[:1100, :900])


def write_tiff(path: Path, picture: np.ndarray, *, bigtiff: bool) -> Path:
    """Three levels whose sizes are rounded down, and a label behind them."""
    options: dict[str, Any] = {"tile": (256, 256), "compression": "jpeg", "photometric": "rgb"}
    options |= {"resolutionunit": "CENTIMETER", "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as writer:
        writer.write(picture, resolution=(40000, 40000), **options)
        for factor in (2, 4):
            height, width = picture.shape[0] // factor, picture.shape[1] // factor
            small = np.asarray(Image.fromarray(picture).resize((width, height)))
            writer.write(small, resolution=(40000 / factor,) * 2, subfiletype=1, **options)
        writer.write(makers.LABEL, description="label", photometric="rgb", metadata=None)
    return path


def write_subifds(path: Path, picture: np.ndarray) -> Path:
    """OME-TIFF: a pyramid in SubIFDs, and macro and label images as images of their own."""
    size = {f"PhysicalSize{axis}": 0.25 for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    options: dict[str, Any] = {"tile": (128, 128), "compression": "zlib", "photometric": "rgb"}
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as writer:
        writer.write(picture, subifds=1, metadata={"axes": "YXS", **size}, **options)
        writer.write(picture[::2, ::2], subfiletype=1, **options)
        writer.write(makers.LABEL, photometric="rgb", metadata={"axes": "YXS", "Name": "label image"})
    return path


def ome_zarr(name: str, version: str, axes: str, carry: str = "folder") -> Callable[[Workshop], Where]:
    def make(shop: Workshop) -> Where:
        levels = [shop.picture, shop.picture[::2, ::2]]
        folder = shop.write_ome_zarr(shop.folder / name, levels, version=version, axes=axes)
        files = [file for file in folder.rglob("*") if file.is_file()]
        where: Where = folder
        if carry in ("zip", "zipped folder"):
            where = folder.with_suffix(".zarr.zip")
            root = folder if carry == "zip" else folder.parent
            with zipfile.ZipFile(where, "w") as archive:
                for file in files:
                    archive.write(file, file.relative_to(root))
        elif carry == "http":
            where = f"{shop.url}/{name}"
        elif carry == "s3":
            where = f"s3://{name}"
        elif carry == "memory":
            where = f"memory://bucket/{name}"
            memory = fsspec.filesystem("memory")
            for file in files:
                memory.pipe(f"/bucket/{name}/{file.relative_to(folder)}", file.read_bytes())
        MADE[str(where)] = folder
        return where

    return make


def plain_zarr(shop: Workshop) -> Where:
    path = shop.folder / "plain.zarr"
    array = zarr.create_array(path, shape=shop.picture.shape, chunks=(300, 200, 3), dtype="u1")
    array[...] = shop.picture
    return path


def dicom(**options: Any) -> Callable[[Workshop], Where]:
    def make(shop: Workshop) -> Where:
        folder = shop.folder / "dicom" / "-".join(options)
        folder.mkdir(parents=True)
        syntax = options.get("syntax", "jpeg")
        small = {"kind": ("DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"), "instance": 2, "mpp": (0.5, 0.5)}
        label = {"kind": ("ORIGINAL", "PRIMARY", "LABEL", "NONE"), "instance": 3, "tile": (90, 130)}
        makers.write_dicom(folder / "1.dcm", shop.picture[::2, ::2], syntax=syntax, **small)
        makers.write_dicom(folder / "2.dcm", makers.LABEL, syntax=syntax, **label)
        makers.write_dicom(folder / "other.dcm", shop.picture[:200, :200], series="2.25.5")
        return makers.write_dicom(folder / "0.dcm", shop.picture, **options)[0]

    return make


def dicom_by_wsidicom(path: Where, level: int) -> np.ndarray:
    files = [file for file in Path(path).parent.iterdir() if file.name != "other.dcm"]
    with wsidicom.WsiDicom.open(files) as slide:
        found = slide.levels[level]
        region = slide.read_region((0, 0), found.level, (found.size.width, found.size.height))
        return np.asarray(region)


def dicom_by_either(path: Where, level: int) -> np.ndarray:
    """OpenSlide blends neighbours where a level is not exactly a whole number smaller."""
    return dicom_by_wsidicom(path, level) if level else by_openslide(path, level)


def picture_file(name: str) -> Callable[[Workshop], Where]:
    def make(shop: Workshop) -> Where:
        Image.fromarray(shop.picture).save(shop.folder / name, dpi=(50800, 50800))
        return shop.folder / name

    return make


L = {makers.LABEL.shape[:2]}
FORMATS = {
    "SVS": Format(real("CMU-1-Small-Region.svs"), by_openslide, "openslide", 0.499, 1),
    "SVS JPEG 2000": Format(real("tcga-cr-7395-01a-01-ts1.svs"), by_tifffile, "openslide", None),
    "NDPI": Format(real("test3-DAPI-2-(387).ndpi"), by_openslide, "openslide", 0.2282, 7),
    "MRXS": Format(written("a.mrxs", makers.write_mrxs), by_openslide, "openslide", 0.25, hidden=L),
    "SCN": Format(written("a.scn", write_scn), by_openslide, "openslide", 0.5, hidden=L),
    "BIF": Format(written("a.bif", makers.write_bif), by_openslide, "openslide", 0.465, hidden=L),
    "TIFF": Format(written("a.tif", write_tiff, bigtiff=False), by_tifffile, "tifffile", 0.25, 3, L),
    "BigTIFF": Format(written("b.tif", write_tiff, bigtiff=True), by_tifffile, "tifffile", 0.25, 3, L),
    "OME-TIFF": Format(written("a.ome.tif", write_subifds), by_tifffile, "tifffile", 0.25, 2, L),
    "OME-Zarr 0.4": Format(ome_zarr("a.ome.zarr", "0.4", "tczyx"), of_zarr("tczyx"), "zarr", 0.5),
    "OME-Zarr 0.5": Format(ome_zarr("b.ome.zarr", "0.5", "yxc"), of_zarr("yxc"), "zarr", 0.5),
    "zip 0.4": Format(ome_zarr("c.ome.zarr", "0.4", "cyx", "zip"), of_zarr("cyx"), "zarr", 0.5),
    "zip 0.5": Format(ome_zarr("d.ome.zarr", "0.5", "cyx", "zipped folder"), of_zarr("cyx"), "zarr", 0.5),
    "http 0.4": Format(ome_zarr("e.ome.zarr", "0.4", "cyx", "http"), of_zarr("cyx"), "zarr", 0.5),
    "http 0.5": Format(ome_zarr("f.ome.zarr", "0.5", "yxc", "http"), of_zarr("yxc"), "zarr", 0.5),
    "s3": Format(ome_zarr("bucket/g.ome.zarr", "0.5", "cyx", "s3"), of_zarr("cyx"), "zarr", 0.5),
    "any fsspec": Format(ome_zarr("h.ome.zarr", "0.4", "cyx", "memory"), of_zarr("cyx"), "zarr", 0.5),
    "Zarr array": Format(plain_zarr, lambda where, level: np.asarray(zarr.open(where)), "zarr", None, 1),
    "DICOM": Format(dicom(), dicom_by_either, "openslide", 0.25, hidden=L),
    "DICOM sparse": Format(dicom(sparse=(3, 8)), dicom_by_either, "openslide", 0.25, hidden=L),
    "DICOM in parts": Format(dicom(parts=3), dicom_by_either, "openslide", 0.25, hidden=L),
    "DICOM RLE": Format(dicom(syntax="rle"), dicom_by_wsidicom, "wsidicom", 0.25, hidden=L),
    "DICOM RLE, sparse, in parts": Format(
        dicom(syntax="rle", sparse=(4,), parts=2), dicom_by_wsidicom, "wsidicom", 0.25, hidden=L
    ),
    "PNG": Format(picture_file("a.png"), by_pillow, "pillow", 0.5, 1),
    "JPEG": Format(picture_file("a.jpg"), by_pillow, "pillow", 0.5, 1),
}


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory,
    tissue: Callable[[int, int], np.ndarray],
    request: pytest.FixtureRequest,
) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("served")
    try:
        data = request.getfixturevalue("data_dir")
    except pytest.skip.Exception:
        data = None
    write = request.getfixturevalue("write_ome_zarr")
    with serve(folder) as url, pytest.MonkeyPatch.context() as patch:
        # what stands in for Amazon's server answers the same requests
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_ALLOW_HTTP", "true")
        yield Workshop(folder, url, tissue(1101, 903), write, data)


@pytest.fixture(scope="module", params=FORMATS)
def made(request: pytest.FixtureRequest, shop: Workshop) -> tuple[Format, Where, Slide]:
    described = FORMATS[request.param]
    where = described.make(shop)
    return described, where, open_slide(where)


Made = tuple[Format, Where, Slide]


def test_what_is_said_of_it(made: Made) -> None:
    described, where, slide = made
    assert slide.backend == described.backend
    assert slide.mpp == (None if described.mpp is None else pytest.approx(described.mpp, rel=1e-3))
    assert str(slide.where) == str(where)
    assert slide.name == str(where).rpartition("/")[2]


def test_regions_are_the_librarys_to_the_pixel(made: Made) -> None:
    described, where, slide = made
    for level in range(described.levels):
        # the levels in between may be computed
        expected = described.direct(where, level)
        number = next(i for i, array in enumerate(slide.levels) if array.shape[:2] == expected.shape[:2])
        height, width = expected.shape[:2]
        # inside, across tiles; and across the last row and column of tiles, beyond the end
        for y, x in ((height // 3, width // 4), (max(0, height - 150), max(0, width - 170))):
            read = slide.read(y, x, 200, 210, level=number)
            inside = expected[y : y + 200, x : x + 210]
            assert np.array_equal(read[: inside.shape[0], : inside.shape[1]], inside)
            assert (read[inside.shape[0] :] == 255).all()
            assert (read[:, inside.shape[1] :] == 255).all()
        assert np.array_equal(slide.levels[number].compute(), expected)


def test_levels_lie_over_one_another(made: Made) -> None:
    _, _, slide = made
    for number, factor in enumerate(slide.downsamples):
        shape = slide.levels[number].shape
        assert abs(shape[0] * factor - slide.shape[0]) < factor + 1
        assert abs(shape[1] * factor - slide.shape[1]) < factor + 1


def test_it_is_read_from_threads_and_in_another_process(made: Made) -> None:
    _, where, slide = made
    content = pickle.dumps(slide)
    places = [(y, x) for y in range(0, 400, 90) for x in range(0, 300, 70)]
    for fresh in (pickle.loads(content), open_slide(where)):
        with ThreadPoolExecutor(6) as pool:
            parts = list(pool.map(lambda place, fresh=fresh: fresh.read(*place, 101, 97), places))
        whole = slide.read(0, 0, 600, 500)
        for (y, x), part in zip(places, parts, strict=True):
            assert np.array_equal(part, whole[y : y + 101, x : x + 97])


def test_label_and_macro_images_are_nowhere(made: Made) -> None:
    described, where, slide = made
    hidden = set(described.hidden)
    if described.backend == "openslide":
        hidden |= {image.size[::-1] for image in openslide.OpenSlide(where).associated_images.values()}
    shapes = {level.shape[:2] for level in slide.levels}
    assert hidden.isdisjoint(shapes)
    if described.hidden:
        assert slide.levels[-1].compute().mean() > 80  # the label is black
