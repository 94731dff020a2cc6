"""The colour profile in a file is applied when it is asked for, tile by tile."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from tests.slides import makers

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides import open_slide


def profile_of(*, gamma: float | None = None, space: str = "sRGB") -> bytes:
    """An ICC profile; with a gamma, sRGB's colours with a tone curve that is plainly another."""
    content = ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()
    if gamma is None:
        return content
    data = bytearray(content)
    count = int.from_bytes(data[128:132], "big")
    for i in range(count):
        tag = bytes(data[132 + 12 * i :][:4])
        if tag in (b"rTRC", b"gTRC", b"bTRC"):
            offset = int.from_bytes(data[136 + 12 * i : 140 + 12 * i], "big")
            # one number in steps of 1/256, as "curv" or as the first kind of "para"
            if data[offset : offset + 4] == b"para":
                data[offset + 8 : offset + 10] = bytes(2)
                data[offset + 12 : offset + 16] = round(gamma * 65536).to_bytes(4, "big")
    return bytes(data)


GAMMA = profile_of(gamma=1.0)


def expected(pixels: np.ndarray, profile: bytes = GAMMA) -> np.ndarray:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target = ImageCms.createProfile("sRGB")
    image = Image.fromarray(pixels)
    changed = ImageCms.profileToProfile(
        image, source, target, ImageCms.Intent(ImageCms.getDefaultIntent(source)), "RGB"
    )
    return np.asarray(changed)


def tiff(path: Path, picture: np.ndarray) -> Path:
    options: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "compression": "zlib"}
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture, iccprofile=GAMMA, **options)
        writer.write(picture[::2, ::2], subfiletype=1, **options)
    return path


def svs(path: Path, picture: np.ndarray) -> Path:
    description = "Aperio Image Library v1\r\n|AppMag = 20|MPP = 0.5"
    tile: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "compression": "jpeg"}
    tifffile.imwrite(path, picture, description=description, metadata=None, iccprofile=GAMMA, **tile)
    return path


def saved(path: Path, picture: np.ndarray) -> Path:
    Image.fromarray(picture).save(path, icc_profile=GAMMA)
    return path


def dicom(syntax: str) -> Callable[[Path, np.ndarray], Path]:
    return lambda path, picture: makers.write_dicom(path, picture, syntax=syntax, icc=GAMMA)[0]


FILES = {
    "a.tif": ("tifffile", tiff),
    "a.svs": ("openslide", svs),
    "a.png": ("pillow", saved),
    "a.jpg": ("pillow", saved),
    "jpeg.dcm": ("openslide", dicom("jpeg")),
    "rle.dcm": ("wsidicom", dicom("rle")),
}


@pytest.mark.parametrize("name", FILES)
def test_a_profile_is_applied_on_request(
    tmp_path: Path, tissue: Callable[[int, int], np.ndarray], name: str
) -> None:
    backend, write = FILES[name]
    path = write(tmp_path / name, tissue(1300, 1202))
    raw = open_slide(path)
    assert raw.backend == backend
    assert raw.icc_profile == GAMMA
    slide = open_slide(path, icc=True)
    assert slide.icc_profile is None
    assert slide.downsamples == raw.downsamples
    before, after = (each.read(500, 400, 300, 310) for each in (raw, slide))
    assert np.abs(before.astype(int) - after).mean() > 5
    assert np.array_equal(after, expected(before))
    own = [level for level, factor in enumerate(raw.downsamples) if factor <= 2 and name == "a.tif"]
    for level in own:
        assert np.array_equal(
            slide.levels[level].compute(), expected(np.ascontiguousarray(raw.levels[level].compute()))
        )
    # a computed level is one of the colours that are shown
    computed = slide.read(0, 0, 1300, 1202)[:1300, :1202].reshape(650, 2, 601, 2, 3).sum((1, 3), dtype=int)
    if len(slide.downsamples) > 1 and name != "a.tif":
        assert np.array_equal(slide.levels[1].compute(), (computed + 2) // 4)
    with ThreadPoolExecutor(6) as pool:
        copy = pickle.loads(pickle.dumps(slide))
        parts = list(pool.map(lambda y: copy.read(y, 400, 25, 310), range(500, 800, 25)))
    assert np.array_equal(np.concatenate(parts), after)


def test_a_slide_without_a_profile_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(makers.LABEL + 70).save(path)
    slide = open_slide(path)
    assert slide.with_icc() is slide


def grey_profile(gamma: float) -> bytes:
    """The smallest ICC profile of a grey scanner: a white point and a tone curve."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    start = 132 + 2 * 12
    table = struct.pack(">I", 2)
    table += b"wtpt" + struct.pack(">2I", start, len(white))
    table += b"kTRC" + struct.pack(">2I", start + len(white), len(curve) - 2)
    header = bytearray(128)
    struct.pack_into(">I", header, 0, start + len(white) + len(curve))
    header[8:12], header[12:24], header[36:40] = b"\2\x40\0\0", b"scnrGRAYXYZ ", b"acsp"
    struct.pack_into(">3i", header, 68, 63190, 65536, 54061)
    return bytes(header) + table + white + curve


def test_a_grey_profile(tmp_path: Path, tissue: Callable[[int, int], np.ndarray]) -> None:
    path, grey = tmp_path / "a.png", tissue(64, 64)[..., 0]
    Image.fromarray(grey).save(path, icc_profile=grey_profile(1.0))
    pixels = open_slide(path, icc=True).read(0, 0, 64, 64)
    assert np.ptp(pixels, axis=2).max() <= 1
    # light as it was counted, brighter as sRGB writes it
    linear = grey / 255
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert np.abs(pixels[..., 1] - srgb).max() <= 2


def test_a_profile_for_print_is_refused(tmp_path: Path, tissue: Callable[[int, int], np.ndarray]) -> None:
    profile = bytearray(profile_of())
    profile[16:20] = b"CMYK"
    path = tmp_path / "a.png"
    Image.fromarray(tissue(64, 64)).save(path, icc_profile=bytes(profile))
    with pytest.raises(UserError, match=r"colour profile.*a\.png.*open it without"):
        open_slide(path, icc=True)
    assert open_slide(path).shape == (64, 64)


def test_a_damaged_profile_is_told_and_does_no_harm_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(makers.LABEL + 70).save(path, icc_profile=GAMMA[:60])
    assert open_slide(path).shape == (90, 130)
    with pytest.raises(UserError, match="open it without"):
        open_slide(path, icc=True)
