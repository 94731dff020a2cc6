"""Slides at addresses: what cannot be reached is told, and a session opens again."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.slides.server import serve

from napari_genselfdiff.contributions import read_slides
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.session import Session, default_folder
from napari_genselfdiff.slides import Slide, open_slide
from napari_genselfdiff.slides.addresses import located


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
    tissue: Callable[[int, int], np.ndarray],
    write_ome_zarr: Callable[..., Path],
) -> Iterator[tuple[str, dict[str, int]]]:
    folder, picture = tmp_path_factory.mktemp("served"), tissue(600, 500)
    for version in ("0.4", "0.5"):
        path = folder / f"{version}.ome.zarr"
        write_ome_zarr(path, [picture, picture[::2, ::2]], version=version, axes="cyx", unit=None)
    Image.fromarray(picture).save(folder / "picture.png")
    broken: dict[str, int] = {}
    with serve(folder, broken) as url:
        yield url, broken


def refusal(where: str) -> str:
    with pytest.raises(UserError) as caught:
        open_slide(where)
    assert where.rstrip("/") in str(caught.value)
    return str(caught.value)


def test_what_is_an_address() -> None:
    assert located("https://host/a.zarr/") == "https://host/a.zarr"
    assert located("C:/slides/a.svs") == Path("C:/slides/a.svs")
    assert located("slides/a.svs") == Path("slides/a.svs")
    assert located(Path("/a.svs").as_uri() if sys.platform != "win32" else "file:///a.svs") == Path("/a.svs")


def test_what_is_not_there(served: tuple[str, dict[str, int]]) -> None:
    url, _ = served
    assert "no Zarr at this address" in refusal(f"{url}/nothing.zarr")
    assert "download" in refusal(f"{url}/picture.png")
    assert "check the address, the network" in refusal("http://127.0.0.1:9/slide.zarr")
    assert "no Zarr at this address" in refusal("memory://nothing")
    assert "gopher:// cannot be read" in refusal("gopher://host/slide.zarr")


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    assert 'pip install "napari-genselfdiff[s3]"' in refusal("s3://bucket/slide.zarr")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_server_that_forbids_what_it_does_not_have(
    served: tuple[str, dict[str, int]], version: str
) -> None:
    url, broken = served
    broken[version] = 403  # as Amazon does
    try:
        assert open_slide(f"{url}/{version}.ome.zarr").shape == (600, 500)
    finally:
        broken.clear()


def test_a_server_that_fails_is_told_and_does_not_spoil_the_slide(
    served: tuple[str, dict[str, int]],
) -> None:
    url, broken = served
    slide = open_slide(f"{url}/0.5.ome.zarr")
    broken["0/c/"] = 500
    try:
        with pytest.raises(UserError, match=r"could not be fetched.*500.*check the network"):
            slide.read(0, 0, 50, 50)
    finally:
        broken.clear()
    assert slide.read(0, 0, 50, 50).std() > 1


def test_a_session_on_an_address_opens_again(served: tuple[str, dict[str, int]], tmp_path: Path) -> None:
    url, _ = served
    address = f"{url}/0.4.ome.zarr"
    slide = open_slide(address)
    assert default_folder(slide).name.startswith("0.4.ome.zarr-")
    session = Session(tmp_path / "session", slide)
    session.set_mpp(0.5)
    session.close()
    assert f'"path": "{address}"' in (tmp_path / "session" / "session.json").read_text()
    again = Session(tmp_path / "session", open_slide(address))
    assert again.slide.mpp == 0.5
    again.close()
    other = open_slide(f"{url}/0.5.ome.zarr")
    assert default_folder(other).name != default_folder(slide).name


def test_napari_reads_an_address(served: tuple[str, dict[str, int]]) -> None:
    url, _ = served
    ((levels, options, kind),) = read_slides(f"{url}/0.4.ome.zarr")
    assert (kind, options["name"], levels[0].shape) == ("image", "0.4.ome.zarr", (600, 500, 3))
    slide = next(value for value in options["metadata"].values() if isinstance(value, Slide))
    assert slide.where == f"{url}/0.4.ome.zarr"


def test_a_zip_without_a_zarr(tmp_path: Path) -> None:
    path = tmp_path / "report.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("report.txt", "no slide")
    with pytest.raises(UserError, match="unpack it"):
        open_slide(path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UserError, match="may be damaged"):
        open_slide(path)
