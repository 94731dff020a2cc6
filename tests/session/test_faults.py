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
from napari_genselfdiff.compute import Compute
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.session import Session

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
