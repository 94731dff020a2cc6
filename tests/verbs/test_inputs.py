"""Which files of a folder are slides."""

from __future__ import annotations

from pathlib import Path

from napari_genselfdiff.verbs.inputs import find_slides


def test_parts_of_a_slide_and_its_macro_image_are_no_slides(tmp_path: Path) -> None:
    listed = {
        "ImageFile": "a.jpg",
        "ImageFile(1,0)": "a(1,0).jpg",
        "MacroImage": "a_macro.jpg",
        "MapFile": "a_map2.jpg",
    }
    text = "".join(f"{key}={name}\r\n" for key, name in listed.items())
    (tmp_path / "a.vms").write_text(f"[Virtual Microscope Specimen]\r\n{text}")
    for name in (*listed.values(), "b.jpg", "._b.jpg"):
        (tmp_path / name).write_bytes(b"a picture")
    assert find_slides([tmp_path]) == [tmp_path / "a.vms", tmp_path / "b.jpg"]
