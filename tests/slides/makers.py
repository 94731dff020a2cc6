"""Small slide files in the scanners' formats, written from what OpenSlide reads."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from PIL import Image

LABEL = np.zeros((90, 130, 3), np.uint8)
"""A picture whose shape no level has: whatever shows it shows a patient's name."""


def jpeg(pixels: np.ndarray, quality: int = 95) -> bytes:
    """Encode as JPEG without subsampling."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()


def padded(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Fill up with black, as scanners do at the last row and column of tiles."""
    out = np.zeros((height, width, 3), np.uint8)
    out[: pixels.shape[0], : pixels.shape[1]] = pixels
    return out


def write_mrxs(
    path: Path, picture: np.ndarray, *, side: int = 128, overlap: int = 6, mpp: float = 0.25
) -> Path:
    """3DHISTECH: a JPEG file, and a folder of an index, a description and data; two levels and a label."""
    across, down = ((extent - overlap) // (side - overlap) for extent in (picture.shape[1], picture.shape[0]))
    folder = path.with_suffix("")
    folder.mkdir()
    path.write_bytes(jpeg(LABEL))
    step = side - overlap
    tiles = {
        (row, column): picture[row * step :, column * step :][:side, :side]
        for row in range(down)
        for column in range(across)
    }
    data = bytearray(b"-" * 10)

    def store(content: bytes) -> tuple[int, int, int]:
        data.extend(content)
        return len(data) - len(content), len(content), 0

    pages = [[(row * across + column, *store(jpeg(tile))) for (row, column), tile in tiles.items()]]
    pages.append([])
    for row in range(0, down, 2):
        for column in range(0, across, 2):
            # four neighbours, shrunk and put side by side with their overlaps still in them
            quad = np.zeros((2 * side, 2 * side, 3), np.uint8)
            for i in range(2):
                for j in range(2):
                    if (row + i, column + j) in tiles:
                        quad[i * side :, j * side :][:side, :side] = tiles[row + i, column + j]
            pages[1].append((row * across + column, *store(jpeg(quad[::2, ::2]))))
    label = store(jpeg(LABEL))

    slide_id = "A1B2C3D4E5F6"
    index = bytearray(b"01.02" + slide_id.encode() + bytes(8))

    def place(*values: int) -> int:
        index.extend(struct.pack(f"<{len(values)}i", *values))
        return len(index) - 4 * len(values)

    zooms = [place(0, place(len(page), 0, *(n for entry in page for n in entry))) for page in pages]
    record = place(0, place(1, 0, 0, 0, *label))
    struct.pack_into("<2i", index, 5 + len(slide_id), place(*zooms), place(record))
    (folder / "Index.dat").write_bytes(index)
    (folder / "Data0000.dat").write_bytes(data)

    zoom = "\n".join(
        f"""[LAYER_0_LEVEL_{level}_SECTION]
OVERLAP_X = {overlap / 2**level}
OVERLAP_Y = {overlap / 2**level}
MICROMETER_PER_PIXEL_X = {mpp * 2**level}
MICROMETER_PER_PIXEL_Y = {mpp * 2**level}
IMAGE_FORMAT = JPEG
IMAGE_FILL_COLOR_BGR = 16777215
DIGITIZER_WIDTH = {side}
DIGITIZER_HEIGHT = {side}
IMAGE_CONCAT_FACTOR = {min(level, 1)}
"""
        for level in range(2)
    )
    description = f"""[GENERAL]
SLIDE_VERSION = 01.02
SLIDE_ID = {slide_id}
IMAGENUMBER_X = {across}
IMAGENUMBER_Y = {down}
OBJECTIVE_MAGNIFICATION = 20
CameraImageDivisionsPerSide = 1
[HIERARCHICAL]
HIER_COUNT = 1
NONHIER_COUNT = 1
INDEXFILE = Index.dat
HIER_0_NAME = Slide zoom level
HIER_0_COUNT = 2
HIER_0_VAL_0 = ZoomLevel_0
HIER_0_VAL_0_SECTION = LAYER_0_LEVEL_0_SECTION
HIER_0_VAL_1 = ZoomLevel_1
HIER_0_VAL_1_SECTION = LAYER_0_LEVEL_1_SECTION
NONHIER_0_NAME = Scan data layer
NONHIER_0_COUNT = 1
NONHIER_0_VAL_0 = ScanDataLayer_SlideBarcode
NONHIER_0_VAL_0_SECTION = NONHIERLAYER_0_LEVEL_0_SECTION
[NONHIERLAYER_0_LEVEL_0_SECTION]
BARCODE_IMAGE_TYPE = JPEG
[DATAFILE]
FILE_COUNT = 1
FILE_0 = Data0000.dat
{zoom}"""
    (folder / "Slidedat.ini").write_text(description, encoding="utf-8")
    return path


def write_scn(path: Path, picture: np.ndarray, *, place: tuple[int, int] = (61, 100), nm: int = 500) -> Path:
    """Leica: a BigTIFF of an area somewhere on the glass, two levels, and an image of all of the glass."""
    height, width = picture.shape[:2]
    small = picture[::4, ::4]
    glass = (height + 2 * place[0], width + 2 * place[1])

    def image(
        size: tuple[int, int], offset: tuple[int, int], dimensions: Sequence[tuple[int, np.ndarray]]
    ) -> str:
        listed = "".join(
            f'<dimension sizeX="{pixels.shape[1]}" sizeY="{pixels.shape[0]}" r="{r}" ifd="{ifd}"/>'
            for r, (ifd, pixels) in enumerate(dimensions)
        )
        return (
            '<image name="image"><creationDate>2020-01-01</creationDate><device model="SCN400" version="1"/>'
            f'<pixels sizeX="1" sizeY="1">{listed}</pixels>'
            f'<view sizeX="{size[1] * nm}" sizeY="{size[0] * nm}" offsetX="{offset[1] * nm}" '
            f'offsetY="{offset[0] * nm}"/><scanSettings><objectiveSettings><objective>20</objective>'
            "</objectiveSettings><illuminationSettings><numericalAperture>0.4</numericalAperture>"
            "<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image>"
        )

    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection '
        f'name="c" sizeX="{glass[1] * nm}" sizeY="{glass[0] * nm}"><barcode/>'
        + image(glass, (0, 0), [(0, LABEL)])
        + image((height, width), place, [(1, picture), (2, small)])
        + "</collection></scn>"
    )
    options: dict[str, Any] = {
        "tile": (128, 128),
        "compression": "jpeg",
        "photometric": "rgb",
        "metadata": None,
    }
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        writer.write(LABEL, description=xml, **options)
        for pixels, factor in ((picture, 1), (small, 4)):
            resolution = (1e7 / nm / factor,) * 2
            writer.write(pixels, resolution=resolution, resolutionunit="CENTIMETER", **options)
    return path


