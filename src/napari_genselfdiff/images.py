"""Plain image files in folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides.colours import as_rgb

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def find_images(folders: Sequence[str | Path]) -> list[Path]:
    """Image files in folders (or files named directly), sorted by name in each folder.

    Raises
    ------
    UserError
        If a folder does not exist or no image is found.
    """
    found: list[Path] = []
    for folder in map(Path, folders):
        if folder.is_file():
            found.append(folder)
        elif folder.is_dir():
            found += sorted(
                p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."
            )
        else:
            raise UserError("there is no such folder", folder, "check the path")
    if not found:
        names = ", ".join(str(folder) for folder in folders)
        raise UserError("no image was found", names, f"images end with {', '.join(IMAGE_SUFFIXES)}")
    return found


def read_rgb(path: str | Path) -> NDArray[np.uint8]:
    """Read an image file.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)

    Raises
    ------
    UserError
        If the file is missing, damaged, not an image, or has more than 8 bits a colour.
    """
    return rgb_of(open_image(path), path)


def rgb_of(image: Image.Image, path: str | Path) -> NDArray[np.uint8]:
    """Pixels of an image as RGB; what is transparent is white, as glass is.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)

    Raises
    ------
    UserError
        If it has more than 8 bits a colour, of which Pillow would keep the lowest or the highest alone.
    """
    if image.mode.startswith(("I", "F")):
        raise UserError("the image has more than 8 bits a colour", path, "save it as an 8-bit RGB image")
    transparent = "A" in image.mode or "transparency" in image.info
    return as_rgb(np.array(image.convert("RGBA" if transparent else "RGB")))


def open_image(path: str | Path) -> Image.Image:
    """Read an image file in its own mode (``1``, ``L``, ``P``, ``I;16``, ``RGB``...).

    Raises
    ------
    UserError
        If the file is missing, damaged, too large or not an image.
    """
    with _told(path), Image.open(path) as image:
        image.load()
        return image


def image_size(path: str | Path) -> tuple[int, int]:
    """``(height, width)`` of an image file, of which the head alone is read.

    Raises
    ------
    UserError
        As `open_image` does.
    """
    with _told(path), Image.open(path) as image:
        return image.height, image.width


@contextmanager
def _told(path: str | Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UserError("there is no such file", path, "check the path") from error
    except Image.DecompressionBombError as error:
        raise UserError("the image is too large for a plain image file", path, "use a tiled TIFF") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError("the image could not be read", path, "it may be damaged or not an image") from error
