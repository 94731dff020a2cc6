"""A session on a disk that takes no writes: it opens and shows what is there."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_genselfdiff.annotations import encode
from napari_genselfdiff.annotations.lock import WriterLock
from napari_genselfdiff.compute import Compute
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.session import Session
from napari_genselfdiff.slides import slide_from_arrays

CPU = Compute(device="cpu", autocast=None, threads=1)
ONE = np.ones((9, 9), bool)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_write_protected_session_opens_for_looking(
    session: Session, refusing: Callable[[Path, int], AbstractContextManager[None]], number: int
) -> None:
    session.annotations.stroke(0, 5, 5, encode(ONE.astype(int)), ONE)
    slide = session.slide
    session.close()
    with refusing(session.folder, number):
        again = Session(session.folder, slide, compute=CPU)
        assert again.read_only
        assert again.current == "tiny"
        np.testing.assert_array_equal(again.labels(0, 5, 5, 9, 9), 1)
        with pytest.raises(UserError, match="looking only"):
            again.annotations.stroke(0, 5, 5, encode(0 * ONE.astype(int)), ONE)
        again.close()


def test_records_name_the_model_that_was_in_use(session: Session, tissue: Any) -> None:
    from napari_genselfdiff.annotations.audit import read_records, split_tag
    from napari_genselfdiff.models.weights import sha256_of

    session.annotations.stroke(0, 5, 5, encode(ONE.astype(int)), ONE)
    (record,) = read_records(session.annotations.folder)
    name, digest = split_tag(record.model)
    assert name == "tiny"
    assert len(digest) == 16
    assert sha256_of(session.versions.path("tiny")).startswith(digest)


def test_a_disk_that_is_full_at_the_end_stops_no_slide_from_being_closed(
    session: Session, tissue: Any, refusing: Callable[[Path, int], AbstractContextManager[None]]
) -> None:
    one = session.active
    session.activate(session.add_slide(slide_from_arrays(255 - tissue, name="second", mpp=0.5)))
    for slide in session.slides:
        slide.annotations.stroke(0, 5, 5, encode(ONE.astype(int)), ONE)
    with refusing(session.folder, errno.ENOSPC), pytest.raises(UserError, match="free some space"):
        session.close()
    assert all(slide.annotations.read_only for slide in session.slides), "one goes on writing"

    again = Session(session.folder, one.slide, compute=CPU)
    assert not again.read_only
    for slide in again.slides:
        assert slide.annotations.why_read_only is None
        assert slide.annotations.position == 1
    again.close()


def test_what_a_window_changes_until_it_is_closed_is_not_written_over(session: Session) -> None:
    take = WriterLock.take
    with pytest.MonkeyPatch.context() as patched:

        def as_the_first_is_closed(folder: Path) -> WriterLock:
            patched.undo()
            session.set_colours({"nucleus": "#00ff00"})
            session.close()
            return take(folder)

        patched.setattr(WriterLock, "take", as_the_first_is_closed)
        second = Session(session.folder, compute=CPU)
    assert not second.read_only
    assert second.colours == ["#00ff00"]
    second.close()
    assert "#00ff00" in (session.folder / "session.json").read_text()


def test_a_damaged_session_file_does_not_lock_its_folder(session: Session) -> None:
    session.close()
    whole = (session.folder / "session.json").read_text()
    (session.folder / "session.json").write_text("{")
    with pytest.raises(UserError, match="damaged") as kept:
        Session(session.folder, compute=CPU)
    (session.folder / "session.json").write_text(whole)
    again = Session(session.folder, compute=CPU)
    assert not again.read_only, kept
    again.close()


def test_a_window_that_only_looks_writes_nothing(session: Session, tissue: Any) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in session.folder.rglob("*") if path.is_file()}

    whole = Region(0, 0, 300, 400)
    session.annotations.stroke(0, 5, 5, encode(ONE.astype(int)), ONE)
    *_, _end = session.segment(Region(0, 0, 300, 200))
    second = Session(session.folder, slide_from_arrays(tissue, name="tissue", mpp=0.5), compute=CPU)
    before = files()
    seen = second.predictions().read(0, whole)
    np.testing.assert_array_equal(seen, session.predictions().read(0, whole))
    assert (seen > 0).any()
    assert (seen == 0).any()
    *_, _end = second.segment(whole)
    assert (second.predictions().read(0, whole) > 0).all()
    np.testing.assert_array_equal(session.predictions().read(0, whole), seen)

    for change in (
        lambda: second.versions.branch("tiny"),
        lambda: second.versions.take_file(second.versions.path("tiny")),
        lambda: second.versions.rename("tiny", "mine"),
        lambda: second.delete_version("tiny"),
        lambda: second.change_classes(["x", "y"]),
        lambda: list(second.fine_tune(steps=1)),
        lambda: list(second.adapt(seconds=1, steps=1)),
    ):
        with pytest.raises(UserError, match="another window"):
            change()
    second.close()
    assert files() == before


def test_a_window_that_only_looks_sees_what_is_segmented_later(session: Session, tissue: Any) -> None:
    whole = Region(0, 0, 300, 400)
    second = Session(session.folder, slide_from_arrays(tissue, name="tissue", mpp=0.5), compute=CPU)
    assert not second.predictions().read(0, whole).any()
    *_, _end = session.segment(whole)
    np.testing.assert_array_equal(second.predictions().read(0, whole), session.predictions().read(0, whole))
    second.close()


def test_a_model_that_cannot_be_written_down_is_not_put_to_use(
    session: Session, refusing: Callable[[Path, int], AbstractContextManager[None]]
) -> None:
    branch, told = session.versions.branch("tiny").name, list[str]()
    session.model_changed.connect(told.append)
    with refusing(session.folder, errno.ENOSPC), pytest.raises(UserError, match="free some space"):
        session.use_model(branch)
    assert (session.current, session.previous) == ("tiny", None)
    session.use_model(branch)
    assert told == [branch]
    assert session.annotations.model.startswith(branch)
