"""A pathologist without a window: her every edit follows from a seed, and so does the picture that she draws.

`Expected` says what the edit with a number is and what the slide looks like after it, in one plain array.
`work` drives a real `Session` with these edits, between fine-tunes, segmentations, checkpoints and saves, and
tells what it did on a pipe. `examine` opens what a crash left and says what is wrong with it.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

# What a session imports when it is needed is imported here, before processes are forked.
import dask.array  # noqa: F401
import numpy as np
import zarr  # noqa: F401
from numpy.typing import NDArray

import napari_genselfdiff.finetuning.corrections
import napari_genselfdiff.finetuning.loop
import napari_genselfdiff.session.work
import napari_genselfdiff.verbs.streaming  # noqa: F401
from napari_genselfdiff.annotations import Annotations, encode, is_edited
from napari_genselfdiff.compute import Compute
from napari_genselfdiff.diffusion.config import COMPACT
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import Finished
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models.versions import Round
from napari_genselfdiff.segmentation.network import SegmenterSpec, build_segmenter, save_segmenter
from napari_genselfdiff.session import Session
from napari_genselfdiff.slides import slide_from_arrays

Codes = NDArray[np.uint8]
SHAPE = (1100, 1300)
DRAWN = Region(420, 420, 200, 240)
"""Where she draws: over a corner of four chunks, and small, so that a fine-tune takes a second."""
MODEL = "tiny"
CPU = Compute(device="cpu", autocast=None, threads=1)
Tell = Callable[..., None]


class Expected:
    """The edits of a seed, one a record of the journal, and what they make of the slide.

    Attributes
    ----------
    image : ndarray of uint8
        Pixel codes of the whole slide at level 0.
    position : int
        Edits so far.
    """

    def __init__(self, seed: int) -> None:
        self.image = np.zeros(SHAPE, np.uint8)
        self.position = 0
        self._seed = seed
        self._done: list[tuple[tuple[slice, slice], Codes]] = []
        self._undone: list[tuple[tuple[slice, slice], Codes]] = []

    def forward(self, position: int) -> Expected:
        """Make the edits up to a number."""
        while self.position < position:
            self.step(None)
        return self

    def step(self, annotations: Annotations | None) -> None:
        """Make the next edit, in the annotations too where they are given."""
        random = np.random.default_rng([self._seed, self.position])
        kind = random.choice(["stroke"] * 12 + ["accept"] * 2 + ["undo"] * 3 + ["redo"] * 2)
        if kind == "undo" and self._done:
            self.undo(annotations)
        elif kind == "redo" and self._undone:
            self.redo(annotations)
        else:
            self._draw(random, annotations, accepting=kind == "accept")

    def undo(self, annotations: Annotations | None) -> None:
        """Take the last edit back."""
        self._swap(self._done, self._undone)
        if annotations is not None:
            annotations.undo()

    def redo(self, annotations: Annotations | None) -> None:
        """Bring it back."""
        self._swap(self._undone, self._done)
        if annotations is not None:
            annotations.redo()

    @property
    def can_undo(self) -> bool:
        """Whether there is an edit to take back."""
        return bool(self._done)

    def _draw(self, random: np.random.Generator, annotations: Annotations | None, *, accepting: bool) -> None:
        layer = int(random.integers(2))
        side = int(random.integers(12, 60))
        y = (DRAWN.y >> layer) + int(random.integers((DRAWN.height >> layer) - side))
        x = (DRAWN.x >> layer) + int(random.integers((DRAWN.width >> layer) - side))
        # Speckles, so that every edit changes something.
        codes = encode(random.integers(0, 2, (side, side)))
        window = np.s_[y << layer : (y + side) << layer, x << layer : (x + side) << layer]
        before = self.image[window].copy()
        mask = np.hypot(*np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]) < 1
        # So much must be open to acceptance that it cannot all be what it was before by chance.
        if accepting and np.count_nonzero(~is_edited(before)) > 200:
            drawn = _enlarged(codes | np.uint8(0x80), layer)
            self.image[window] = np.where(is_edited(before), before, drawn)
            if annotations is not None:
                annotations.accept(layer, Region(y, x, side, side), codes)
        else:
            self.image[window] = np.where(_enlarged(mask, layer), _enlarged(codes, layer), before)
            if annotations is not None:
                annotations.stroke(layer, y, x, codes, mask)
        self._done.append((window, before))
        self._undone.clear()
        self.position += 1

    def _swap(self, source: list[Any], target: list[Any]) -> None:
        window, before = source.pop()
        target.append((window, self.image[window].copy()))
        self.image[window] = before
        self.position += 1


def open_session(folder: Path) -> Session:
    """Open the session on its slide."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    discs = (rows % 40 - 20) ** 2 + (columns % 40 - 20) ** 2 < 80
    image = np.where(discs[..., None], (90, 60, 140), (235, 190, 215)).astype(np.uint8)
    return Session(folder, slide_from_arrays(image, name="tissue", mpp=0.5), compute=CPU, author="tester")


def make_library(home: Path) -> None:
    """Make a library with a tiny random model."""
    config = replace(COMPACT, name="tiny", widths=(8, 16), full_width=8)
    spec = SegmenterSpec(config, ("background", "nucleus"), mpp=0.5)
    save_segmenter(build_segmenter(spec, start=None, seed=3), home / "models" / f"{MODEL}.safetensors")


