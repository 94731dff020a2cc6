"""The instant answer in a real window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_genselfdiff.annotations import classes_of, encode, is_accepted
from napari_genselfdiff.compute import Compute
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.session import Session, Task
from napari_genselfdiff.slides import slide_from_arrays
from napari_genselfdiff.widgets.instant import InstantAnswer
from napari_genselfdiff.widgets.view import show_region
from napari_genselfdiff.workers import Queue

pytestmark = pytest.mark.gui

HERE, THERE = Region(100, 100, 200, 300), Region(380, 420, 200, 300)


class Window:
    """A window with a slide and its session, and someone who paints."""

    def __init__(self, viewer: Any, folder: Path, tissue: Any) -> None:
        self.viewer, self.said, self.answers = viewer, [], []
        slide = slide_from_arrays(tissue, name="tissue", mpp=0.5)
        self.session = Session(folder, slide, compute=Compute("cpu", None, 1))
        self.session.use_model("nuclei")
        self.image = viewer.add_image(tissue, rgb=True, scale=(0.5, 0.5), units=("um", "um"))
        self.edits = Queue()
        self.instant = InstantAnswer(
            viewer, self.session, self.image, edits=self.edits, on_message=self.said.append
        )
        self.instant.answered.connect(self.answers.append)

    def paint(self, y: int, x: int, label: int) -> None:
        """A stroke, written as the editable window does it: in the thread of the edits."""
        codes = encode(np.full((6, 6), label))
        self.edits.submit(
            lambda: self.session.annotations.stroke(0, y, x, codes, codes > 0),
            lambda _change: None,
            self.said.append,
        )

    def close(self) -> None:
        self.instant.close()
        self.edits.close()
        self.session.close()


@pytest.fixture
def window(
    make_napari_viewer: Callable[..., Any], library_home: Path, tmp_path: Path, tissue: Any
) -> Iterator[Window]:
    viewer = make_napari_viewer(show=True)
    opened = Window(viewer, tmp_path / "session", tissue)
    show_region(viewer, opened.image, HERE)
    yield opened
    opened.close()


@pytest.fixture
def answering(window: Window, wait_for: Callable[..., None]) -> Window:
    """A disc and some background are painted in a new task, and answered."""
    window.session.start_task(Task.named(["nucleus"], mpp=0.5))
    window.instant.start()
    window.paint(137, 137, 1)
    window.paint(117, 117, 0)
    wait_for(lambda: window.instant.answer is not None and not window.instant._running)
    return window


def shown(window: Window, y: int, x: int) -> int:
    """What the layer shows at a level-0 pixel."""
    world = window.image.data_to_world((y, x))
    return int(window.instant.layer.get_value(world, world=True) or 0)


def test_it_is_off_until_it_is_started_and_gone_when_it_is_stopped(
    window: Window, wait_for: Callable[..., None]
) -> None:
    window.paint(137, 137, 1)
    window.paint(117, 117, 0)
    window.edits.wait()
    assert not window.instant.active
    assert len(window.viewer.layers) == 1
    window.instant.start()
    wait_for(lambda: bool(window.answers))
    assert window.instant.layer in window.viewer.layers
    window.instant.stop()
    assert list(window.viewer.layers) == [window.image]
    window.paint(157, 157, 0)
    window.edits.wait()
    assert window.instant.answer is None


def test_strokes_are_answered_and_what_is_missing_is_said(
    window: Window, wait_for: Callable[..., None]
) -> None:
    window.session.start_task(Task.named(["nucleus"], mpp=0.5))
    window.instant.start()
    wait_for(lambda: any("paint a little of two classes" in text for text in window.said))
    window.paint(137, 137, 1)
    wait_for(lambda: any("paint a second class, or some background" in text for text in window.said))
    assert window.instant.layer is None
    window.paint(117, 117, 0)
    wait_for(lambda: bool(window.answers))
    assert window.viewer.layers.selection.active is window.image
    # Discs that nobody painted, and what lies between them.
    assert [shown(window, y, x) for y, x in ((180, 220), (260, 300), (200, 240), (240, 280))] == [1, 1, 0, 0]


def test_where_a_model_is_in_use_the_first_stroke_is_answered(
    window: Window, wait_for: Callable[..., None]
) -> None:
    window.instant.start()
    wait_for(lambda: any("paint over what the model has wrong" in text for text in window.said))
    assert window.instant.layer is None
    window.paint(137, 137, 1)
    wait_for(lambda: bool(window.answers))
    # Discs that nobody painted, and what lies between them: nothing says so but the model.
    assert [shown(window, y, x) for y, x in ((180, 220), (260, 300), (200, 240), (240, 280))] == [1, 1, 0, 0]


def test_what_was_painted_wins(answering: Window, wait_for: Callable[..., None]) -> None:
    assert shown(answering, 221, 221) == 1
    answering.paint(219, 219, 0)
    wait_for(lambda: shown(answering, 221, 221) == 0)
    assert shown(answering, 260, 300) == 1


def test_the_answer_has_the_colours_that_the_classes_have_now(
    answering: Window, wait_for: Callable[..., None]
) -> None:
    answering.session.set_colours({"nucleus": "#0000FF"})
    answering.paint(177, 177, 1)
    wait_for(lambda: np.allclose(answering.instant.layer.get_color(1)[:3], (0, 0, 1), atol=0.01))
    answering.session.change_classes(["nucleus", "stroma"])
    answering.paint(157, 157, 2)
    wait_for(lambda: answering.instant.layer.get_color(2)[3] > 0)


def test_the_answer_follows_the_view_and_late_ones_are_thrown_away(
    answering: Window, wait_for: Callable[..., None]
) -> None:
    show_region(answering.viewer, answering.image, HERE)
    answering.instant._look_anew()  # an answer of the old view is on its way
    generation = answering.instant._generation
    show_region(answering.viewer, answering.image, THERE)
    answering.answers.clear()
    wait_for(lambda: bool(answering.answers) and answering.answers[-1].view.grid.intersection(THERE) == THERE)
    assert answering.instant._generation > generation
    grid = answering.answers[-1].view.grid
    corner = answering.image.world_to_data(answering.instant.layer.data_to_world((0, 0)))
    np.testing.assert_allclose(corner, (grid.y, grid.x), atol=1e-6)
    assert [shown(answering, y, x) for y, x in ((420, 500), (440, 520))] == [1, 0]


@pytest.mark.parametrize("shared", [False, True])
def test_strokes_of_the_time_when_it_was_off_count(
    answering: Window, wait_for: Callable[..., None], shared: bool
) -> None:
    answering.instant.stop()
    answering.paint(117, 117, 1)  # the background becomes the disc's class
    answering.paint(137, 137, 0)
    answering.edits.wait()
    answering.answers.clear()
    if shared:  # as another window on the same features does
        features = answering.instant._features
        answering.instant.close()
        answering.instant = InstantAnswer(
            answering.viewer,
            answering.session,
            answering.image,
            edits=answering.edits,
            on_message=answering.said.append,
            features=lambda: features,
        )
        answering.instant.answered.connect(answering.answers.append)
    answering.instant.start()
    wait_for(lambda: bool(answering.answers))
    assert [shown(answering, y, x) for y, x in ((180, 220), (200, 240))] == [0, 1]


def test_a_kept_answer_is_accepted_and_can_be_taken_back(
    answering: Window, wait_for: Callable[..., None]
) -> None:
    annotations = answering.session.annotations
    before = annotations.position
    assert answering.instant.keep()
    wait_for(lambda: annotations.position == before + 1)
    answering.edits.wait()
    assert any("kept" in text for text in answering.said)
    codes = annotations.read(0, Region(140, 140, 120, 120))
    assert is_accepted(codes).mean() > 0.98
    assert set(np.unique(classes_of(codes))) == {0, 1}
    assert answering.session.labels(0, 260, 300, 1, 1)[0, 0] == 1
    annotations.undo()
    assert not is_accepted(annotations.read(0, Region(140, 140, 120, 120))).any()


def test_there_is_nothing_to_keep_before_there_is_an_answer(window: Window) -> None:
    assert not window.instant.keep()
    assert "no answer to keep" in window.said[-1]


def test_a_task_without_a_model_starts_from_the_pretext(
    window: Window, wait_for: Callable[..., None]
) -> None:
    window.session.start_task(Task.named(["tumour"], mpp=0.5))
    window.instant.start()
    window.paint(137, 137, 1)
    window.paint(117, 117, 0)
    wait_for(lambda: bool(window.answers))
    assert window.answers[-1].view.source.scale == 1.0
    assert [shown(window, y, x) for y, x in ((180, 220), (200, 240))] == [1, 0]
