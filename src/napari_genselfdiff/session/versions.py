"""The versions of a session's model: where their weights lie, and what can be done with them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.files import atomic_path, write_text
from napari_genselfdiff.models import library
from napari_genselfdiff.models.versions import EARLY, FOLLOWS, REFUSED, Version
from napari_genselfdiff.models.weights import read_card, sha256_of

if TYPE_CHECKING:
    from napari_genselfdiff.segmentation.network import Segmenter
    from napari_genselfdiff.session.state import SessionState

LONGEST_TITLE = 60


class Versions:
    """All versions of a session. Iterating gives them in the order in which they came.

    Parameters
    ----------
    folder : Path
        Of the session; weights lie in ``models/`` in it.
    state : SessionState
        Changed in place; whoever calls writes it down.
    check_writable : callable
        Raises a `UserError` when nothing may be changed.

    Attributes
    ----------
    damaged : dict of str to str
        Versions whose weights are missing or damaged, and what is wrong, in plain words.
    exchanged : list of str
        Models of the library whose file is another one now.
    segmenting : list of str
        Versions that segment a slide just now, in whatever thread.
    """

    def __init__(self, folder: Path, state: SessionState, *, check_writable: Callable[[], None]) -> None:
        self._folder, self._state, self._check_writable = folder, state, check_writable
        self._segmenters: dict[str, Segmenter] = {}
        self.damaged: dict[str, str] = {}
        self.exchanged: list[str] = []
        self.segmenting: list[str] = []
        self._find_forgotten()
        for version in state.versions:
            path = self.path(version.name)
            try:
                read_card(path)
                if version.sha256 and version.sha256 != sha256_of(path):
                    self.exchanged.append(version.name)
            except UserError as error:
                self.damaged[version.name] = str(error)

    def __iter__(self) -> Iterator[Version]:
        return iter(self._state.versions)

    def __len__(self) -> int:
        return len(self._state.versions)

    def __contains__(self, name: object) -> bool:
        return any(version.name == name for version in self._state.versions)

    def __getitem__(self, name: str) -> Version:
        for version in self._state.versions:
            if version.name == name:
                return version
        raise UserError("there is no such version", name, "choose one from the list")

    def path(self, name: str) -> Path:
        """Where a version's weights lie."""
        return library.version_path(self._folder, self[name])

    def usable(self, name: str | None) -> str | None:
        """The version, or the nearest one that it was trained from whose weights are there."""
        seen: set[str] = set()
        while name is not None and name in self and name not in seen:
            if name not in self.damaged:
                return name
            seen.add(name)
            name = self[name].parent
        return None

    def proven(self, name: str | None) -> str | None:
        """The version, or the one that it grew from by rounds of which it was too early to tell.

        Each of these changed little; all of them together, one after the other, may change much. A version
        whose parent is lost, or is another file by now, is where it ends.
        """
        passed = set[str]()
        while name is not None and self[name].kind == "round" and self[name].settings.get(EARLY):
            parent = self[name].parent
            if parent is None or parent not in self or parent in {*passed, *self.damaged, *self.exchanged}:
                break
            passed.add(name)
            name = parent
        return name

    def segmenter(self, name: str) -> Segmenter:
        """The network of a version.

        Raises
        ------
        UserError
            If its weights are missing or damaged.
        """
        from napari_genselfdiff.segmentation.network import load_segmenter

        if name not in self._segmenters:
            self._segmenters[name] = load_segmenter(self.path(name))
        return self._segmenters[name]

    def heir(self, tag: str, current: str | None) -> Segmenter | None:
        """The first network that was trained on what was drawn while another one was in use.

        Parameters
        ----------
        tag : str
            What a journal says of the model that was in use, see `audit.model_tag`.
        current : str or None
            The version that is in use now: only those that led to it are asked, for others may be of another
            task. Where none was trained since, it is that itself.

        Returns
        -------
        Segmenter or None
            None where the version in use did not come of the one of the tag.
        """
        from napari_genselfdiff.annotations.audit import split_tag
        from napari_genselfdiff.segmentation.network import load_segmenter

        then, _ = split_tag(tag)
        found, heir, passed = current, current, set[str]()
        while found != then:
            if found is None or found not in self or found in passed:
                return None
            passed.add(found)
            heir = found if self[found].kind == "round" and found not in self.damaged else heir
            found = self[found].settings.get(FOLLOWS) or self[found].parent
        try:
            # Not kept in memory: of many versions, each is asked about a few places.
            return None if heir is None else self._segmenters.get(heir) or load_segmenter(self.path(heir))
        except UserError:
            return None

    def keep(self, name: str, segmenter: Segmenter) -> None:
        """Keep a network in memory that is on disk already."""
        self._segmenters[name] = segmenter

    def add(self, version: Version) -> None:
        """Put a version at the end of the list."""
        self._state.versions.append(version)

    def take_from_library(self, name: str) -> Version:
        """Add a model of the library, or of a file.

        Raises
        ------
        UserError
            If there is none, or it is not a segmenter.
        """
        from napari_genselfdiff.segmentation.network import load_segmenter

        path = library.resolve(name).resolve()
        segmenter, sha256, name = load_segmenter(path), sha256_of(path), path.stem
        if name in self and (self.path(name) == path or sha256_of(self.path(name)) == sha256):
            return self[name]
        if name in self:  # another file of that name
            name = self.new_name(name)
        self.add(Version(name, str(path), sha256=sha256))
        self.keep(name, segmenter)
        return self[name]

    def new_path(self, name: str) -> str:
        """Where the weights of a new version go, relative to the session's folder."""
        return f"models/{name}{library.SUFFIX}"

    def new_name(self, stem: str = "round") -> str:
        """A name that no version has or ever had, and no file."""
        number = 1
        while not self._is_free(f"{stem}-{number}"):
            number += 1
        return f"{stem}-{number}"

    def rename(self, name: str, title: str) -> None:
        """Call a version something else; empty for its own name.

        Raises
        ------
        UserError
            If another version is called so, or nothing may be changed.
        """
        self._check_writable()
        title = " ".join(title.split())
        if len(title) > LONGEST_TITLE:
            raise UserError("the name is too long", title, f"use at most {LONGEST_TITLE} letters")
        if any(title in (other.name, other.title) for other in self if title and other.name != name):
            raise UserError("another version is called so", title, "choose another name")
        self._replace(replace(self[name], title=title if title != name else ""))

    def overrule(self, name: str) -> None:
        """Forget that a version was refused, as it is used; whoever leaves it again does not want it."""
        version = self[name]
        settings = {key: value for key, value in version.settings.items() if key != REFUSED}
        self._replace(replace(version, settings=settings))

    def branch(self, name: str, title: str = "") -> Version:
        """A version of the same weights, to go on from in another direction."""
        self._check_writable()
        twin = self._copied(self.path(name), self.new_name("branch"), parent=name, kind="branch")
        if title:
            self.rename(twin.name, title)
        return self[twin.name]

    def reclassed(self, before: Version, segmenter: Segmenter) -> Version:
        """Add what a version becomes with other classes.

        It takes the other's place where that came about so, too, and nothing came of it.
        """
        from napari_genselfdiff.segmentation.network import save_segmenter

        self._check_writable()
        passed = before.kind == "classes" and all(version.parent != before.name for version in self)
        parent = before.parent if passed else before.name
        name, made = self.new_name("classes"), datetime.now(UTC).isoformat(timespec="seconds")
        version = Version(name, self.new_path(name), parent, made=made, kind="classes")
        save_segmenter(segmenter, self._folder / version.path, parent=parent, version=version.to_dict())
        self.keep(name, segmenter)
        self.add(version)
        return version

    def take_file(self, path: str | Path) -> Version:
        """Copy a model's file, for example a colleague's, into the session.

        Raises
        ------
        UserError
            If it is not a segmenter, or nothing may be changed.
        """
        from napari_genselfdiff.segmentation.network import load_segmenter

        self._check_writable()
        path = Path(path)
        load_segmenter(path)  # refuses what is damaged or does something else
        stem = re.sub(r"[^\w.-]+", "_", path.stem) or "model"
        name = stem if self._is_free(stem) else self.new_name(stem)
        return self._copied(path, name, parent=None, kind="imported")

    def export(self, name: str, target: str | Path, *, overwrite: bool = False) -> Path:
        """Write a version's weights, and its card as text beside them.

        Parameters
        ----------
        name : str
        target : str or Path
        overwrite : bool
            Replace files that are there.

        Returns
        -------
        Path
            The weights file.

        Raises
        ------
        UserError
            If one of the two exists or cannot be written.
        """
        target = Path(target)
        if target.suffix != library.SUFFIX:
            target = target.with_name(target.name + library.SUFFIX)
        sheet = target.with_suffix(".json")
        for path in (target, sheet):
            if path.exists() and not overwrite:
                raise UserError("the file exists already", path, "choose another name")
        source = self.path(name)
        # Fingerprints say which slides were used, names could say whose.
        card = read_card(source) | {"version": self[name].to_dict() | {"path": target.name}}
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
        write_text(sheet, json.dumps(card, indent=1, sort_keys=True) + "\n")
        return target

    def delete(self, name: str) -> None:
        """Delete a version and its weights; models of the library only leave the list.

        Raises
        ------
        UserError
            If it is in use, or segments a slide, or the file cannot be deleted, or nothing may be changed.
        """
        self._check_writable()
        version = self[name]
        if name == self._state.current:
            raise UserError("this version is in use", version.shown, "use another one first")
        if name in self.segmenting:
            raise UserError("this version segments a slide just now", version.shown, "cancel that first")
        path = self.path(name)
        if path.is_relative_to(self._folder / "models"):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise UserError(
                    f"the version could not be deleted ({error.strerror})", path, "check the folder"
                ) from error
        self._state.versions.remove(version)
        stem, number = _numbered(name)
        self._state.numbers[stem] = max(number, self._state.numbers.get(stem, 0))
        self._segmenters.pop(name, None)
        self.damaged.pop(name, None)
        if self._state.previous == name:
            self._state.previous = None

    def _is_free(self, name: str) -> bool:
        """Whether a name was never used: journals and versions that came of a deleted one go on naming it."""
        stem, number = _numbered(name)
        return (
            number > self._state.numbers.get(stem, -1)
            and all(name not in (version.name, version.parent, version.title) for version in self)
            and not (self._folder / self.new_path(name)).exists()
            and name not in self._mentioned
        )

    @cached_property
    def _mentioned(self) -> set[str]:
        """Names in the journals and of predictions: of old sessions, which kept no numbers of the deleted."""
        from napari_genselfdiff.annotations.audit import models_named

        names = set[str]()
        for slide in self._state.slides:
            folder = self._folder / slide.folder
            names |= models_named(folder / "annotations")
            names |= {path.stem.rpartition("-")[0] for path in (folder / "predictions").glob("*.zarr")}
        return names

    def _find_forgotten(self) -> None:
        """Take in weights that were written before a crash, whose version never reached ``session.json``."""
        known = {self._folder / version.path for version in self}
        for path in sorted((self._folder / "models").glob(f"*{library.SUFFIX}")):
            if path in known or path.stem in self or path.name.startswith("."):
                continue
            try:
                card = read_card(path)
                if card.get("kind") == "segmenter":
                    self.add(self._by_its_file(path.stem, Version.from_dict(card["version"])))
            except (UserError, KeyError, TypeError):
                continue  # not a version: left where it is

    def _by_its_file(self, name: str, carded: Version) -> Version:
        """A version as its card says, or as a copy: that came with the card of what it was copied from."""
        path = self.new_path(name)
        if carded.name == name:
            return replace(carded, path=path)
        if name.startswith("branch-"):
            return Version(name, path, carded.name, made=carded.made, kind="branch")
        return Version(name, path, made=carded.made, kind="imported")

    def _copied(self, source: Path, name: str, *, parent: str | None, kind: str) -> Version:
        made = datetime.now(UTC).isoformat(timespec="seconds")
        version = Version(name, self.new_path(name), parent, made=made, kind=kind)
        with atomic_path(self._folder / version.path) as temporary:
            shutil.copyfile(source, temporary)
        self.add(version)
        return version

    def _replace(self, version: Version) -> None:
        self._state.versions = [version if old.name == version.name else old for old in self]


def _numbered(name: str) -> tuple[str, int]:
    """What stands before the number at the end of a name, and the number; 0 where there is none."""
    found = re.fullmatch(r"(.+)-([0-9]+)", name)
    return (found[1], int(found[2])) if found else (name, 0)
