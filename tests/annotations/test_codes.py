from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_genselfdiff.annotations import classes_of, codes, encode, is_accepted, is_edited, is_joined

CLASSES = arrays(np.int64, (4, 5), elements=st.integers(-1, 30))


FLAGS = arrays(bool, (4, 5))


@given(CLASSES, FLAGS, FLAGS)
def test_every_class_comes_back_with_its_state(
    classes: np.ndarray, accepted: np.ndarray, joined: np.ndarray
) -> None:
    coded = encode(classes, accepted, joined=joined)
    codes.check(coded)
    seen = classes >= 0
    assert (classes_of(coded) == classes).all()
    assert (is_accepted(coded) == (seen & accepted)).all()
    assert (is_edited(coded) == (seen & ~accepted)).all()
    assert (is_joined(coded) == ((classes > 0) & joined)).all()
    assert (coded[~seen] == 0).all()


@pytest.mark.parametrize("number", [-2, 31, 200])
def test_a_class_that_does_not_fit_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="0 to 30"):
        encode([number])


@pytest.mark.parametrize("byte", [0x40, 0x41, 0x80, 0xC1, 0x20, 0xA0])
def test_bytes_that_are_no_codes_are_refused(byte: int) -> None:
    with pytest.raises(ValueError, match="encode"):
        codes.check(np.array([[byte]], np.uint8))
