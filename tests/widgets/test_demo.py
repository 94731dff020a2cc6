"""The demo in a real window, on the embedded sample and with a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_genselfdiff.demo import run_demo
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.labels import read_labels

pytestmark = [pytest.mark.gui, pytest.mark.usefixtures("library_home")]


def test_offline_the_whole_job_runs_on_the_embedded_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], qapp: object
) -> None:
    def offline() -> Path:
        raise UserError("the sample slide could not be fetched", None, "check the network")

    monkeypatch.setattr("napari_genselfdiff.widgets.demo.fetch_cmu_slide", offline)
    monkeypatch.setattr("napari_genselfdiff.widgets.learning.FINE_TUNE_SECONDS", 3.0)
    run_demo(None, tmp_path / "out")
    said = capsys.readouterr().out
    assert "could not be fetched" in said
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["slide"].startswith("immunohistochemistry")
    assert summary["corrected nuclei"] == 38
    assert 0 <= summary["dice after"]["mean"] <= 1
    labels, _ = read_labels(tmp_path / "out" / "labels.png")
    assert labels.shape == (512, 512)
    collection = json.loads((tmp_path / "out" / "labels.geojson").read_text())
    assert collection["type"] == "FeatureCollection"
    pictures = "1-segmented", "2-correcting", "3-fine-tuned", "4-segmented-again", "5-instant-answer"
    for name in (*pictures, "fields-after"):
        picture = np.asarray(Image.open(tmp_path / "out" / f"{name}.png"))
        assert picture.std() > 10
