"""Where to go next in a project, and whether its slides look like what the model has seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_genselfdiff.errors import TrainingError, UserError
from napari_genselfdiff.events import CancelToken, Event, Finished
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models import library
from napari_genselfdiff.session.resuming import going_on
from napari_genselfdiff.session.starting import pretext_segmenter

if TYPE_CHECKING:
    from torch import Tensor

    from napari_genselfdiff.finetuning.corrections import Source
    from napari_genselfdiff.segmentation.network import SegmenterSpec
    from napari_genselfdiff.session.session import Session
    from napari_genselfdiff.session.slide import SessionSlide

FEW_STEPS = 60
"""Of the short fine-tunes that an adapted pretext is judged by."""


def suggest_place(session: Session, cancel: CancelToken | None) -> Iterator[Event]:
    """Find the window of the project that is most useful to correct; see `Session.next_place`."""
    from napari_genselfdiff.finetuning.suggestions import Place, SegmentedSlide, next_place

    name, active = session.current, session.active
    if name is None:
        raise UserError("there is no model yet", None, "paint a few of each class and fine-tune first")
    spec = session.segmenter(name).spec
    segmented = [slide for slide in session.slides if slide.has_predictions(name) and not slide.missing]
    segmented.sort(key=lambda slide: slide is not active)
    if not segmented:
        raise UserError("nothing is segmented yet", active.name, "segment the view or the slide first")
    known = [
        SegmentedSlide(
            slide.slide, slide.predictions(name, spec), spec.classes, slide.annotations.supervised_boxes()
        )
        for slide in segmented
    ]
    visited = [
        Place(index, Region(*box)) for index, slide in enumerate(segmented) for box in slide.state.visited
    ]

    def work() -> Iterator[Event]:
        for event in next_place(known, visited, cancel=cancel):
            if isinstance(event, Finished) and event.result is not None:
                found = event.result
                yield Finished((segmented[found.slide], found.region), found.reason)
            else:
                yield event

    return work()


def check_slide(session: Session, cancel: CancelToken | None) -> Iterator[Event]:
    """Compare the slide that is looked at with what the pretext has seen; see `Session.check_domain`."""
    from napari_genselfdiff.diffusion.domain import check_domain

    return check_domain(
        [session.slide], library.resolve(session.pretext), compute=session.compute, cancel=cancel
    )


def adapt_pretext(
    session: Session, *, seconds: float, steps: int | None, seed: int, cancel: CancelToken | None
) -> Iterator[Event]:
    """Continue the pretext on the tissue of the project's slides; see `Session.adapt`."""
    from napari_genselfdiff.diffusion.adaptation import Adaptation, adapt, working_path
    from napari_genselfdiff.diffusion.pretraining import checkpoint_path

    base = library.resolve(session.pretext)
    slides = [slide for slide in session.slides if not slide.missing]
    output = session.folder / "models" / f"{session.versions.new_name('pretext')}{library.SUFFIX}"
    spec = session.starting_segmenter().spec if session.current or session.task else None
    corrected = [slide for slide in slides if slide.corrected]

    def work() -> Iterator[Event]:
        session.check_writable()
        check = None if spec is None else _few_label_check(session, spec, corrected, base, cancel)
        unfinished = checkpoint_path(working_path(output))

        def run(resume: bool) -> Iterator[Event]:
            return adapt(
                [slide.slide for slide in slides],
                base,
                output,
                compute=session.compute,
                seconds=seconds,
                steps=steps,
                seed=seed,
                resume=resume,
                few_label_check=check,
                cancel=cancel,
            )

        for event in going_on(run, unfinished):
            if isinstance(event, Finished) and isinstance(event.result, Adaptation):
                unfinished.unlink(missing_ok=True)
                path = str(output.relative_to(session.folder)) if event.result.kept else None
                yield Finished(path, event.message)
            elif isinstance(event, Finished) and unfinished.exists():
                yield replace(event, message="stopped and saved; the next adaptation goes on from there")
            else:
                yield event

    return work()


def _few_label_check(
    session: Session,
    spec: SegmenterSpec,
    corrected: list[SessionSlide],
    base: Path,
    cancel: CancelToken | None,
) -> Any:
    """Short fine-tunes on the corrections; None where too few were made to score one."""
    from napari_genselfdiff.diffusion.pretraining import load_pretext
    from napari_genselfdiff.finetuning.corrections import Source

    sources = [Source(slide.slide, slide.annotations, slide.fingerprint) for slide in corrected]
    if not sources:
        return None
    network = load_pretext(base)[0]

    def score(weights: dict[str, Tensor], steps: int) -> float | None:
        return _dice_after(session, sources, spec, weights, steps, cancel)

    try:
        if network.config != spec.config or score(network.state_dict(), 1) is None:
            return None
    except UserError:  # nothing that a new model could learn from, such as one class alone
        return None

    def known(weights: dict[str, Tensor]) -> float:
        try:
            found = score(weights, FEW_STEPS)
        except TrainingError:
            found = None
        return float("nan") if found is None else found

    def check(old: dict[str, Tensor], new: dict[str, Tensor]) -> tuple[float, float]:
        return known(old), known(new)

    return check


def _dice_after(
    session: Session,
    sources: list[Source],
    spec: SegmenterSpec,
    weights: dict[str, Tensor],
    steps: int,
    cancel: CancelToken | None,
) -> float | None:
    from napari_genselfdiff.finetuning.rounds import train_round

    segmenter = pretext_segmenter(spec, weights)
    *_, last = train_round(
        sources, segmenter, compute=session.compute, fresh=True, steps=steps, cancel=cancel
    )
    assert isinstance(last, Finished)
    return None if last.result is None else last.result.verdict.after
