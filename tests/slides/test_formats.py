"""Every format opens, with the right pixels and no invented resolution."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
import zarr
from PIL import Image
from tests.slides import makers

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides import Slide, open_slide, register_reader, slide_from_arrays

REAL = {
    "CMU-1-Small-Region.svs": ("openslide", (2967, 2220), 0.499, 20),
    "tcga-cr-7395-01a-01-ts1.svs": ("openslide", (3567, 4443), None, None),
    "OS-1-detail.ome.tif": ("tifffile", (1101, 1101), 0.2271, None),
    "sm_image.dcm": ("openslide", (50, 50), 0.499, None),
    "test3-DAPI-2-(387).ndpi": ("openslide", (4864, 3968), 0.2282, 40),
}


@pytest.mark.parametrize("name", REAL)
def test_real_slides_open(data_dir: Path, name: str) -> None:
    backend, shape, mpp, power = REAL[name]
    slide = open_slide(data_dir / "slides" / name)
    assert (slide.name, slide.backend, slide.shape) == (name, backend, shape)
    assert slide.mpp == (None if mpp is None else pytest.approx(mpp, rel=1e-3))
    assert slide.objective_power == power
    assert slide.levels[0].shape == (*shape, 3)
    assert slide.levels[0].dtype == np.uint8
    assert max(slide.levels[-1].shape) <= 1024
    overview = slide.levels[-1].compute()
    assert overview.std() > 1


def test_the_test_data_has_no_other_slides(data_dir: Path) -> None:
    names = {path.name for path in (data_dir / "slides").iterdir()}
    assert names == {*REAL, "pathml_small_dicom_HE.dcm"}


def test_dicom_that_openslide_refuses_says_what_to_do(data_dir: Path) -> None:
    path = data_dir / "slides" / "pathml_small_dicom_HE.dcm"
    with pytest.raises(UserError, match=r"image flavor.*OME-TIFF") as caught:
        open_slide(path)
    assert str(caught.value).count(str(path)) == 1


def test_without_wsidicom_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = makers.write_dicom(tmp_path / "a.dcm", np.full((300, 200, 3), 99, np.uint8), syntax="rle")
    monkeypatch.setitem(sys.modules, "wsidicom", None)
    with pytest.raises(UserError, match=r'transfer syntax.*pip install "napari-genselfdiff\[dicom\]"'):
        open_slide(path)


def test_a_dicom_label_opens_nothing_but_its_slide(tmp_path: Path, picture: np.ndarray) -> None:
    kind = ("ORIGINAL", "PRIMARY", "LABEL", "NONE")
    options = {"kind": kind, "tile": makers.LABEL.shape[:2]}
    for syntax in ("jpeg", "rle"):
        folder = tmp_path / syntax
        folder.mkdir()
        (label,) = makers.write_dicom(folder / "label.dcm", makers.LABEL, syntax=syntax, **options)
        with pytest.raises(UserError, match="could read this DICOM"):
            open_slide(label)
        makers.write_dicom(folder / "slide.dcm", picture[:300, :200], syntax=syntax, instance=2)
        assert open_slide(label).shape == (300, 200)


def test_an_mrxs_file_without_its_folder_is_not_its_picture(tmp_path: Path, picture: np.ndarray) -> None:
    path = makers.write_mrxs(tmp_path / "a.mrxs", picture[:600, :500])
    with Image.open(path) as image:  # of the glass, with its label
        assert image.size == (130, 90)
    (tmp_path / "a").rename(tmp_path / "b")
    with pytest.raises(UserError, match="put its folder, a, beside it"):
        open_slide(path)


def test_svs_pixels_are_openslides(cmu_slide: Path) -> None:
    slide = open_slide(cmu_slide)
    handle = openslide.OpenSlide(cmu_slide)
    expected = np.asarray(handle.read_region((700, 901), 0, (333, 517)).convert("RGB"))
    assert np.array_equal(slide.read(901, 700, 517, 333), expected)
    assert np.array_equal(slide.levels[0][901:1418, 700:1033].compute(), expected)


def test_jpeg2000_pixels_are_exact_on_both_levels(data_dir: Path) -> None:
    path = data_dir / "slides" / "tcga-cr-7395-01a-01-ts1.svs"
    slide = open_slide(path)
    assert slide.downsamples[:2] == (1.0, 2.0)
    for level in (0, 1):
        # Level 1 is 2221 px wide where 4443 / 2 = 2221.5, and OpenSlide itself would blend its pixels.
        with tifffile.TiffFile(path) as tiff:
            window = zarr.open_array(tiff.series[0].aszarr(level=level), mode="r")[700:1100, 900:1300]
        assert np.array_equal(slide.read(700, 900, 400, 400, level=level), window)


def test_the_slide_is_what_was_scanned_and_not_all_of_the_glass(tmp_path: Path, picture: np.ndarray) -> None:
    path = makers.write_scn(tmp_path / "a.scn", picture[:600, :700], place=(61, 100))
    assert openslide.OpenSlide(path).dimensions == (900, 722)
    slide = open_slide(path)
    # as QuPath has it: a place here is the same place there
    assert [level.shape[:2] for level in slide.levels] == [(600, 700), (150, 175)]
    difference = np.abs(slide.read(200, 300, 128, 128).astype(int) - picture[200:328, 300:428])
    assert difference.mean() < 3  # what JPEG changes


def test_label_and_macro_images_are_nowhere(cmu_slide: Path) -> None:
    names = openslide.OpenSlide(cmu_slide).associated_images
    assert {"label", "macro"} <= set(names)
    slide = open_slide(cmu_slide)
    hidden = {(image.height, image.width) for image in names.values()}
    assert hidden.isdisjoint({level.shape[:2] for level in slide.levels})


def test_jpeg_pyramid(jpeg_pyramid: Path) -> None:
    slide = open_slide(jpeg_pyramid)
    assert (slide.backend, slide.mpp) == ("tifffile", pytest.approx(0.25))
    assert slide.downsamples == (1.0, 4.0)
    for level in (0, 1):
        with tifffile.TiffFile(jpeg_pyramid) as tiff:
            page = tiff.series[0].levels[level].asarray()
        assert np.array_equal(slide.levels[level].compute(), page)


def test_subifd_ome_tiff(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "slide.ome.tif"
    size = {
        "PhysicalSizeX": 250.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 250.0,
        "PhysicalSizeYUnit": "nm",
    }
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        writer.write(
            picture, subifds=1, tile=(128, 128), compression="zlib", photometric="rgb", metadata=size
        )
        writer.write(picture[::2, ::2], subfiletype=1, tile=(128, 128), compression="zlib", photometric="rgb")
    slide = open_slide(path)
    assert (slide.mpp, slide.downsamples) == (pytest.approx(0.25), (1.0, 2.0))
    assert np.array_equal(slide.levels[0].compute(), picture)
    assert np.array_equal(slide.levels[1].compute(), picture[::2, ::2])


@pytest.mark.parametrize(
    "options",
    [
        {"photometric": "rgb"},
        {"photometric": "rgb", "compression": "lzw", "rowsperstrip": 7},
        {"photometric": "rgb", "compression": "lzw", "rowsperstrip": 2100},
        {"photometric": "rgb", "planarconfig": "separate", "tile": (128, 256)},
    ],
    ids=["memory-mapped", "strips", "one-strip", "planar"],
)
def test_flat_tiffs(tmp_path: Path, picture: np.ndarray, options: dict) -> None:
    path = tmp_path / "flat.tif"
    planar = options.get("planarconfig") == "separate"
    tifffile.imwrite(path, np.moveaxis(picture, -1, 0) if planar else picture, **options)
    slide = open_slide(path)
    assert slide.downsamples == (1.0, 2.0, 4.0)
    assert np.array_equal(slide.read(1900, 1200, 300, 150)[:200, :100], picture[1900:, 1200:])
    assert slide.mpp is None


@pytest.mark.parametrize(("photometric", "sign"), [("minisblack", 1), ("miniswhite", -1)])
def test_grey_tiff(tmp_path: Path, picture: np.ndarray, photometric: str, sign: int) -> None:
    path = tmp_path / "grey.tif"
    tifffile.imwrite(path, picture[..., 0], photometric=photometric)
    expected = picture[::, :, :1].repeat(3, 2)
    assert np.array_equal(open_slide(path).read(0, 0, 2100, 1300), expected if sign == 1 else 255 - expected)


@pytest.mark.parametrize(("per_unit", "mpp"), [(20000, 0.5), (72 / 2.54, None), (1, None), (10**6, None)])
def test_resolution_tags_are_believed_when_plausible(
    tmp_path: Path, picture: np.ndarray, per_unit: float, mpp: float | None
) -> None:
    path = tmp_path / "tags.tif"
    tifffile.imwrite(path, picture[:64, :64], resolution=(per_unit, per_unit), resolutionunit="CENTIMETER")
    assert open_slide(path).mpp == (None if mpp is None else pytest.approx(mpp))


def test_aperio_description_gives_mpp_and_power(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "converted.tif"
    tifffile.imwrite(path, picture[:64, :64], description="x|AppMag = 40|MPP = 0.2525", metadata=None)
    slide = open_slide(path)
    assert (slide.mpp, slide.objective_power) == (0.2525, 40)


def test_imagej_keeps_the_unit_elsewhere(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "imagej.tif"
    # ImageJ's RGB is that of its hyperstacks
    tifffile.imwrite(path, picture[:64, :64], imagej=True, resolution=(4, 4), metadata={"unit": "micron"})
    assert open_slide(path).mpp == pytest.approx(0.25)
    micrometre = {"unit": r"\u00B5m"}  # as Fiji writes it
    tifffile.imwrite(path, picture[:64, :64], imagej=True, resolution=(4, 4), metadata=micrometre)
    assert open_slide(path).mpp == pytest.approx(0.25)
    tifffile.imwrite(path, picture[:64, :64], imagej=True, resolution=(4, 4))
    assert open_slide(path).mpp is None


def test_a_scanner_that_says_nothing_itself(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "silent.svs"
    options = {"tile": (128, 128), "photometric": "rgb", "metadata": None, "compression": "jpeg"}
    options |= {"description": "Aperio Image Library", "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, picture[:300, :300], resolution=(20000, 20000), **options)
    slide = open_slide(path)
    assert (slide.backend, slide.mpp) == ("openslide", pytest.approx(0.5))
    tifffile.imwrite(path, picture[:300, :300], resolution=(28, 28), **options)
    assert open_slide(path).mpp is None


@pytest.mark.parametrize(
    ("x", "y", "mpp"), [(0.25, 0.2506, 0.2503), (0.5, 0.46, (0.5 * 0.46) ** 0.5), (0.25, 0.5, None)]
)
def test_pixels_that_are_not_square(
    tmp_path: Path, picture: np.ndarray, x: float, y: float, mpp: float | None
) -> None:
    expected = None if mpp is None else pytest.approx(mpp, rel=1e-3)
    tiff = tmp_path / "a.tif"
    tifffile.imwrite(tiff, picture[:64, :64], resolution=(1e4 / x, 1e4 / y), resolutionunit="CENTIMETER")
    assert open_slide(tiff).mpp == expected
    (dicom,) = makers.write_dicom(tmp_path / "a.dcm", picture[:300, :200], mpp=(y, x))
    assert open_slide(dicom).mpp == expected


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_the_density_of_a_picture_is_believed_when_plausible(
    tmp_path: Path, picture: np.ndarray, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    for dots, mpp in ((50800, 0.5), (72, None), (300, None), (2, None)):
        Image.fromarray(picture[:64, :64]).save(path, dpi=(dots, dots))
        assert open_slide(path).mpp == (None if mpp is None else pytest.approx(mpp, rel=1e-3))


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.zeros((64, 64, 3), np.uint16), {"photometric": "rgb"}, "uint16 pixels"),
        (np.zeros((4, 64, 64), np.uint8), {"metadata": {"axes": "CYX"}, "ome": True}, "4 separate channels"),
        (np.zeros((5, 64, 64, 3), np.uint8), {"photometric": "rgb"}, "stack of 5 images"),
    ],
)
def test_tiffs_that_are_not_rgb(tmp_path: Path, array: np.ndarray, options: dict, message: str) -> None:
    path = tmp_path / "not-rgb.tif"
    tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})
    with pytest.raises(UserError, match=message) as caught:
        open_slide(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("version", "axes"), [("0.4", "cyx"), ("0.4", "tczyx"), ("0.5", "czyx"), ("0.5", "yxc")]
)
def test_ome_zarr(
    tmp_path: Path, picture: np.ndarray, write_ome_zarr: Callable[..., Path], version: str, axes: str
) -> None:
    levels = [picture, picture[::2, ::2], picture[::4, ::4]]
    path = write_ome_zarr(tmp_path / "slide.ome.zarr", levels, version=version, axes=axes)
    slide = open_slide(path)
    assert (slide.backend, slide.mpp, slide.downsamples) == ("zarr", pytest.approx(0.5), (1.0, 2.0, 4.0))
    for level, expected in enumerate(levels):
        assert np.array_equal(slide.levels[level].compute(), expected)


def test_the_slide_of_a_collection_is_its_largest_image(
    tmp_path: Path, picture: np.ndarray, write_ome_zarr: Callable[..., Path]
) -> None:
    path = tmp_path / "collection.ome.zarr"
    zarr.open_group(path, mode="w", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    images = [makers.LABEL, picture[:600, :500], picture[:90, :100]]  # as Leica writes them, the label first
    for number, image in enumerate(images):
        write_ome_zarr(path / str(number), [image], version="0.4", axes="cyx")
    assert np.array_equal(open_slide(path).levels[0].compute(), picture[:600, :500])


def test_ome_zarr_units(tmp_path: Path, picture: np.ndarray, write_ome_zarr: Callable[..., Path]) -> None:
    def mpp(unit: str | None, pixel: float) -> float | None:
        path = tmp_path / f"{unit}.ome.zarr"
        write_ome_zarr(path, [picture[:64, :64]], version="0.5", axes="cyx", unit=unit, pixel=pixel)
        return open_slide(path).mpp

    assert mpp("nanometer", 250) == pytest.approx(0.25)
    assert mpp("millimeter", 0.001) == pytest.approx(1.0)
    assert mpp(None, 0.5) is None


def test_plain_zarr_and_what_is_not_rgb(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "plain.zarr"
    zarr.open_array(path, mode="w", shape=picture.shape, chunks=(300, 300, 3), dtype="u1")[...] = picture
    assert np.array_equal(open_slide(path).read(0, 0, 2100, 1300), picture)
    deep = tmp_path / "deep.zarr"
    zarr.open_array(deep, mode="w", shape=(64, 64, 3), chunks=(64, 64, 3), dtype="u2")
    with pytest.raises(UserError, match="uint16"):
        open_slide(deep)
    group = tmp_path / "group.zarr"
    zarr.open_group(group, mode="w")
    with pytest.raises(UserError, match="not an OME-Zarr image"):
        open_slide(group)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_pictures(tmp_path: Path, picture: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(picture).save(path)
    slide = open_slide(path)
    with Image.open(path) as image:
        assert np.array_equal(slide.read(0, 0, 2100, 1300), np.asarray(image))
    assert (slide.mpp, slide.backend) == (None, "pillow")
    assert open_slide(path, mpp=0.25).mpp == 0.25


def test_transparency_becomes_glass(tmp_path: Path) -> None:
    path = tmp_path / "transparent.png"
    pixels = np.full((8, 8, 4), 100, np.uint8)
    pixels[..., 3] = [0, 128, 255, 255, 255, 255, 255, 255]
    Image.fromarray(pixels).save(path)
    assert open_slide(path).read(0, 0, 1, 3)[0, :, 0].tolist() == [255, 177, 100]


def test_files_that_are_no_slides(tmp_path: Path, cmu_slide: Path) -> None:
    text = tmp_path / "notes.svs"
    text.write_text("not a slide")
    empty = tmp_path / "empty.svs"
    empty.touch()
    cases = {tmp_path / "gone.svs": "no such slide", text: "not a slide or image", empty: "is empty"}
    cases[tmp_path] = "not a slide or image"
    for path, message in cases.items():
        with pytest.raises(UserError, match=message) as caught:
            open_slide(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "OS-1-detail.ome.tif", "sm_image.dcm"])
def test_cut_off_files_are_told_or_complete(data_dir: Path, tmp_path: Path, name: str, share: float) -> None:
    whole = (data_dir / "slides" / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: int(len(whole) * share)])

    try:
        slide = open_slide(path)
        pixels = slide.read(0, 0, *slide.shape)
    except UserError as error:
        assert str(path) in str(error)  # noqa: PT017 - the other outcome is right as well
    else:
        # what was cut off lies behind the last tile of the slide: the label, for example
        assert share == 0.95
        original = open_slide(data_dir / "slides" / name)
        assert np.array_equal(pixels, original.read(0, 0, *original.shape))


def test_a_damaged_tile_does_not_take_the_rest(cmu_slide: Path, tmp_path: Path) -> None:
    with tifffile.TiffFile(cmu_slide) as tiff:
        page = tiff.pages[0]
        offset, count = page.dataoffsets[0], page.databytecounts[0]
    path = tmp_path / cmu_slide.name
    content = bytearray(cmu_slide.read_bytes())
    content[offset : offset + count] = b"\xff" * count
    path.write_bytes(content)
    slide = open_slide(path)
    with pytest.raises(UserError, match="could not be read"):
        slide.read(0, 0, 100, 100)
    assert np.array_equal(slide.read(600, 600, 300, 300), open_slide(cmu_slide).read(600, 600, 300, 300))


def test_a_new_format_is_one_function(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "slide.npy"
    np.save(path, picture)

    def read(candidate: Path) -> Slide | None:
        if candidate.suffix != ".npy":
            return None
        return slide_from_arrays(np.load(candidate, mmap_mode="r"), name=candidate.name, mpp=0.5)

    unregister = register_reader(read)
    try:
        assert np.array_equal(open_slide(path).read(5, 6, 70, 80), picture[5:75, 6:86])
    finally:
        unregister()
    with pytest.raises(UserError):
        open_slide(path)
