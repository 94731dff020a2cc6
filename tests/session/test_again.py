"""A version that was refused is put to use once later corrections show that it is better."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.finetuning.conftest import small_recipe
from tests.session.conftest import CPU, correct, last

from napari_genselfdiff.finetuning import rounds
from napari_genselfdiff.finetuning.corrections import Source
from napari_genselfdiff.finetuning.gate import Verdict
from napari_genselfdiff.finetuning.rounds import train_round
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models.versions import REFUSED, Round
from napari_genselfdiff.segmentation.network import save_segmenter
from napari_genselfdiff.session import Session

WEAK = 12
"""Steps after which a model knows little."""


def tuned(session: Session, *, steps: int) -> Round:
    """The outcome of a fine-tune whose model is refused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "judge_round", lambda *_, **__: Verdict(False, True, message="Not better"))
        patch.setattr(rounds, "recipe_for", small_recipe)
        outcome = last(session.fine_tune(seconds=None, steps=steps)).result
    assert isinstance(outcome, Round)
    return outcome


@pytest.fixture
def refused(session: Session, home: Path) -> Session:
    """A model that knows little is in use; what came of it was refused, and then more was corrected."""
    correct(session, Region(0, 0, 300, 130))
    source = Source(session.slide, session.annotations, "s")
    weak = last(train_round([source], session.segmenter(), compute=CPU, fresh=True, steps=WEAK)).result
    save_segmenter(weak.segmenter, home / "models" / "weak.safetensors")
    session.use_model("weak")
    outcome = tuned(session, steps=60)
    session.adopt(outcome)
    assert outcome.version.settings[REFUSED]
    assert session.current == "weak"
    correct(session, Region(0, 140, 300, 260))
    return session


def test_it_is_used_from_then_on_and_the_answer_says_so(refused: Session) -> None:
    refused.versions.rename("round-1", "Colon, first try")
    outcome = tuned(refused, steps=1)
    assert outcome.instead == outcome.used == "round-1"
    assert outcome.message.startswith(
        "Colon, first try, which was refused before, is used now. Better: Dice 0."
    )
    refused.adopt(outcome)
    assert refused.current == "round-1"
    assert "round-2" in refused.versions
    assert refused.versions.proven(refused.current) == "round-1", "the next round begins with it"
    again = tuned(refused, steps=1)
    assert again.version.parent == "round-1"
    assert again.used is None


def test_one_that_was_tried_and_left_is_not_used_again(refused: Session) -> None:
    for name in ("round-1", "weak", "tiny", "weak"):
        refused.use_model(name)
    assert tuned(refused, steps=1).used is None


def test_one_that_was_deleted_meanwhile_is_not_missed(refused: Session) -> None:
    outcome = tuned(refused, steps=1)
    assert outcome.instead == "round-1"
    refused.delete_version("round-1")
    refused.adopt(outcome)
    assert refused.current == "weak"
