"""Scores as a table."""

from __future__ import annotations

from napari_genselfdiff.cli.table import score_table


def test_each_score_has_its_column_and_what_an_image_lacks_is_a_dash() -> None:
    rows = [{"name": "a", "dice": 0.5, "hausdorff": 12.34, "hausdorff_um": 3.085}, {"name": "b", "dice": 1.0}]
    assert score_table(rows).splitlines() == [
        "image  dice   hausdorff  hausdorff_um",
        "a      0.500  12.3       3.1",
        "b      1.000  -          -",
    ]


def test_objects_have_a_table_of_their_own() -> None:
    row = {"name": "a", "dice": 0.5, "pq": 0.25, "object_f1": 0.125, "object_hausdorff": 7.0, "classes": {}}
    assert score_table([row]).splitlines() == [
        "image  dice",
        "a      0.500",
        "",
        "image  pq     object_f1  object_hausdorff",
        "a      0.250  0.125      7.0",
    ]
