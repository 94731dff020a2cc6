"""Where the tissue of a slide is: glass, pen marks and empty tiles are left out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_genselfdiff.geometry import Region
from napari_genselfdiff.slides.sampling import PIXELS, has_no_overview, sampled_overview
from napari_genselfdiff.slides.slide import Slide

SIDE = 1024
"""The overview is read with about so many pixels on its longer side, and not finer than `FINEST`."""
FINEST = 8.0
"""Micrometres a pixel of the mask at least, where the slide says its resolution."""
SCANNED = 12
"""Pixels whose brightest channel is darker were not scanned: empty tiles are black in some formats."""
CONTRAST = (0.03, 0.1)
"""Range of the threshold in optical density; between them it is chosen by Otsu's method."""
GLASS_QUANTILE = 0.98
DIMMEST_GLASS = 200.0
"""What is darker is not glass, however much of the overview it fills."""
PEN_GROWTH = 3
LEAST_SHARE = 2e-4
"""Pieces that are smaller than this part of the mask are dust; holes of that size belong to the tissue."""


@dataclass(frozen=True)
class Tissue:
    """A mask over the whole slide.

    Attributes
    ----------
    mask : ndarray of bool, shape (height, width)
        True on tissue.
    downsample : float
        Width of its pixels in level-0 pixels; its first pixel begins at level-0 pixel (0, 0).
    """

    mask: NDArray[np.bool_]
    downsample: float

    @property
    def share(self) -> float:
        """Part of the slide that is tissue, 0 to 1."""
        return float(self.mask.mean())

    def meets(self, y: float, x: float, height: float, width: float) -> bool:
        """Whether a rectangle in level-0 pixels touches tissue."""
        top, left = (max(0, math.floor(start / self.downsample)) for start in (y, x))
        bottom, right = math.ceil((y + height) / self.downsample), math.ceil((x + width) / self.downsample)
        return bool(self.mask[top:bottom, left:right].any())

    def read(self, layer: int, box: Region) -> NDArray[np.bool_]:
        """The mask at the pixels of one of the slide's power-of-two layers, each at its centre.

        Parameters
        ----------
        layer : int
            Pixels are ``2**layer`` level-0 pixels wide.
        box : Region
            In the layer's pixels.
        """
        rows, columns = (
            np.minimum((start + np.arange(length) + 0.5) * 2**layer / self.downsample, limit - 1).astype(int)
            for start, length, limit in zip(
                (box.y, box.x), (box.height, box.width), self.mask.shape, strict=True
            )
        )
        return self.mask[np.ix_(rows, columns)]


class SlideTissue:
    """The tissue of one slide, found when it is asked for first.

    Parameters
    ----------
    slide : Slide

    Attributes
    ----------
    sensitivity : float
        See `find_tissue`; may be changed.
    """

    def __init__(self, slide: Slide) -> None:
        self.slide = slide
        self.sensitivity = 0.5
        self._found: dict[float, Tissue] = {}

    def find(self) -> Tissue:
        """The tissue at this sensitivity; up to a second or two, from any thread."""
        sensitivity = self.sensitivity
        if sensitivity not in self._found:
            self._found = {sensitivity: find_tissue(self.slide, sensitivity=sensitivity)}
        return self._found[sensitivity]


