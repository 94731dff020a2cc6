"""Slides that are made for a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image


def _tissue(height: int, width: int) -> np.ndarray:
    """A smooth, colourful picture without symmetry, uint8 RGB."""
    rng = np.random.default_rng(7)
    small = rng.integers(40, 250, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="session")
def tissue() -> Callable[[int, int], np.ndarray]:
    """Return the function that makes a picture."""
    return _tissue


@pytest.fixture(scope="session")
def write_ome_zarr() -> Callable[..., Path]:
    """Return the function that writes an OME-Zarr."""
    return _write_ome_zarr


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    """2100 x 1300 pixels."""
    return _tissue(2100, 1300)


@pytest.fixture
def jpeg_pyramid(tmp_path: Path, picture: np.ndarray) -> Path:
    """A pyramidal, tiled, JPEG-compressed TIFF at 0.25 um/px, levels 1 and 4, with a label behind it."""
    path = tmp_path / "pyramid.tif"
    options: dict[str, Any] = {"tile": (256, 256), "compression": "jpeg", "photometric": "rgb"}
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture, resolution=(40000, 40000), resolutionunit="CENTIMETER", **options)
        writer.write(picture[::4, ::4], subfiletype=1, **options)
        writer.write(np.zeros((300, 500, 3), np.uint8), description="label", photometric="rgb")
    return path


def _write_ome_zarr(
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