def write_bif(path: Path, picture: np.ndarray, *, side: int = 128, mpp: float = 0.465) -> Path:
    """Ventana: a label, and two levels of whole tiles that are numbered from the bottom, in snake lines."""
    down, across = -(-picture.shape[0] // side), -(-picture.shape[1] // side)
    whole = padded(picture, down * side, across * side)

    def number(row: int, column: int) -> int:
        upward = down - row - 1
        return upward * across + (across - column - 1 if upward % 2 else column) + 1

    joints = []
    for row in range(down):
        for column in range(across):
            if column + 1 < across:
                joints.append(("RIGHT", number(row, column), number(row, column + 1)))
            if row > 0:
                joints.append(("UP", number(row, column), number(row - 1, column)))
    listed = "".join(
        f'<TileJointInfo FlagJoined="1" Confidence="99" Direction="{way}" Tile1="{one}" Tile2="{other}" '
        'OverlapX="0" OverlapY="0"/>'
        for way, one, other in joints
    )
    scan = f'<iScan Z-layers="1" Magnification="20" ScanRes="{mpp}" ScannerModel="VENTANA iScan HT"/>'
    encoded = (
        f'<EncodeInfo Ver="2"><SlideStitchInfo><ImageInfo AOIScanned="1" Width="{side}" Height="{side}" '
        f'NumRows="{down}" NumCols="{across}" Pos-X="0" Pos-Y="0">{listed}</ImageInfo></SlideStitchInfo>'
        '<AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>'
    )
    options: dict[str, Any] = {"compression": "jpeg", "photometric": "rgb", "metadata": None}

    def packet(xml: str) -> list[tuple[int, str, int, bytes, bool]]:
        return [(700, "B", len(xml), xml.encode(), True)]

    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        writer.write(LABEL, description="Label Image", extratags=packet(scan), **options)
        options["tile"] = (side, side)
        writer.write(whole, description="level=0 mag=20 quality=95", extratags=packet(encoded), **options)
        writer.write(whole[::2, ::2], description="level=1 mag=10 quality=95", **options)
    return path


def write_dicom(
    path: Path,
    picture: np.ndarray,
    *,
    tile: tuple[int, int] = (128, 128),
    mpp: tuple[float, float] = (0.25, 0.25),
    syntax: str = "jpeg",
    sparse: Sequence[int] = (),
    parts: int = 1,
    series: str = "2.25.100",
    instance: int = 1,
    kind: Sequence[str] = ("ORIGINAL", "PRIMARY", "VOLUME", "NONE"),
    icc: bytes = b"",
) -> list[Path]:
    """Write one level (or label) of a DICOM whole-slide image.

    ``sparse`` names tiles that are left out, which makes it TILED_SPARSE; ``parts`` above 1 cuts it into a
    concatenation of several files. ``syntax``: jpeg, or rle, which OpenSlide does not know.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.pixels.encoders import RLELosslessEncoder
    from pydicom.uid import JPEGBaseline8Bit, RLELossless, VLWholeSlideMicroscopyImageStorage

    height, width = picture.shape[:2]
    rows, columns = tile
    down, across = -(-height // rows), -(-width // columns)
    whole = padded(picture, down * rows, across * columns)
    tiles = [
        (number, whole[number // across * rows :, number % across * columns :][:rows, :columns])
        for number in range(down * across)
        if number not in sparse
    ]
    share = -(-len(tiles) // parts)
    paths = []
    for part in range(parts):
        held = tiles[part * share : (part + 1) * share]
        uid = f"{series}.{instance}.{part}"
        d = Dataset()
        d.file_meta = FileMetaDataset()
        d.file_meta.TransferSyntaxUID = RLELossless if syntax == "rle" else JPEGBaseline8Bit
        d.file_meta.MediaStorageSOPClassUID = d.SOPClassUID = VLWholeSlideMicroscopyImageStorage
        d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID = uid
        d.Modality, d.InstanceNumber = "SM", instance
        d.StudyInstanceUID, d.SeriesInstanceUID = "2.25.99", series
        d.FrameOfReferenceUID = "2.25.98"
        d.ContentDate, d.ContentTime = "20200101", "000000"
        d.AcquisitionDateTime = "20200101000000"
        d.ImageType, d.VolumetricProperties = list(kind), "VOLUME"
        d.FocusMethod, d.ExtendedDepthOfField = "AUTO", "NO"
        d.BurnedInAnnotation, d.SpecimenLabelInImage = "NO", "NO"
        d.SamplesPerPixel, d.PhotometricInterpretation, d.PlanarConfiguration = 3, "YBR_FULL_422", 0
        if syntax == "rle":
            d.PhotometricInterpretation = "RGB"
        d.Rows, d.Columns = tile
        d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 8, 8, 7, 0
        d.NumberOfFrames = len(held)
        d.TotalPixelMatrixColumns, d.TotalPixelMatrixRows = width, height
        d.TotalPixelMatrixFocalPlanes = d.NumberOfOpticalPaths = 1
        d.ImagedVolumeWidth, d.ImagedVolumeHeight = width * mpp[1] / 1000, height * mpp[0] / 1000
        d.ImagedVolumeDepth = 1.0
        d.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
        origin = Dataset()
        origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 10
        d.TotalPixelMatrixOriginSequence = [origin]
        measures = Dataset()
        measures.PixelSpacing, measures.SliceThickness = [mpp[0] / 1000, mpp[1] / 1000], 0.001
        shared = Dataset()
        shared.PixelMeasuresSequence = [measures]
        d.SharedFunctionalGroupsSequence = [shared]
        optical = Dataset()
        optical.OpticalPathIdentifier = "1"
        if icc:
            optical.ICCProfile = icc
        d.OpticalPathSequence = [optical]
        if sparse:
            d.DimensionOrganizationType = "TILED_SPARSE"
            d.PerFrameFunctionalGroupsSequence = [_frame(number, across, tile) for number, _ in held]
        else:
            d.DimensionOrganizationType = "TILED_FULL"
        if parts > 1:
            d.SOPInstanceUIDOfConcatenationSource = f"{series}.{instance}"
            d.ConcatenationUID = f"{series}.{instance}.9"
            d.InConcatenationNumber, d.InConcatenationTotalNumber = part + 1, parts
            d.ConcatenationFrameOffsetNumber = part * share
        if syntax == "rle":
            options = {"rows": rows, "columns": columns, "samples_per_pixel": 3, "bits_allocated": 8}
            options |= {"bits_stored": 8, "photometric_interpretation": "RGB", "number_of_frames": 1}
            options |= {"pixel_representation": 0, "planar_configuration": 0}
            frames = [
                RLELosslessEncoder.encode(np.ascontiguousarray(pixels), **options) for _, pixels in held
            ]
        else:
            frames = [jpeg(pixels) for _, pixels in held]
        d.PixelData = encapsulate(frames)
        d["PixelData"].VR = "OB"
        name = path if parts == 1 else path.with_stem(f"{path.stem}-{part}")
        d.save_as(name, enforce_file_format=True)
        paths.append(name)
    return paths


def _frame(number: int, across: int, tile: tuple[int, int]) -> Any:
    from pydicom.dataset import Dataset

    place, frame = Dataset(), Dataset()
    place.ColumnPositionInTotalImagePixelMatrix = number % across * tile[1] + 1
    place.RowPositionInTotalImagePixelMatrix = number // across * tile[0] + 1
    place.XOffsetInSlideCoordinateSystem = place.YOffsetInSlideCoordinateSystem = 0
    place.ZOffsetInSlideCoordinateSystem = 0
    frame.PlanePositionSlideSequence = [place]
    return frame


def write_ome_zarr(
    path: Path,
    levels: list[np.ndarray],
    *,
    version: str,
    axes: str,
    pixel: float = 0.5,
    unit: str | None = "micrometer",
) -> Path:
    """Write RGB levels ``(y, x, 3)`` as an OME-Zarr whose arrays have the axes that are named."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for index, level in enumerate(levels):
        array = level.transpose(["yxc".index(axis) for axis in axes if axis in "yxc"])
        array = np.expand_dims(array, [position for position, axis in enumerate(axes) if axis not in "yxc"])
        chunks = tuple(128 if axis in "yx" else 1 for axis in axes)
        group.create_array(str(index), shape=array.shape, chunks=chunks, dtype=array.dtype)[...] = array
        scale = [pixel * 2**index if axis in "yx" else 1.0 for axis in axes]
        transform = {"type": "scale", "scale": scale}
        datasets.append({"path": str(index), "coordinateTransformations": [transform]})
    described = [
        {"name": axis, "type": "channel" if axis == "c" else "space"}
        | ({"unit": unit} if unit and axis in "zyx" else {})
        for axis in axes
    ]
    metadata = {"multiscales": [{"axes": described, "datasets": datasets, "version": version}]}
    if version == "0.4":
        group.attrs.update(metadata)
    else:
        group.attrs["ome"] = {**metadata, "version": version}
    return path
