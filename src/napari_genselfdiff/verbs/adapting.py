"""Adapt a pretext to a cohort of slides, and say beforehand whether they look unlike what it has seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Event, Progress
from napari_genselfdiff.models import library
from napari_genselfdiff.slides import Slide, open_slide
from napari_genselfdiff.verbs.inputs import check_mpp, check_writable, find_slides

if TYPE_CHECKING:
    from napari_genselfdiff.compute import Compute
    from napari_genselfdiff.diffusion.adaptation import FewLabelCheck


def adapt_to_slides(
    images: Sequence[str | Path],
    output: Path,
    *,
    compute: Compute,
    base: str = library.DEFAULT_PRETEXT,
    seconds: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    mpp: float | None = None,
    labelled: tuple[Path, Path] | None = None,
    resume: bool = False,
    command: str = "",
    cancel: CancelToken | None = None,
) -> Iterator[Event]:
    """Continue a pretext on the tissue of slides; see `adaptation.adapt`, whose events these are.

    Parameters
    ----------
    images : sequence of str or Path
        Slides, folders of slides and patterns, see `find_slides`.
    output : Path
        The weights file to write.
    compute : Compute
    base : str
        Name or file of a pretext.
    seconds, steps : float, int, optional
        When to stop; five minutes where neither is given.
    seed : int
    mpp : float, optional
        Micrometres per pixel, in place of what the slides say.
    labelled : tuple of Path, optional
        Folders of images and of their masks, for the second half of the gate.
    resume : bool
    command : str
        What was typed, for the model card.
    cancel : CancelToken, optional

    Raises
    ------
    UserError
        If a slide, the labels, the base or the output is not good.
    """
    from napari_genselfdiff.diffusion.adaptation import SECONDS, adapt

    cancel = cancel or CancelToken()
    check_mpp(mpp, "--mpp")
    if output.suffix != library.SUFFIX:
        raise UserError(
            f"weights are {library.SUFFIX} files", output, f"name it {output.stem}{library.SUFFIX}"
        )
    check_writable(output)
    path = library.resolve(base)
    if path.absolute() == output.absolute():
        raise UserError("the output is the base itself", output, "name another file")
    slides = _opened(find_slides(images), mpp)
    check = _check(labelled, path, mpp, compute, cancel) if labelled is not None else None
    yield Progress(0, 0, "looking for tissue")
    yield from adapt(
        slides,
        path,
        output,
        compute=compute,
        seconds=SECONDS if seconds is None and steps is None else seconds,
        steps=steps,
        seed=seed,
        resume=resume,
        few_label_check=check,
        card={"command": command},
        cancel=cancel,
    )


def _opened(paths: Sequence[Path | str], mpp: float | None) -> list[Slide]:
    from napari_genselfdiff.errors import MissingScaleError

    slides = [open_slide(path, mpp=mpp) for path in paths]
    for slide in slides:
        if slide.mpp is None:
            raise MissingScaleError(slide.where)
    return slides


def _check(
    labelled: tuple[Path, Path], base: Path, mpp: float | None, compute: Compute, cancel: CancelToken
) -> FewLabelCheck:
    """The few-label check on a folder of labelled images."""
    import statistics

    from napari_genselfdiff.diffusion.config import UNetConfig
    from napari_genselfdiff.exchange.pairs import find_pairs, load_pairs
    from napari_genselfdiff.finetuning.datasets import choose_resolution, to_example
    from napari_genselfdiff.finetuning.examples import split_examples
    from napari_genselfdiff.finetuning.few_labels import few_label_check
    from napari_genselfdiff.models.weights import read_card
    from napari_genselfdiff.segmentation.network import BACKGROUND, SegmenterSpec
    from napari_genselfdiff.verbs.inputs import resolution_of

    pairs = find_pairs(*labelled)
    loaded = load_pairs(pairs, instances=False)
    resolutions = [value for pair in pairs if (value := resolution_of(pair.image, mpp)) is not None]
    known = statistics.median(resolutions) if resolutions else None
    target, downsample = choose_resolution(loaded, mpp=known, instances=False)
    examples = [to_example(image, scale=downsample, instances=False) for image in loaded]
    training, held_out = split_examples(examples)
    if not any(example.weight.any() for example in held_out):
        raise UserError("too little is labelled to hold any of it out", labelled[1], "label more")
    card: dict[str, Any] = read_card(base)
    highest = max(int(example.labels.max()) for example in examples)
    classes = (BACKGROUND, *(f"class-{index}" for index in range(1, max(highest, 1) + 1)))
    spec = SegmenterSpec(UNetConfig.from_dict(card["config"]), classes, target, downsample=downsample)
    return few_label_check(spec, training, held_out, compute=compute, cancel=cancel)
