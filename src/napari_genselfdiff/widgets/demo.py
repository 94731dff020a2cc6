"""The recorded session in a real window: the clicks of a user, one after the other."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QDeadlineTimer, QEventLoop, QTimer
from qtpy.QtWidgets import QApplication

from napari_genselfdiff.demo import Field, Recording, dice, recording_of
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.labels import write_labels
from napari_genselfdiff.files import write_text
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.samples import fetch_cmu_slide, ihc_slide
from napari_genselfdiff.slides import Slide, open_slide
from napari_genselfdiff.widgets.dock import GenSelfDiffDock
from napari_genselfdiff.widgets.slides import add_slide
from napari_genselfdiff.widgets.view import show_region

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_genselfdiff.session import Session

PATIENCE_SECONDS = 600
WINDOW_SIZE = (1366, 768)
PASSES = 5
VIEWED = (400, 560)
"""Level-0 pixels of the view that is answered at once."""


def run_demo_window(path: Path | None, output: Path) -> None:
    """Run the demo; with a display and a slide of the user's own, leave the window open."""
    import napari

    slide = open_slide(path) if path else _sample()
    recording = recording_of(slide.name)
    if slide.mpp is None and recording is not None:
        slide = slide.with_mpp(recording.mpp)
        _say(f"Resolution {recording.mpp} µm/px: {recording.mpp_note}")
    output.mkdir(parents=True, exist_ok=True)
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*WINDOW_SIZE)
    demo = _Demo(viewer, slide, recording, output)
    try:
        demo.run()
        if path is not None and _interactive():
            _say("The window is yours: correct, fine-tune, and close it when you are done.")
            napari.run()
    finally:
        viewer.close()