def work(folder: Path, seed: int, seconds: float, tell: Tell) -> None:
    """Work on a session for some time; what is done is told when it is done."""
    until = time.monotonic() + seconds
    random = np.random.default_rng([seed, time.time_ns()])
    while time.monotonic() < until:
        tell("phase", "opening")
        session = open_session(folder)
        if session.current is None:
            session.use_model(MODEL)
        expected = Expected(seed).forward(session.annotations.position)
        tell("opened", expected.position)
        for turn in range(4):
            _paint(session, expected, tell, random)
            if turn % 2 == 0:
                _fine_tune(session, expected, tell)
            tell("phase", "segmenting")
            for _event in session.segment(
                Region(int(random.integers(900)), int(random.integers(900)), 150, 150)
            ):
                pass
            tell("phase", "checkpoint")
            session.annotations.checkpoint()
            _paint(session, expected, tell, random)
            tell("phase", "saving")
            session.view = {"zoom": float(random.random())}
            session.save()
            if time.monotonic() > until:
                break
        tell("phase", "closing")
        session.close()


def _paint(session: Session, expected: Expected, tell: Tell, random: np.random.Generator) -> None:
    tell("phase", "painting")
    for _ in range(int(random.integers(3, 25))):
        expected.step(session.annotations)
        tell("drawn", expected.position)
        time.sleep(float(random.random()) * 0.03)


def _fine_tune(session: Session, expected: Expected, tell: Tell) -> None:
    """Train in another thread while the painting goes on, then put the version to use."""
    tell("phase", "fine-tuning")
    outcome: list[object] = []

    def train() -> None:
        events = session.fine_tune(seconds=60, steps=1)
        outcome.extend(event.result for event in events if isinstance(event, Finished))

    thread = threading.Thread(target=train)
    thread.start()
    while thread.is_alive():
        expected.step(session.annotations)
        tell("drawn", expected.position)
        thread.join(0.05)
    tell("phase", "adopting")
    for result in outcome:
        assert isinstance(result, Round)
        session.adopt(Round(result.version, True, ""))
        tell("adopted", result.version.name)


def examine(folder: Path, seed: int, *, drawn: int, adopted: set[str]) -> dict[str, Any]:
    """Open what a crash left, in a copy, and compare it with what must be there.

    Parameters
    ----------
    folder : Path
    seed : int
    drawn : int
        Edits that must be there.
    adopted : set of str
        Versions that must be there.

    Returns
    -------
    dict
        ``position``; ``recovered``, what was said; ``problems``, in words.
    """
    copy = folder.with_name(f"{folder.name}-examined")
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("session.lock"))
    problems: list[str] = []
    said = ""
    position = 0
    try:
        session = open_session(copy)
        said = session.annotations.recovered or ""
        position = session.annotations.position
        problems += _differences(session, seed, drawn=drawn, adopted=adopted)
        session.close()
        session = open_session(copy)
        if session.annotations.recovered:
            problems.append(f"after a clean end it says: {session.annotations.recovered}")
        session.close()
    except Exception as error:  # noqa: BLE001 - any kind of error counts, and is told
        problems.append(f"{type(error).__name__}: {error}")
    shutil.rmtree(copy, ignore_errors=True)
    return {"position": position, "recovered": said, "problems": problems}


def _differences(session: Session, seed: int, *, drawn: int, adopted: set[str]) -> list[str]:
    problems = []
    annotations = session.annotations
    whole = Region(0, 0, *SHAPE)
    if annotations.read_only:
        problems.append("it is read-only")
    if annotations.position < drawn:
        problems.append(f"{drawn - annotations.position} edits of more than a second ago are lost")
    expected = Expected(seed).forward(annotations.position)
    if not np.array_equal(annotations.read(0, whole), expected.image):
        problems.append("the picture is not what was drawn")
    report = annotations.verify()
    if not report.ok:
        problems.append(f"the chain does not hold: {report.problem}")
    problems += _views(annotations)
    if expected.can_undo:
        expected.undo(annotations)
        if not np.array_equal(annotations.read(0, whole), expected.image):
            problems.append("undo does not take the last edit back")
        expected.redo(annotations)
        if not np.array_equal(annotations.read(0, whole), expected.image):
            problems.append("redo does not bring it back")
    missing = adopted - {version.name for version in session.versions}
    if missing:
        problems.append(f"versions are lost: {sorted(missing)}")
    for version in session.versions:
        try:
            session.segmenter(version.name)
        except UserError as error:
            problems.append(f"a version does not load: {error}")
    if session.current:
        session.labels(0, 0, 0, *SHAPE)
        for _event in session.segment(Region(0, 0, 100, 100)):
            pass
    return problems


def _views(annotations: Annotations) -> list[str]:
    """Whether views at all magnifications are those that the journal gives from nothing."""
    other = annotations.folder.with_name("from-the-journal")
    other.mkdir()
    shutil.copy(annotations.folder / "journal.ndjson", other)
    slide = annotations._journal._slide
    with Annotations.open(other, shape=SHAPE, slide_id=slide) as again:
        wrong = [
            layer
            for layer in range(again.layers)
            if not np.array_equal(
                again.read(layer, Region(0, 0, SHAPE[0] >> layer, SHAPE[1] >> layer)),
                annotations.read(layer, Region(0, 0, SHAPE[0] >> layer, SHAPE[1] >> layer)),
            )
        ]
    shutil.rmtree(other)
    return [f"views at layers {wrong} differ from a replay of the journal"] if wrong else []


def _enlarged(image: NDArray[Any], layer: int) -> NDArray[Any]:
    return image.repeat(1 << layer, 0).repeat(1 << layer, 1)
