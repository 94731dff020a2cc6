"""Colours as the scanner's profile means them."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_genselfdiff.errors import UserError

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

    from napari_genselfdiff.slides.levels import Pixels, Source

_MODES = {"RGB": "RGB", "GRAY": "L"}


class ToSrgb:
    """Turns a scanner's colours into sRGB, with the rendering intent that the profile asks for.

    Parameters
    ----------
    profile : bytes
        The ICC profile of a file.
    which : str or Path
        The file, for errors.

    Raises
    ------
    UserError
        If the profile is damaged or not one of red, green and blue or grey.

    Notes
    -----
    Each pixel is converted by itself, so the result does not depend on how a slide was cut. Little CMS may
    use one transform from many threads, and Pillow lets other threads run meanwhile. The transform cannot be
    pickled and is made again in each process.
    """

    def __init__(self, profile: bytes, which: str | Path) -> None:
        self.profile, self.which = profile, which
        self._lock = threading.Lock()
        self._made: tuple[ImageCmsTransform, str] | None = None
        self._transform()

    def __reduce__(self) -> tuple[type[ToSrgb], tuple[bytes, str | Path]]:
        return ToSrgb, (self.profile, self.which)

    def __call__(self, pixels: Pixels) -> Pixels:
        """Convert uint8 pixels, shape ``(height, width, 3)``."""
        from PIL import Image, ImageCms

        transform, mode = self._transform()
        image = Image.fromarray(pixels if mode == "RGB" else np.ascontiguousarray(pixels[..., 0]))
        return np.asarray(ImageCms.applyTransform(image, transform))

    def _transform(self) -> tuple[ImageCmsTransform, str]:
        from PIL import ImageCms

        with self._lock:
            if self._made is None:
                try:
                    profile = ImageCms.ImageCmsProfile(io.BytesIO(self.profile))
                    mode = _MODES[profile.profile.xcolor_space.strip()]
                    srgb = ImageCms.createProfile("sRGB")
                    intent = ImageCms.Intent(ImageCms.getDefaultIntent(profile))
                    self._made = ImageCms.buildTransform(profile, srgb, mode, "RGB", intent), mode
                except (ImageCms.PyCMSError, OSError, KeyError, ValueError) as error:
                    raise UserError(
                        "the colour profile of the slide cannot be used", self.which, "open it without"
                    ) from error
            return self._made


class InSrgb:
    """Source of a level whose colours are converted where tiles are decoded."""

    def __init__(self, source: Source, convert: ToSrgb) -> None:
        self.source, self.convert = source, convert

    def __call__(self, y: int, x: int, height: int, width: int) -> Pixels:
        """Read pixels inside the level."""
        return self.convert(self.source(y, x, height, width))
