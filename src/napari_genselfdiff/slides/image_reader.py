"""PNG, JPEG, BMP and other pictures, read whole by Pillow."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides.colours import ArraySource
from napari_genselfdiff.slides.levels import Calibration, Level
from napari_genselfdiff.slides.slide import PLAUSIBLE_TAG_MPP, Slide, build_slide, plausible_mpp
from napari_genselfdiff.slides.units import micrometres

if TYPE_CHECKING:
    from PIL.Image import Image


def read(path: Path) -> Slide | None:
    """Open a picture; None when Pillow does not know the format.

    Raises
    ------
    UserError
        If the picture is damaged, has more than 8 bits or is too large to hold in memory.
    """
    from PIL import Image, UnidentifiedImageError

    from napari_genselfdiff.images import rgb_of

    if not path.is_file():
        return None
    try:
        with warnings.catch_warnings():
            # up to the size at which it refuses, Pillow warns of what it takes for a bomb
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                pixels = rgb_of(image, path)
                profile, calibration = image.info.get("icc_profile"), _calibration(image)
    except UnidentifiedImageError:
        return None
    except Image.DecompressionBombError as error:
        raise UserError(
            "the picture is too large to be opened whole", path, "convert it to a tiled TIFF or OME-Zarr"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"the image could not be read ({error})", path, "it may be damaged: copy or download it again"
        ) from error
    level = Level(ArraySource(pixels, "yxc", name=path), (pixels.shape[0], pixels.shape[1]), cached=False)
    return build_slide(
        path.name,
        [level],
        [1.0],
        backend="pillow",
        calibration=calibration,
        where=path,
        icc_profile=profile,
    )


def _calibration(image: Image) -> Calibration:
    """What PNG's ``pHYs`` and JPEG's density say, where it can be a microscope's and not a printer's."""
    dots = image.info.get("dpi", (0, 0))
    low, high = PLAUSIBLE_TAG_MPP
    sizes = [micrometres(1 / float(count), "inch") if count else None for count in dots]
    return Calibration(plausible_mpp(sizes, low=low, high=high))
