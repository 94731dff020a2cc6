"""The models that a user can choose from: the bundled ones and those in the user's folder."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.files import atomic_path
from napari_genselfdiff.models.versions import Version
from napari_genselfdiff.models.weights import read_card

SUFFIX = ".safetensors"
BUNDLED = Path(__file__).parent / "bundled"
DEFAULT_SEGMENTER = "nuclei"
DEFAULT_PRETEXT = "pretext"


@dataclass(frozen=True)
class ModelEntry:
    """One model of the library.

    Attributes
    ----------
    name : str
    path : Path
    card : dict
        The model card.
    bundled : bool
        Whether it came with the plugin.
    """

    name: str
    path: Path
    card: dict[str, Any]
    bundled: bool

    @property
    def kind(self) -> str:
        """``segmenter`` or ``pretext``."""
        return str(self.card.get("kind", "unknown"))


def user_folder() -> Path:
    """Folder of the user's models: ``GENSELFDIFF_HOME``, or the system's place for application data."""
    from platformdirs import user_data_path

    home = os.environ.get("GENSELFDIFF_HOME")
    return (Path(home) if home else user_data_path("napari-genselfdiff")) / "models"


def choices(versions: Iterable[Version]) -> dict[str, str]:
    """Names of the segmenters that a session can use, its own versions first, with a description of each."""
    found = {version.name: version.description for version in versions}
    for entry in list_models():
        if entry.kind == "segmenter":
            found.setdefault(entry.name, f"{entry.name}: a model of the library")
    return found


def list_models() -> list[ModelEntry]:
    """All readable models: the bundled ones first, then the user's, each sorted by name."""
    entries = []
    for folder, bundled in ((BUNDLED, True), (user_folder(), False)):
        for path in sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []:
            try:
                card = read_card(path)
            except UserError:
                continue  # A damaged file must not hide the others; `resolve` names it when it is asked for.
            entries.append(ModelEntry(path.stem, path, card, bundled))
    return entries


def resolve(name_or_path: str | Path) -> Path:
    """Find a model by the name of the library or by its path.

    Raises
    ------
    UserError
        If there is neither.
    """
    for folder in (user_folder(), BUNDLED):
        path = folder / f"{name_or_path}{SUFFIX}"
        if re.fullmatch(r"[\w. -]+", str(name_or_path)) and path.is_file():
            return path
    path = Path(name_or_path)
    if path.is_file():
        return path
    names = ", ".join(entry.name for entry in list_models())
    raise UserError("there is no such model", name_or_path, f"give a file, or one of: {names}")


def version_path(folder: Path, version: Version) -> Path:
    """Where the weights of a session's version lie; ``folder`` is the session's.

    A model of the library may lie elsewhere now: in another environment, or on another computer.
    """
    path = folder / version.path
    if version.kind == "library" and not path.is_file():
        with suppress(UserError):
            return resolve(version.name)
    return path


def import_model(path: str | Path, *, name: str | None = None) -> ModelEntry:
    """Copy a weights file into the user's folder.

    Parameters
    ----------
    path : str or Path
    name : str, optional
        Name in the library; the file's by default.

    Raises
    ------
    UserError
        If the file is not a model, or the name is taken.
    """
    path = Path(path)
    card = read_card(path)
    name = name or path.stem
    if not re.fullmatch(r"[\w. -]+", name):
        raise UserError("this name cannot be used", name, "use letters, digits, spaces, dots and dashes")
    if name in {entry.name for entry in list_models()}:
        raise UserError("there is already a model of this name", name, "give another one with --name")
    target = user_folder() / f"{name}{SUFFIX}"
    _copy(path, target)
    return ModelEntry(name, target, card, bundled=False)


def export_model(name_or_path: str | Path, target: str | Path) -> Path:
    """Copy a model to a file, for a colleague.

    Raises
    ------
    UserError
        If there is no such model, the file exists, or it cannot be written.
    """
    source, target = resolve(name_or_path), Path(target)
    if target.suffix != SUFFIX:
        target = target.with_name(target.name + SUFFIX)
    if target.exists():
        raise UserError("the file exists already", target, "choose another name")
    _copy(source, target)
    return target


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
