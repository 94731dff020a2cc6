"""Outlines of ImageScope, read and drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.layouts import aperio
from napari_genselfdiff.exchange.layouts.aperio import draw_outlines, read_outlines

SHAPE = (30, 40)
Annotate = Callable[..., None]


def drawn(path: Path) -> np.ndarray:
    return draw_outlines(read_outlines(path), SHAPE, path)


def test_regions_are_numbered_in_their_order_and_reach_to_their_outline(
    tmp_path: Path, annotate: Annotate
) -> None:
    annotate(tmp_path / "a.xml", (2, 3, 6.9, 8.2), (20, 10, 30, 20))
    expected = np.zeros(SHAPE, np.int32)
    expected[3:9, 2:7] = 1  # x from 2 to 6.9 passes through the pixels 2 to 6
    expected[10:21, 20:31] = 2
    np.testing.assert_array_equal(drawn(tmp_path / "a.xml"), expected)


def test_the_later_of_two_regions_is_in_front(tmp_path: Path, annotate: Annotate) -> None:
    annotate(tmp_path / "a.xml", (2, 2, 20, 20), (10, 10, 30, 25))
    ids = drawn(tmp_path / "a.xml")
    assert (ids[15, 5], ids[15, 15], ids[15, 28]) == (1, 2, 2)


def test_the_negative_pen_erases(tmp_path: Path, annotate: Annotate) -> None:
    annotate(tmp_path / "a.xml", (2, 2, 20, 20), (8, 8, 12, 12), NegativeROA=1)
    ids = drawn(tmp_path / "a.xml")
    assert (ids[10, 10], ids[5, 5]) == (0, 1)
    assert set(np.unique(ids)) == {0, 1}


def test_outlines_over_the_border_are_cut(tmp_path: Path, annotate: Annotate) -> None:
    annotate(tmp_path / "a.xml", (-3, -2.5, 4, 5), (35, 25, 41.7, 32))
    ids = drawn(tmp_path / "a.xml")
    assert (ids[0, 0], ids[29, 39]) == (1, 2)


@pytest.mark.parametrize("points", [[(4, 4)], [(4, 4), (9, 9)]])
def test_dots_and_lines_are_left_out_and_said(
    tmp_path: Path, annotate: Annotate, caplog: pytest.LogCaptureFixture, points: list[tuple[int, int]]
) -> None:
    annotate(tmp_path / "a.xml", points, (20, 10, 30, 20))
    assert set(np.unique(drawn(tmp_path / "a.xml"))) == {0, 1}
    assert "1 of 2 regions" in caplog.text
    assert "a.xml" in caplog.text


def test_ellipses_are_left_out_and_said(
    tmp_path: Path, annotate: Annotate, caplog: pytest.LogCaptureFixture
) -> None:
    annotate(tmp_path / "a.xml", (20, 10, 30, 20), (2, 2, 9, 9), Type=2)
    assert set(np.unique(drawn(tmp_path / "a.xml"))) == {0, 1}
    assert "1 of 2 regions" in caplog.text


def test_outlines_of_another_image_are_refused(tmp_path: Path, annotate: Annotate) -> None:
    annotate(tmp_path / "a.xml", (2, 2, 20, 20), (200, 10, 230, 20), Id=77)
    with pytest.raises(UserError, match=r"region 77 lies outside of the image \(40 x 30 pixels\).*a\.xml"):
        drawn(tmp_path / "a.xml")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("<Annotations><Annotation>", "not valid XML"),
        ("not xml", "not valid XML"),
        ('<?xml version="1.0" encoding="klingon"?><Annotations/>', "not valid XML"),
        ("", "not valid XML"),
        ("<annotation/>", "begins with annotation instead of Annotations"),
        ('<Annotations><Region><Vertex X="3"/></Region></Annotations>', "Y=''"),
        ('<Annotations>\n<Region><Vertex X="nan" Y="1"/></Region></Annotations>', "line 2: .* X='nan'"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"{what}.*a\.xml"):
        read_outlines(path)


@pytest.mark.parametrize(
    "declaration",
    [
        '<!DOCTYPE Annotations [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE Annotations [<!ENTITY a SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE Annotations SYSTEM "http://127.0.0.1/annotations.dtd">',
    ],
)
def test_entities_are_never_declared(tmp_path: Path, declaration: str) -> None:
    path = tmp_path / "bomb.xml"
    path.write_text(f'<?xml version="1.0"?>{declaration}<Annotations>&a;</Annotations>')
    with pytest.raises(UserError, match=r"declares a document type.*bomb\.xml"):
        read_outlines(path)


def test_missing_and_huge_files(tmp_path: Path, annotate: Annotate, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no such file.*gone\.xml"):
        read_outlines(tmp_path / "gone.xml")
    monkeypatch.setattr(aperio, "MAX_BYTES", 100)
    annotate(tmp_path / "a.xml", (2, 2, 20, 20))
    with pytest.raises(UserError, match=r"more than .*a\.xml"):
        read_outlines(tmp_path / "a.xml")
