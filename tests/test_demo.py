"""The recorded corrections of the demo."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from napari_genselfdiff.demo import RECORDED, dice, read_recording, recording_of
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.slides import open_slide


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_half_of_the_outlines_are_corrections_and_half_are_only_scored(path: Path) -> None:
    fields = read_recording(path).fields
    given = sum(len(field.outlines) for field in fields if field.correction)
    scored = sum(len(field.outlines) for field in fields if not field.correction)
    assert given + scored >= 40
    assert 0.4 < given / (given + scored) < 0.6
    regions = [field.region for field in fields]
    assert all(a.intersection(b) is None for i, a in enumerate(regions) for b in regions[:i])


def test_outlines_lie_on_nuclei_of_the_slide(cmu_slide: Path) -> None:
    slide = open_slide(cmu_slide)
    recording = recording_of(slide.name)
    assert recording is not None
    assert recording.mpp == pytest.approx(slide.mpp, rel=1e-3)
    for field in recording.fields:
        region, mask = field.region, field.mask()
        assert mask.shape == (region.height, region.width)
        rgb = slide.read(region.y, region.x, region.height, region.width)
        red = rgb[..., 0].astype(float)
        # Haematoxylin takes red away: nuclei are darker there than what lies around them.
        assert red[mask].mean() < red[~mask].mean() - 30


def test_a_slide_without_a_recording_has_none() -> None:
    assert recording_of("somebody-elses.svs") is None


def test_a_damaged_recording_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.geojson"
    path.write_text(json.dumps({"features": [{}]}))
    with pytest.raises(UserError, match=r"broken\.geojson"):
        read_recording(path)


def test_dice_by_hand() -> None:
    a = np.array([True, True, False])
    b = np.array([True, False, False])
    assert dice(a, b) == pytest.approx(2 / 3)
    assert dice(~np.ones(3, bool), ~np.ones(3, bool)) == 1.0
