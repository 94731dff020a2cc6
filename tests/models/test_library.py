"""The models that a user can choose from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.models import library
from napari_genselfdiff.models.library import (
    BUNDLED,
    DEFAULT_PRETEXT,
    DEFAULT_SEGMENTER,
    export_model,
    import_model,
    list_models,
    resolve,
    user_folder,
)
from napari_genselfdiff.models.weights import read_card, save_weights, sha256_of


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library of its own, with one bundled model."""
    monkeypatch.setenv("GENSELFDIFF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(library, "BUNDLED", tmp_path / "bundled")
    model(tmp_path / "bundled" / "nuclei.safetensors")


def model(path: Path, kind: str = "segmenter") -> Path:
    save_weights(path, {"a": torch.zeros(2)}, {"kind": kind, "from": path.name})
    return path


def test_models_live_in_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert user_folder() == tmp_path / "home" / "models"
    monkeypatch.delenv("GENSELFDIFF_HOME")
    assert "napari-genselfdiff" in str(user_folder())


def test_bundled_models_come_first(tmp_path: Path) -> None:
    assert [(entry.name, entry.bundled) for entry in list_models()] == [("nuclei", True)]
    import_model(model(tmp_path / "zebra.safetensors"))
    import_model(model(tmp_path / "glands.safetensors", kind="pretext"), name="a gland-model v1.0")
    entries = list_models()
    assert [entry.name for entry in entries] == ["nuclei", "a gland-model v1.0", "zebra"]
    assert [entry.bundled for entry in entries] == [True, False, False]
    assert [entry.kind for entry in entries] == ["segmenter", "pretext", "segmenter"]


def test_an_imported_model_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    source = model(tmp_path / "mine.safetensors")
    entry = import_model(source)
    assert entry.path == user_folder() / "mine.safetensors"
    assert entry.card["from"] == "mine.safetensors"
    source.unlink()  # it was copied
    assert resolve("mine") == entry.path
    assert resolve("nuclei") == tmp_path / "bundled" / "nuclei.safetensors"
    assert resolve(entry.path) == entry.path
    assert read_card(resolve("mine"))["kind"] == "segmenter"


def test_what_is_not_there_is_told_with_what_is(tmp_path: Path) -> None:
    import_model(model(tmp_path / "mine.safetensors"))
    with pytest.raises(UserError, match=r"no such model, glands, give a file, or one of: nuclei, mine"):
        resolve("glands")
    with pytest.raises(UserError, match="no such model"):
        resolve(tmp_path / "bundled")


@pytest.mark.parametrize("name", ["../mine", "a/b", "a\\b", "/nowhere/mine", "mine\n", "C:mine"])
def test_names_are_no_paths(tmp_path: Path, name: str) -> None:
    source = model(tmp_path / "mine.safetensors")
    with pytest.raises(UserError, match="this name cannot be used"):
        import_model(source, name=name)
    with pytest.raises(UserError, match="no such model"):
        resolve(name)
    assert [entry.name for entry in list_models()] == ["nuclei"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundled", "mine.safetensors"]


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    for name in ("nuclei", "mine"):
        source = model(tmp_path / f"{name}.safetensors")
        if name == "mine":
            import_model(source)
        with pytest.raises(UserError, match="already a model of this name"):
            import_model(source)


@pytest.mark.parametrize("content", [b"", b"noise", b"\x02\0\0\0\0\0\0\0{}", b"\xff" * 100])
def test_a_damaged_file_does_not_hide_the_others(tmp_path: Path, content: bytes) -> None:
    import_model(model(tmp_path / "zebra.safetensors"))
    damaged = user_folder() / "damaged.safetensors"
    damaged.write_bytes(content)
    (user_folder() / "folder.safetensors").mkdir()
    assert [entry.name for entry in list_models()] == ["nuclei", "zebra"]
    with pytest.raises(UserError, match=r"damaged\.safetensors"):
        read_card(resolve("damaged"))
    with pytest.raises(UserError, match=r"damaged\.safetensors"):
        import_model(damaged, name="other")
    assert not (user_folder() / "other.safetensors").exists()


def test_a_model_is_exported_for_a_colleague(tmp_path: Path) -> None:
    target = export_model("nuclei", tmp_path / "for-you")
    assert target == tmp_path / "for-you.safetensors"
    assert target.read_bytes() == resolve("nuclei").read_bytes()
    with pytest.raises(UserError, match="the file exists already"):
        export_model("nuclei", target)
    with pytest.raises(UserError, match="no such model"):
        export_model("nothing", tmp_path / "x")
    assert import_model(target, name="from a colleague").card["kind"] == "segmenter"


def test_without_a_user_folder_the_bundled_ones_are_there() -> None:
    assert not user_folder().exists()
    assert [entry.name for entry in list_models()] == ["nuclei"]
    assert not user_folder().exists()  # looking makes no folder


@pytest.mark.parametrize("name", [DEFAULT_PRETEXT, DEFAULT_SEGMENTER])
def test_bundled_weights_are_what_their_card_says(name: str) -> None:
    path = BUNDLED / f"{name}.safetensors"
    card = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert sha256_of(path) == card["sha256"]
    assert path.stat().st_size <= 12e6
    assert read_card(path) == {key: value for key, value in card.items() if key != "sha256"}
    told = {"data", "data_licence", "licence", "split", "command", "steps", "mpp_range", "input_range", "use"}
    assert told <= set(card)
    assert "NuInsSeg" in card["data"]
    if card["kind"] == "segmenter":
        assert card["classes"] == ["background", "nucleus"]
        assert card["scores"]["held-out NuInsSeg"]["images"] == 133