def find_tissue(slide: Slide, *, sensitivity: float = 0.5) -> Tissue:
    """Find the tissue of a slide on its overview.

    Parameters
    ----------
    slide : Slide
    sensitivity : float
        0 to 1: higher takes paler tissue in. The threshold is multiplied by ``4 ** (0.5 - sensitivity)``.

    Returns
    -------
    Tissue

    Raises
    ------
    UserError
        If the overview of the file is damaged.
    """
    if not has_no_overview(slide):
        rgb, downsample = overview(slide)
        return Tissue(tissue_mask(rgb, sensitivity=sensitivity), downsample)
    from scipy import ndimage

    rgb, downsample = sampled_overview(slide)
    # Tissue is taken to reach as far as what was not looked at.
    mask = ndimage.binary_dilation(tissue_mask(rgb, sensitivity=sensitivity), iterations=PIXELS // 2)
    return Tissue(mask, downsample)


def overview(slide: Slide) -> tuple[NDArray[np.uint8], float]:
    """The whole slide as one small RGB image, and the width of its pixels in level-0 pixels."""
    wanted = max(1.0, max(slide.shape) / SIDE, FINEST / slide.mpp if slide.mpp else 1.0)
    level = slide.best_level(wanted)
    height, width = slide.levels[level].shape[:2]
    # A thumbnail need not be antialiased: every n-th pixel of the nearest finer level.
    step = max(1, round(wanted / slide.downsamples[level]))
    rgb = slide.read(0, 0, height, width, level=level)[::step, ::step]
    return rgb, slide.downsamples[level] * step


def tissue_mask(rgb: NDArray[np.uint8], *, sensitivity: float = 0.5) -> NDArray[np.bool_]:
    """Which pixels of an overview are tissue.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (height, width, 3)
        Bright background.
    sensitivity : float
        See `find_tissue`.

    Returns
    -------
    ndarray of bool, shape (height, width)

    Notes
    -----
    Optical density relative to the glass of this very slide, in the channel that absorbs most, smoothed, and
    Otsu's threshold (Otsu, IEEE Trans. SMC 1979) within plausible bounds: it is meaningless where there is
    glass or tissue alone. Haematoxylin, eosin, DAB and most stains let blue or red through; pens are found by
    what no stain on thin tissue does: black absorbs all colours alike and nearly all light, a green pen red
    and blue, a saturated blue or red one two channels almost wholly.
    """
    from scipy import ndimage
    from skimage.filters import threshold_otsu
    from skimage.morphology import remove_small_holes, remove_small_objects

    scanned: NDArray[np.bool_] = rgb.max(axis=2) > SCANNED
    if not scanned.any():
        return scanned
    glass = np.maximum(np.quantile(rgb[scanned], GLASS_QUANTILE, axis=0), DIMMEST_GLASS)
    density = np.maximum(-np.log10((rgb + np.float32(1)) / (glass + 1)), 0).astype(np.float32)
    pen = ndimage.binary_dilation(_is_pen(density) & scanned, iterations=PEN_GROWTH)
    valid: NDArray[np.bool_] = scanned & ~pen
    if not valid.any():
        return valid
    strongest = np.where(valid, density.max(axis=2), 0)
    strongest = ndimage.gaussian_filter(strongest, 1.5)
    low, high = CONTRAST
    spread = np.ptp(strongest[valid]) > low
    otsu = threshold_otsu(strongest[valid]) if spread else low
    threshold = min(max(otsu, low), high) * 4 ** (0.5 - sensitivity)
    mask = ndimage.binary_closing(np.pad(strongest > threshold, 3), iterations=2)[3:-3, 3:-3] & valid
    least = max(4, round(LEAST_SHARE * mask.size))
    mask = remove_small_objects(mask, max_size=least)
    filled: NDArray[np.bool_] = remove_small_holes(mask, max_size=least) & valid
    return filled


def _is_pen(density: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels that are ink rather than stained tissue, by their optical density."""
    from scipy import ndimage

    red, green, blue = np.moveaxis(density, 2, 0)
    least, most = density.min(axis=2), density.max(axis=2)
    black = (least > 0.75) & (most - least < 0.25)
    # Haematoxylin absorbs red more than blue, but green no less: ink of blue and green pens lets it through.
    green_ink = (red > green + 0.15) & (most > 0.35)
    blue_ink = (red > blue + 0.45) & (green > blue + 0.25) & (red > 0.7) & (blue < 0.35)
    red_ink = (green > 0.7) & (blue > 0.6) & (red < 0.12)
    ink = black | green_ink | blue_ink | red_ink
    # Ink is a stroke: single dark pixels are nuclei and folds.
    return np.asarray(ndimage.binary_opening(ink, iterations=1))
