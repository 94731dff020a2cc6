"""Outlines in the XML of Aperio's ImageScope, drawn as a map of ids."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.errors import UserError

logger = logging.getLogger(__name__)

MAX_BYTES = 512 * 2**20
"""A file of MoNuSeg has 1 to 5 MB."""
BORDER = 50
"""Pixels by which an outline may pass the border of its image. Annotators' hands pass it by a few (3 in
MoNuSeg); farther out the outlines belong to another image."""
DAMAGED = "the file is damaged or not an annotation of ImageScope: copy or download it again"
POLYGON, RECTANGLE = "0", "1"


@dataclass(frozen=True)
class Outline:
    """A region.

    Attributes
    ----------
    number : str
        The region's ``Id``, for messages.
    kind : str
        ``Type``: 0 a polygon or drawn by hand, 1 a rectangle; others (ellipses, arrows, rulers) enclose
        nothing that vertices say.
    hole : bool
        Whether it was drawn with the negative pen, which erases.
    vertices : list of tuple of float
        ``(x, y)`` in pixels.
    """

    number: str
    kind: str
    hole: bool
    vertices: list[tuple[float, float]] = field(default_factory=list)

    @property
    def encloses(self) -> bool:
        """Whether there is an area to fill."""
        return self.kind in (POLYGON, RECTANGLE) and len(self.vertices) > 2


def read_outlines(path: Path) -> list[Outline]:
    """Read the regions of an annotation file, in their order.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of Outline

    Raises
    ------
    UserError
        If the file is missing, too large, not XML or not Aperio's, has a document type, or a vertex without
        coordinates.

    Notes
    -----
    The file is parsed as a stream, and one with a document type is refused before its first element:
    entities, with which small files grow to gigabytes or read other files, are declared nowhere else.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"the annotation has more than {MAX_BYTES >> 20} MB", path, "divide the image")
        handler = _Handler(path)
        with path.open("rb") as file:
            handler.parser.ParseFile(file)
    except FileNotFoundError as error:
        raise UserError("there is no such file", path, "check the path") from error
    except OSError as error:
        raise UserError(
            f"the annotation could not be read ({error.strerror})", path, "check the file"
        ) from error
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter two of unknown encodings
        raise UserError(f"the annotation is not valid XML ({error})", path, DAMAGED) from error
    return handler.outlines


def draw_outlines(outlines: list[Outline], shape: tuple[int, int], path: Path) -> NDArray[np.int32]:
    """Draw regions as a map of ids.

    Parameters
    ----------
    outlines : list of Outline
    shape : tuple of int
        Height and width of the image.
    path : Path
        Of the annotation, for messages.

    Returns
    -------
    ndarray of int32, shape (height, width)
        0, or the number of the region, counted from 1 in the order of the file over those that enclose
        something.

    Raises
    ------
    UserError
        If a region lies outside of the image.

    Notes
    -----
    A pixel belongs to a region when it lies inside or the outline passes through it. Where regions overlap,
    the later one is in front: it was drawn later, and small nuclei are commonly drawn onto large ones. What
    the negative pen drew is erased last.
    """
    from PIL import Image, ImageDraw

    height, width = shape
    image = Image.new("I", (width, height))
    draw = ImageDraw.Draw(image)
    filled = [outline for outline in outlines if outline.encloses]
    left_out = len(outlines) - len(filled)
    regions = [outline for outline in filled if not outline.hole]
    for outline in filled:
        _check_inside(outline, shape, path)
    for number, outline in enumerate(regions, 1):
        draw.polygon(outline.vertices, fill=number, outline=number)
    for outline in filled:
        if outline.hole:
            draw.polygon(outline.vertices, fill=0, outline=0)
    if left_out:
        logger.warning(
            "%s: %d of %d regions enclose no area (dots, lines, ellipses) and are left out",
            path,
            left_out,
            len(outlines),
        )
    return np.array(image, np.int32)


def _check_inside(outline: Outline, shape: tuple[int, int], path: Path) -> None:
    for x, y in outline.vertices:
        if not (-BORDER <= x <= shape[1] + BORDER and -BORDER <= y <= shape[0] + BORDER):
            raise UserError(
                f"region {outline.number} lies outside of the image ({shape[1]} x {shape[0]} pixels): it "
                f"goes to x {x:g}, y {y:g}",
                path,
                "the annotation must belong to this image, at its full resolution",
            )


class _Handler:
    """Collects regions while a file is parsed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outlines: list[Outline] = []
        self.inside = False
        self.depth = 0
        self.parser = expat.ParserCreate()
        self.parser.StartDoctypeDeclHandler = self.doctype
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end

    def doctype(self, *declaration: Any) -> None:
        raise UserError(
            "the annotation declares a document type, which ImageScope never writes and is not read",
            self.path,
            "do not trust this file; download it again",
        )

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self.depth and tag != "Annotations":
            raise UserError(f"the file begins with {tag} instead of Annotations", self.path, DAMAGED)
        self.depth += 1
        if tag == "Region":
            self.inside = True
            number = attributes.get("Id", str(len(self.outlines) + 1))
            hole = attributes.get("NegativeROA", "0") == "1"
            self.outlines.append(Outline(number, attributes.get("Type", POLYGON), hole))
        elif tag == "Vertex" and self.inside:
            self.outlines[-1].vertices.append(
                (self.coordinate(attributes, "X"), self.coordinate(attributes, "Y"))
            )

    def end(self, tag: str) -> None:
        self.depth -= 1
        if tag == "Region":
            self.inside = False

    def coordinate(self, attributes: dict[str, str], axis: str) -> float:
        said = attributes.get(axis, "")
        try:
            value = float(said)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UserError(
                f"line {self.parser.CurrentLineNumber}: a vertex has {axis}={said!r}, which is no number",
                self.path,
                DAMAGED,
            )
        return value
