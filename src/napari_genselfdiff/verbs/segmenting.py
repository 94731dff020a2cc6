"""Segment a slide or an image into a label file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Event, Finished
from napari_genselfdiff.exchange.labels import WRITABLE, write_labels
from napari_genselfdiff.exchange.omezarr import checked_target
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models import library
from napari_genselfdiff.segmentation.network import load_segmenter
from napari_genselfdiff.slides import Slide, open_slide
from napari_genselfdiff.slides.addresses import located
from napari_genselfdiff.slides.stain import looks_like_he
from napari_genselfdiff.verbs.inputs import check_mpp, check_writable
from napari_genselfdiff.verbs.prediction import segment_region

logger = logging.getLogger(__name__)

OBJECT_FORMATS = (".geojson", ".csv")
MOST_IN_PNG = 2**16 - 1


@dataclass(frozen=True)
class Segmented:
    """What came of it.

    Attributes
    ----------
    path : Path
    shape : tuple of int
        ``(height, width)`` in level-0 pixels.
    shares : dict of str to float
        Share of the area of each class but the background.
    objects : int or None
        Number of objects, where they were separated.
    """

    path: Path
    shape: tuple[int, int]
    shares: dict[str, float]
    objects: int | None


def segment(
    image: str | Path,
    output: Path,
    *,
    compute: Compute,
    model: str | Path = library.DEFAULT_SEGMENTER,
    region: Region | None = None,
    mpp: float | None = None,
    instances: bool = False,
    icc: bool = False,
    cancel: CancelToken | None = None,
) -> Iterator[Event]:
    """Segment an image or slide and write the labels at its full resolution.

    Parameters
    ----------
    image : str or Path
        A file, or an address that `open_slide` can read.
    output : Path
        Its suffix says the form, see `write_labels`.
    compute : Compute
    model : str or Path
        Name in the library, or a file.
    region : Region, optional
        The whole slide by default.
    mpp : float, optional
        Micrometres per pixel of the input, in place of what the file says.
    instances : bool
        Write ids of objects rather than classes; GeoJSON and tables of models that know objects hold them
        anyhow.
    icc : bool
        Apply the colour profile of the file first.
    cancel : CancelToken, optional
        Nothing is written then.

    Yields
    ------
    Event
        `Progress`, then `Finished` with a `Segmented`, or None when it was cancelled.

    Raises
    ------
    UserError
        If the input, the model, the region or the output is not good.
    """
    suffix = output.suffix.lower()
    if suffix not in WRITABLE:
        raise UserError("labels cannot be kept in this kind of file", output, f"use {', '.join(WRITABLE)}")
    path = library.resolve(model)
    if suffix == ".zarr" and output.exists():
        checked_target(output, name=path.stem)
    else:
        check_writable(output)
        source = located(image)
        if isinstance(source, Path) and output.exists() and source.exists() and output.samefile(source):
            raise UserError("the output would replace the image", output, "choose another name")
    slide = open_slide(image, mpp=check_mpp(mpp, "--mpp"))
    if icc and slide.icc_profile is None:
        logger.warning("%s has no colour profile in it: its colours are taken as they are", image)
    slide = slide.with_icc() if icc else slide
    region = _checked(region, slide)
    segmenter = load_segmenter(path)
    if not looks_like_he(slide):
        logger.warning("%s does not look like an H&E stain, which the models were trained on", image)
    objects = instances or (suffix in OBJECT_FORMATS and segmenter.spec.instances)
    done = yield from segment_region(
        segmenter,
        slide,
        region,
        compute=compute,
        objects=objects,
        scratch=output.parent if output.parent.is_dir() else None,
        cancel=cancel,
    )
    if done is None:
        yield Finished(None, "stopped; nothing was written", cancelled=True)
        return
    classes = segmenter.spec.classes
    number = None if done.objects is None else int(done.objects.max())
    if suffix == ".png" and (number or 0) > MOST_IN_PNG:
        output = output.with_name(f"{output.stem}-objects.tif")
        logger.warning("PNG cannot number %d objects: they are in %s", number, output)
    write_labels(
        output,
        done.labels,
        mpp=slide.mpp,
        class_names=classes,
        instances=done.objects,
        offset=(region.y, region.x),
        name=path.stem,
    )
    counts = np.bincount(done.labels.ravel(), minlength=len(classes)) / done.labels.size
    shares = {name: float(share) for name, share in zip(classes[1:], counts[1:], strict=True)}
    yield Finished(Segmented(output, done.labels.shape, shares, number), "done")


def _checked(region: Region | None, slide: Slide) -> Region:
    height, width = slide.shape
    whole = Region(0, 0, height, width)
    if region is None:
        return whole
    if region.height < 1 or region.width < 1:
        raise UserError(
            "the region has no pixels", "--region", "give Y X HEIGHT WIDTH, the last two positive"
        )
    if region.intersection(whole) != region:
        raise UserError(
            f"the region reaches beyond the slide, which is {height} pixels high and {width} wide",
            slide.where,
            "give --region Y X HEIGHT WIDTH within it, in level-0 pixels",
        )
    return region
