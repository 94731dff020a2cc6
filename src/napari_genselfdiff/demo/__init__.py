"""The main job, end to end, on a real slide: what ``make demo`` and ``napari-genselfdiff demo`` run.

The corrections are a recorded file: outlines that were drawn by eye inside square fields of the slide. Those
of some fields are given as corrections, those of the others are only scored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.geometry import Region

RECORDED = (
    Path(__file__).parent / "cmu_small_region_nuclei.geojson",
    Path(__file__).parent / "ihc_nuclei.geojson",
)
RIM = 8
"""Pixels inside a field's border that are left out."""


@dataclass(frozen=True)
class Field:
    """A square of a slide in which every nucleus was outlined.

    Attributes
    ----------
    name : str
    region : Region
    correction : bool
        Whether it is given as a correction; else it is only scored.
    outlines : tuple of ndarray of float, each of shape (vertices, 2)
        ``(y, x)`` in level-0 pixels.
    """

    name: str
    region: Region
    correction: bool
    outlines: tuple[NDArray[np.float64], ...]

    def mask(self) -> NDArray[np.bool_]:
        """The nuclei, shape (height, width) of the region."""
        from PIL import Image, ImageDraw

        image = Image.new("1", (self.region.width, self.region.height))
        for outline in self.outlines:
            # An outline in pixel edges; PIL draws through pixel centres.
            corners = outline - (self.region.y, self.region.x) - 0.5
            ImageDraw.Draw(image).polygon([(float(x), float(y)) for y, x in corners], fill=1)
        return np.asarray(image)


@dataclass(frozen=True)
class Recording:
    """Recorded corrections of a slide.

    Attributes
    ----------
    slide_name : str
    mpp : float
        Micrometres per pixel that the person worked with.
    mpp_note : str
        Where that comes from when the file does not say it.
    fields : tuple of Field
    """

    slide_name: str
    mpp: float
    mpp_note: str
    fields: tuple[Field, ...]


def read_recording(path: Path) -> Recording:
    """Read recorded corrections from GeoJSON.

    Raises
    ------
    UserError
        If the file is damaged.
    """
    try:
        collection = json.loads(path.read_text(encoding="utf-8"))
        fields = []
        for feature in collection["features"]:
            values = feature["properties"]
            if values["classification"]["name"] == "field":
                fields.append(_field(values, feature, collection["features"]))
        fields.sort(key=lambda field: not field.correction)
        slide = collection["slide"]
        return Recording(slide["name"], float(slide["mpp"]), slide.get("mpp_note", ""), tuple(fields))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            "the recorded corrections could not be read", path, "install the plugin anew"
        ) from error


def recording_of(slide_name: str) -> Recording | None:
    """The recorded corrections of a slide, or None when there are none."""
    for path in RECORDED:
        if path.exists() and (recording := read_recording(path)).slide_name == slide_name:
            return recording
    return None


def dice(predicted: NDArray[np.bool_], drawn: NDArray[np.bool_]) -> float:
    """Dice of two masks; 1 when both are empty."""
    total = int(predicted.sum()) + int(drawn.sum())
    return 2 * int((predicted & drawn).sum()) / total if total else 1.0


def run_demo(slide: Path | None = None, output: Path = Path("demo-output")) -> None:
    """Run the main job in a napari window and write pictures, labels and a summary.

    Parameters
    ----------
    slide : Path, optional
        Any slide; the sample slide by default, and the embedded sample when that cannot be fetched.
    output : Path
        Folder of the results.
    """
    from napari_genselfdiff.widgets.demo import run_demo_window

    run_demo_window(slide, output)


def _field(values: dict[str, Any], feature: dict[str, Any], features: list[dict[str, Any]]) -> Field:
    ring = np.array(feature["geometry"]["coordinates"][0])
    (left, top), (right, bottom) = ring.min(axis=0), ring.max(axis=0)
    outlines = tuple(
        np.array(other["geometry"]["coordinates"][0], float)[:-1, ::-1]
        for other in features
        if other["properties"]["field"] == values["field"]
        and other["properties"]["classification"]["name"] != "field"
    )
    # Nuclei whose centre lies outside were not outlined, though they may reach in: the rim is not known.
    region = Region(int(top) + RIM, int(left) + RIM, int(bottom - top) - 2 * RIM, int(right - left) - 2 * RIM)
    return Field(values["field"], region, values["use"] == "correction", outlines)
