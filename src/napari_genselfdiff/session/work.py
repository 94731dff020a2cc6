"""Long work of a session, as generators of events that may run in another thread.

What is worked on is fixed when the work begins: another slide may be looked at, and another model used,
before it ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Event, Finished
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models import library
from napari_genselfdiff.models.versions import EARLY, FOLLOWS, PRETEXT, REFUSED, Doubt, Round, Version
from napari_genselfdiff.session.resuming import going_on

if TYPE_CHECKING:
    from napari_genselfdiff.finetuning.again import Refused
    from napari_genselfdiff.finetuning.corrections import Source
    from napari_genselfdiff.finetuning.earlier import Models
    from napari_genselfdiff.finetuning.rounds import RoundResult
    from napari_genselfdiff.session.session import Session
    from napari_genselfdiff.session.slide import SessionSlide

UNFINISHED = "unfinished-"
"""Begins the name of the file of a fine-tune that was stopped; then comes the model that it began with."""


def segment_slide(
    session: Session,
    on: SessionSlide,
    region: Region,
    *,
    centre: Callable[[], tuple[float, float] | None],
    slide_wide: bool,
    cancel: CancelToken | None,
) -> Iterator[Event]:
    """Segment a region of a slide with the model in use; see `Session.segment`."""
    name = session.current

    def work() -> Iterator[Event]:
        from napari_genselfdiff.verbs.streaming import stream_region

        clipped = region.clipped(*on.slide.shape)
        if clipped is None:
            raise UserError("the view shows no part of the slide", on.name, "move the slide into view")
        segmenter = session.segmenter(name)
        used = session.versions.segmenting
        used.append(name or "")
        try:
            yield from stream_region(
                segmenter,
                on.slide,
                clipped,
                on.predictions(name or "", segmenter.spec),
                compute=session.compute,
                pace=session.pace(),
                centre=centre,
                tissue=on.tissue.find() if slide_wide else None,
                objects=slide_wide,
                cancel=cancel,
            )
        finally:
            used.remove(name or "")

    return work()


def fine_tune_model(
    session: Session,
    parent: str | None,
    *,
    seconds: float | None,
    steps: int | None,
    seed: int,
    cancel: CancelToken | None,
) -> Iterator[Event]:
    """Train a copy of a version on the corrections of all slides; see `Session.fine_tune`."""
    segmenter = session.segmenter(parent) if parent else session.starting_segmenter()
    current, corrected = session.current, session.slides.corrected
    refused = _refused(session, parent)
    unfinished = session.folder / f"{UNFINISHED}{parent or 'task'}{library.SUFFIX}"

    def work() -> Iterator[Event]:
        from napari_genselfdiff.finetuning.rounds import train_round

        session.check_writable()
        if not corrected:
            raise UserError(
                "nothing is corrected yet",
                session.active.name,
                "press Correct here and paint what the model got wrong",
            )
        # Places that follow one another were mostly drawn with the same few models in use.
        heirs = lru_cache(maxsize=16)(partial(session.versions.heir, current=current))
        sources, left_out = _sources(corrected, heirs)
        begin, grown = session.other_start(), session.grown
        insisted = [
            Doubt(slide.fingerprint, Region(*box)) for slide in corrected for box in slide.state.insisted
        ]
        adapted, pretext = session.newly_adapted, session.pretext
        _forget_others(unfinished)

        def run(resume: bool) -> Iterator[Event]:
            return train_round(
                sources,
                segmenter,
                compute=session.compute,
                fresh=parent is None,
                begin=begin,
                grown=grown,
                adapted=adapted,
                insisted=insisted,
                refused=refused,
                seconds=seconds,
                steps=steps,
                seed=seed,
                checkpoint=unfinished,
                resume=resume,
                cancel=cancel,
            )

        for event in going_on(run, unfinished):
            if isinstance(event, Finished) and event.result is not None:
                yield _as_version(session, event.result, parent, current, seed, left_out, pretext)
            else:
                yield event

    return work()


def _sources(corrected: list[SessionSlide], models: Models) -> tuple[list[Source], list[str]]:
    """What was drawn on the slides that can be read, and a sentence on each of the others."""
    from napari_genselfdiff.finetuning.corrections import Source

    sources, left_out, problem = [], [], None
    for slide in corrected:
        try:
            sources.append(Source(slide.slide, slide.annotations, slide.fingerprint, models))
        except UserError as error:
            left_out.append(f"{slide.name} is left out: {error.what}.")
            problem = error
    if not sources and problem is not None:
        raise problem
    return sources, left_out


def _refused(session: Session, parent: str | None) -> list[Refused]:
    """What was trained from a version and refused, the last one first."""
    from napari_genselfdiff.finetuning.again import Refused
    from napari_genselfdiff.segmentation.network import load_segmenter

    versions = session.versions
    return [
        Refused(one.name, one.shown, partial(load_segmenter, versions.path(one.name)), one.positions)
        for one in reversed(list(versions))
        if parent is not None and one.parent == parent and one.settings.get(REFUSED)
        if one.name not in versions.damaged
    ]


def _forget_others(unfinished: Path) -> None:
    """Delete what was stopped with another model in use."""
    for path in unfinished.parent.glob(f"{UNFINISHED}*{library.SUFFIX}"):
        if path != unfinished:
            path.unlink(missing_ok=True)


def _as_version(
    session: Session,
    result: RoundResult,
    parent: str | None,
    current: str | None,
    seed: int,
    left_out: list[str],
    pretext: str,
) -> Finished:
    """Write the weights of a round, and say what came of it."""
    from napari_genselfdiff.segmentation.network import save_segmenter

    verdict, again = result.verdict, result.again
    made_with: dict[str, object] = {} if verdict.accepted else {REFUSED: True}
    if parent is None or result.begun:
        made_with[PRETEXT] = Path(pretext).name
    elif verdict.accepted and not verdict.decided:
        made_with[EARLY] = True
    if current != parent:
        made_with[FOLLOWS] = current
    name = session.versions.new_name()
    version = Version(
        name,
        session.versions.new_path(name),
        parent,
        verdict.before,
        verdict.after,
        sum(result.positions.values()),
        result.steps,
        seed,
        round(result.seconds, 1),
        datetime.now(UTC).isoformat(timespec="seconds"),
        positions=result.positions,
        settings=result.settings | made_with,
        answer=verdict.message,
        kind="round",
    )
    save_segmenter(
        result.segmenter,
        session.folder / version.path,
        parent=parent,
        version=version.to_dict(),
        scores={"dice_before": verdict.before, "dice_after": verdict.after},
    )
    session.versions.keep(name, result.segmenter.eval())
    message = verdict.message
    if again is not None:
        message = (
            f"{again.model.title}, which was refused before, is used now. {again.verdict.message}. "
            "The model of this round was refused; it is in the list of versions"
        )
    more = [*left_out, *_doubted(session, result.doubts)]
    message = ". ".join([message, " ".join(more)]) if more else message
    instead = None if again is None else again.model.name
    return Finished(Round(version, verdict.accepted, message, tuple(result.doubts), instead), message)


def _doubted(session: Session, doubts: Sequence[Doubt]) -> list[str]:
    """A sentence on each slide of which corrections were left out."""
    counts = Counter(doubt.slide for doubt in doubts)
    return [
        f"{count} corrected place{'s' if count > 1 else ''} on {slide.name} "
        f"{'were' if count > 1 else 'was'} left out: neither the model nor your other corrections agree."
        for slide in session.slides
        if (count := counts[slide.fingerprint])
    ]
