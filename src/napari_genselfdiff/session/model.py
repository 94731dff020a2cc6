"""The model of a session: the versions, which one is in use, and the task when there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.models import library
from napari_genselfdiff.models.versions import PRETEXT, Doubt, Round, Version
from napari_genselfdiff.session.folder import SessionFolder
from napari_genselfdiff.session.task import BACKGROUND, Task
from napari_genselfdiff.session.versions import Versions

if TYPE_CHECKING:
    from napari_genselfdiff.segmentation.network import Segmenter


class SessionModel(SessionFolder):
    """What a session knows of models; see `Session`, which is one.

    Parameters
    ----------
    folder : Path

    Attributes
    ----------
    versions : Versions
    notices : list of str
        What the user should know after opening.
    model_changed, task_changed : Signal
        Emitted in the thread that changed them.
    """

    model_changed = Signal(str)
    task_changed = Signal()

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._untrained: tuple[tuple[Task, str], Segmenter] | None = None
        self.notices: list[str] = []
        self.versions = Versions(folder, self._state, check_writable=self.check_writable)
        self._choose_usable_version()

    def delete_version(self, name: str) -> None:
        """Delete a version and what it said."""
        raise NotImplementedError

    @property
    def current(self) -> str | None:
        """Name of the version in use."""
        return self._state.current

    @property
    def previous(self) -> str | None:
        """Name of the version that was in use before."""
        return self._state.previous

    @property
    def model(self) -> Version | None:
        """The version in use."""
        return self.versions[self.current] if self.current else None

    @property
    def task(self) -> Task | None:
        """What was named when the session began without a model."""
        return self._state.task

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, the background first: those of the model in use, or of the task."""
        if self.current:
            return self.segmenter().spec.classes
        return self.task.classes if self.task is not None else (BACKGROUND, "foreground")

    @property
    def colours(self) -> list[str]:
        """Colours of classes 1, 2 and so on, ``#RRGGBB``; empty where the user chose none."""
        return [self._state.colours.get(name, "") for name in self.classes[1:]]

    def set_colours(self, colours: dict[str, str]) -> None:
        """Choose colours of classes, by name."""
        self._state.colours |= colours
        self.save()
        self.task_changed.emit()

    def start_task(self, task: Task) -> None:
        """Begin a task without a model: its first fine-tune starts from the pretext.

        Models that were used before stay in the list. What was drawn stays as it is: class 1 is the first
        class that is named, whatever it was called before.
        """
        self._state.task = task
        self._state.previous, self._state.current = self._state.current, None
        self.save()
        self.task_changed.emit()
        self.model_changed.emit("")

    def change_classes(self, names: Sequence[str]) -> None:
        """Rename classes, and add further ones behind them.

        A model that is in use becomes a new version, which says what it said before: it knows nothing of the
        new classes until a fine-tune.

        Parameters
        ----------
        names : sequence of str
            Of all classes but the background.

        Raises
        ------
        UserError
            If there are too few or too many names, or two are the same, or nothing may be changed.
        """
        classes = Task.named(names, mpp=None).classes
        if classes == self.classes:
            return
        self.check_writable()
        if len(classes) < len(self.classes):
            raise UserError(
                "a class that a model knows stays", self.classes[-1], "start a new task to go on without it"
            )
        if self.task is not None and self.task.classes == self.classes:
            self._state.task = replace(self.task, classes=classes)
        if self.current:
            from napari_genselfdiff.segmentation.network import with_classes

            before = self.versions[self.current]
            made = self.versions.reclassed(before, with_classes(self.segmenter(), classes))
            self.use_model(made.name)
            renamed = made.parent != before.name  # it was named anew before anything came of it
            if renamed and before.name not in self.versions.segmenting:
                self.delete_version(before.name)
        self.save()
        self.task_changed.emit()

    def use_model(self, name: str) -> None:
        """Choose a version of the session, or a model of the library or a file.

        Raises
        ------
        UserError
            If there is none, or it is damaged, or not a segmenter, or the choice cannot be written down.
        """
        name = name if name in self.versions else self.versions.take_from_library(name).name
        self.versions.segmenter(name)  # a damaged one is refused before anything is changed
        if name != self.current:
            before = self.previous, self.current
            self._state.previous, self._state.current = self.current or self.previous, name
            self.versions.overrule(name)
            try:
                self.save()
            except BaseException:
                self._state.previous, self._state.current = before
                raise
            self.model_changed.emit(name)

    def model_tag(self) -> str:
        """What the journals say of the model in use; empty when there is none."""
        from napari_genselfdiff.annotations.audit import model_tag
        from napari_genselfdiff.models.weights import sha256_of

        return model_tag(self.current, sha256_of(self.versions.path(self.current))) if self.current else ""

    def segmenter(self, name: str | None = None) -> Segmenter:
        """The network of a version, the one in use by default."""
        name = name or self.current
        if name is None:
            raise UserError("no model is chosen", self.folder, "choose a model from the list")
        return self.versions.segmenter(name)

    def starting_segmenter(self) -> Segmenter:
        """What the next fine-tune begins with: the model in use, or the pretext with the task's classes."""
        if self.current or self.task is None:
            return self.segmenter()
        from napari_genselfdiff.session.starting import untrained_segmenter

        key = self.task, self.pretext
        if self._untrained is None or self._untrained[0] != key:
            self._untrained = key, untrained_segmenter(self.task, self.pretext)
        return self._untrained[1]

    @property
    def pretext(self) -> str:
        """Pretext that a task begins with: a name of the library, or a file after adapting to a cohort."""
        if self._state.pretext:
            return str(self.folder / self._state.pretext)
        return self.task.pretext if self.task is not None else library.DEFAULT_PRETEXT

    def other_start(self) -> Segmenter | None:
        """What the next fine-tune begins with when it is not the model in use, which it must beat; or None.

        The pretext, with the classes of the model in use, once after it was adapted, and whenever that model
        is `grown`.
        """
        if not self.current or not (self.grown or self.newly_adapted):
            return None
        from napari_genselfdiff.diffusion.pretraining import load_pretext
        from napari_genselfdiff.session.starting import pretext_segmenter

        spec, network = self.segmenter().spec, load_pretext(library.resolve(self.pretext))[0]
        return pretext_segmenter(spec, network.state_dict()) if network.config == spec.config else None

    @property
    def grown(self) -> bool:
        """Whether the model in use comes from a pretext by the session's corrections alone."""
        name, seen = self.current, set[str]()
        while name is not None and name in self.versions and name not in seen:
            seen.add(name)
            version = self.versions[name]
            if version.settings.get("fresh"):
                return True
            name = version.parent
        return False

    @property
    def newly_adapted(self) -> bool:
        """Whether there is an adapted pretext that no version began with yet."""
        adapted = Path(self._state.pretext or "").name
        return bool(adapted) and all(version.settings.get(PRETEXT) != adapted for version in self.versions)

    def use_pretext(self, path: str) -> None:
        """Begin the next fine-tune with an adapted pretext; ``path`` is relative to the session's folder."""
        self._state.pretext = path
        self.save()

    def adopt(self, outcome: Round) -> None:
        """Keep a fine-tune's version, and put to use what it says."""
        if outcome.version.name not in self.versions:
            self.versions.add(outcome.version)
        self.save()
        if outcome.used is not None and outcome.used in self.versions:  # one may be deleted meanwhile
            self.use_model(outcome.used)

    def insist(self, doubt: Doubt) -> None:
        """Never leave a corrected place out of a fine-tune again, whatever contradicts it."""
        slide = self._state.slide(doubt.slide)
        if slide is not None:
            box = doubt.region
            slide.insisted.append([box.y, box.x, box.height, box.width])
            self.save()

    def _choose_usable_version(self) -> None:
        """Fall back to what a damaged version was trained from."""
        wanted = self.current
        self._state.current = self.versions.usable(wanted)
        self._state.previous = self.versions.usable(self.previous)
        for name, problem in self.versions.damaged.items():
            fallback = f"; {self.current or 'no model'} is in use instead" if name == wanted else ""
            self.notices.append(f"the weights of {name} cannot be used: {problem}{fallback}")
        for name in self.versions.exchanged:
            self.notices.append(
                f"the library's {name} is another file than the one this session began with: "
                "what it segments now may differ from what it segmented before"
            )