class _Demo:
    def __init__(self, viewer: Viewer, slide: Slide, recording: Recording | None, output: Path) -> None:
        self.viewer, self.slide, self.recording, self.output = viewer, slide, recording, output
        folder = _fresh_folder(output / "session")
        self.dock = GenSelfDiffDock(viewer, folder)
        viewer.window.add_dock_widget(self.dock, name="GenSelfDiff", area="right")
        settle()
        self.image = add_slide(viewer, slide)
        self.summary: dict[str, Any] = {"slide": slide.name, "mpp": slide.mpp}

    @property
    def session(self) -> Session:
        assert self.dock.session is not None
        return self.dock.session

    def run(self) -> None:
        """Segment, correct, fine-tune, segment again; then save."""
        if self.dock.session is None:
            raise UserError(self.dock.status.text.text(), self.slide.name)
        if self.slide.mpp is None:
            raise UserError(
                "the slide does not say its resolution",
                self.slide.where,
                "add it to the file, or run segment with --mpp",
            )
        whole = Region(0, 0, *self.slide.shape)
        view = whole if max(self.slide.shape) <= 6000 else _middle(whole)
        show_region(self.viewer, self.image, view)
        _say(f"Segmenting {self.slide.name} with the model '{self.session.current}'")
        self._click(self.dock.segment_section.segment_button)
        self._picture("1-segmented")
        if self.recording is not None:
            self._learn(self.recording, view)
        else:
            _say("There are no recorded corrections for this slide: the demo ends with the segmentation.")
        labels = self.session.labels(0, view.y, view.x, view.height, view.width)
        for name in ("labels.png", "labels.geojson"):
            write_labels(
                self.output / name,
                labels,
                mpp=self.slide.mpp,
                class_names=self.session.classes,
                offset=(view.y, view.x),
                name=self.slide.name,
            )
        write_text(self.output / "summary.json", json.dumps(self.summary, indent=1) + "\n")
        if self.recording is not None:
            self._answer_at_once(next(field for field in self.recording.fields if not field.correction))
        _say(f"Pictures, labels and summary are in {self.output}")

    def _learn(self, recording: Recording, view: Region) -> None:
        scored = [field for field in recording.fields if not field.correction]
        before = {field.name: self._score(field) for field in scored}
        self._fields("before", recording.fields)
        for field in recording.fields:
            if field.correction:
                self._correct(field)
        corrections = sum(len(field.outlines) for field in recording.fields if field.correction)
        _say(f"Corrected {corrections} nuclei; fine-tuning")
        wait_for(self.dock.fine_tune_section.button.isEnabled)
        self._click(self.dock.fine_tune_section.button)
        answer = self.dock.fine_tune_section.answer.text()
        _say(f"The answer: {answer}")
        self._picture("3-fine-tuned")
        show_region(self.viewer, self.image, view)
        self._click(self.dock.segment_section.segment_button)
        self._picture("4-segmented-again")
        after = {field.name: self._score(field) for field in scored}
        self._fields("after", recording.fields)
        self.summary |= {
            "corrected nuclei": corrections,
            "scored nuclei": sum(len(field.outlines) for field in scored),
            "answer": answer,
            "model": self.session.current,
            "dice before": before | {"mean": float(np.mean(list(before.values())))},
            "dice after": after | {"mean": float(np.mean(list(after.values())))},
        }
        _say(
            f"Dice on {self.summary['scored nuclei']} nuclei that were only scored: "
            f"{self.summary['dice before']['mean']:.3f} -> {self.summary['dice after']['mean']:.3f}"
        )

    def _correct(self, field: Field) -> None:
        """Draw a field's outlines in an editable window, as a user does, and say that the field is right."""
        show_region(self.viewer, self.image, field.region)
        self.dock.correct_section.correct_button.click()
        window = self.dock.editing
        assert window is not None
        place, region = window.place, field.region
        width = 2**place.layer
        origin = np.array([place.y, place.x])
        box = region.y // width - place.y, region.x // width - place.x
        part = np.s_[
            max(0, box[0]) : box[0] + region.height // width, max(0, box[1]) : box[1] + region.width // width
        ]
        drawn = np.zeros_like(window.layer.data, bool)
        mask = field.mask()[::width, ::width]
        drawn[part] = mask[: drawn[part].shape[0], : drawn[part].shape[1]]
        inside = np.zeros_like(drawn)
        inside[part] = True
        # One stroke of the eraser, then one stroke a nucleus.
        window.layer.data_setitem(np.nonzero(inside & ~drawn), 0)
        for outline in field.outlines:
            stroke = _stroke(outline, width, drawn.shape, origin) & inside
            window.layer.data_setitem(np.nonzero(stroke), 1)
            window.commit()
        window.accept(Region(max(0, box[0]), max(0, box[1]), *drawn[part].shape))
        if field is next(f for f in self.recording.fields if f.correction):  # type: ignore[union-attr]
            self._picture("2-correcting")

    def _answer_at_once(self, field: Field) -> None:
        """Outline what the model misses most of, with the instant answer on, and take it back."""
        (y, x), section = field.region.centre, self.dock.correct_section
        height, width = VIEWED
        whole = Region(round(y - height / 2), round(x - width / 2), height, width).clipped(*self.slide.shape)
        show_region(self.viewer, self.image, whole or field.region)
        section.correct_button.click()
        window = self.dock.editing
        assert window is not None
        place, shape = window.place, window.layer.data.shape
        origin = np.array([place.y, place.x])
        strokes = [_stroke(outline, 2**place.layer, shape, origin) for outline in field.outlines]
        missed = [np.count_nonzero(stroke & (window.layer.data == 0)) for stroke in strokes]
        window.layer.data_setitem(np.nonzero(strokes[int(np.argmax(missed))]), 1)
        window.commit()
        section.instant.click()
        wait_for(lambda: self.dock.answering.shown)
        self._picture("5-instant-answer")
        section.instant.click()
        section.undo_button.click()

    def _score(self, field: Field) -> float:
        region = field.region
        labels = self.session.labels(0, region.y, region.x, region.height, region.width)
        return dice(labels > 0, field.mask())

    def _fields(self, when: str, fields: tuple[Field, ...]) -> None:
        """Pictures of the fields at full zoom: the model's outline in yellow, the drawn one in blue."""
        from PIL import Image

        zoom = 4
        tiles = []
        for field in fields:
            region = field.region
            rgb = self.slide.read(region.y, region.x, region.height, region.width)
            labels = self.session.labels(0, region.y, region.x, region.height, region.width) > 0
            large = rgb.repeat(zoom, 0).repeat(zoom, 1)
            for mask, color in ((field.mask(), (0, 90, 200)), (labels, (240, 228, 66))):
                large[_outline(mask.repeat(zoom, 0).repeat(zoom, 1))] = color
            tiles.append(large)
        side, gap = max(max(tile.shape) for tile in tiles), 8
        row = Image.new("RGB", (len(tiles) * (side + gap) - gap, side), "white")
        for index, tile in enumerate(tiles):
            row.paste(Image.fromarray(tile), (index * (side + gap), 0))
        row.save(self.output / f"fields-{when}.png")

    def _click(self, button: Any) -> None:
        """Click, and wait until the work has ended."""
        button.click()
        wait_for(lambda: self.dock.job is None)

    def _picture(self, name: str) -> None:
        settle()
        self.viewer.screenshot(str(self.output / f"{name}.png"), canvas_only=False, flash=False)


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Let the event loop run until a condition holds.

    Raises
    ------
    TimeoutError
        If it does not hold in time.
    """
    deadline, tick = QDeadlineTimer(int(seconds * 1000)), QTimer()
    tick.start(5)  # the condition may come to hold without an event; to ask without a pause takes a core
    while not condition():
        if deadline.hasExpired():
            raise TimeoutError(f"nothing happened for {seconds} s")
        QApplication.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents)


def settle() -> None:
    """Let everything that is due be drawn."""
    deadline, passes = QDeadlineTimer(300), count()
    # One pass may take that long, and a text that wraps is laid out in the pass after the one it came in.
    wait_for(lambda: next(passes) >= PASSES and deadline.hasExpired())


def _stroke(
    outline: NDArray[np.float64], width: int, shape: tuple[int, int], origin: Any
) -> NDArray[np.bool_]:
    """Pixels of one nucleus in the window."""
    from PIL import Image, ImageDraw

    corners = (outline - 0.5) / width - origin
    image = Image.new("1", shape[::-1])
    ImageDraw.Draw(image).polygon([(float(x), float(y)) for y, x in corners], fill=1)
    return np.asarray(image)


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask that touch its outside, two pixels wide."""
    from scipy import ndimage

    outline: NDArray[np.bool_] = mask & ~np.asarray(ndimage.binary_erosion(mask, iterations=2), bool)
    return outline


def _sample() -> Slide:
    try:
        return open_slide(fetch_cmu_slide())
    except UserError as error:
        _say(f"{error}\nGoing on with the embedded sample.")
        return ihc_slide()


def _middle(whole: Region) -> Region:
    side = 3000
    y, x = (int(centre - side / 2) for centre in whole.centre)
    return Region(y, x, side, side)


def _fresh_folder(folder: Path) -> Path:
    """A folder for a new session; those of earlier demos are left alone."""
    numbered = (folder.with_name(f"{folder.name}-{i}") for i in range(1, 10_000))
    return folder if not folder.exists() else next(f for f in numbered if not f.exists())


def _interactive() -> bool:
    """Whether a person looks at the window."""
    if os.environ.get("CI") or "xvfb" in os.environ.get("XAUTHORITY", ""):
        return False
    return sys.stdin is not None and sys.stdin.isatty()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
