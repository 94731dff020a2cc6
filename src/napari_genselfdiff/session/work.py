"""Long work of a session, as generators of events that may run in another thread.

What is worked on is fixed when the work begins: another slide may be looked at, and another model used,
before it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Event, Finished
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models.versions import Round, Version, judge

if TYPE_CHECKING:
    from napari_genselfdiff.session.session import Session
    from napari_genselfdiff.session.slide import SessionSlide


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

    return work()


def fine_tune_model(
    session: Session,
    parent: str | None,
    *,
    seconds: float,
    steps: int | None,
    seed: int,
    cancel: CancelToken | None,
) -> Iterator[Event]:
    """Train a copy of a version on the corrections of all slides; see `Session.fine_tune`."""
    from napari_genselfdiff.finetuning.corrections import correction_examples
    from napari_genselfdiff.finetuning.loop import FineTuneResult, FineTuneSettings, fine_tune
    from napari_genselfdiff.segmentation.network import save_segmenter

    segmenter = session.segmenter(parent)
    corrected = [slide for slide in session.slides if slide.corrected] or [session.active]
    positions = {slide.fingerprint: slide.annotations.position for slide in corrected}
    training, held_out = [], []
    for slide in corrected:
        scale = segmenter.spec.scale_for(slide.slide.mpp, slide.slide.where)
        a, b = correction_examples(
            slide.slide, slide.annotations, segmenter, scale=scale, compute=session.compute
        )
        training += a
        held_out += b
    settings = FineTuneSettings(seed=seed, learning_rate=5e-4, fixed_statistics=True)
    for event in fine_tune(
        segmenter,
        training,
        held_out,
        compute=session.compute,
        settings=settings,
        seconds=seconds,
        steps=steps,
        cancel=cancel,
    ):
        if not isinstance(event, Finished):
            yield event
            continue
        if event.cancelled:
            yield Finished(None, "stopped; the model stays as it was", cancelled=True)
            return
        result = event.result
        assert isinstance(result, FineTuneResult)
        accepted, message = judge(result.before, result.after)
        name = session.versions.new_name()
        version = Version(
            name,
            session.versions.new_path(name),
            parent,
            result.before,
            result.after,
            sum(positions.values()),
            result.steps,
            seed,
            round(result.seconds, 1),
            datetime.now(UTC).isoformat(timespec="seconds"),
            positions=positions,
            answer=message,
            kind="round",
        )
        save_segmenter(
            result.segmenter,
            session.folder / version.path,
            parent=parent,
            version=version.to_dict(),
            scores={"dice_before": result.before, "dice_after": result.after},
        )
        session.versions.keep(name, result.segmenter.eval())
        yield Finished(Round(version, accepted, message), message)
