"""Score a segmenter on a folder of labelled images."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.events import CancelToken, Clock, Event, Finished, Progress
from napari_genselfdiff.exchange.labelmap import IGNORED
from napari_genselfdiff.exchange.pairs import LabelledImage, find_pairs, load_pair
from napari_genselfdiff.finetuning.datasets import is_binary_mask
from napari_genselfdiff.geometry import Region
from napari_genselfdiff.models import library
from napari_genselfdiff.segmentation.metrics import instance_scores, mean_scores, segmentation_scores
from napari_genselfdiff.segmentation.network import Segmenter, load_segmenter
from napari_genselfdiff.slides.arrays import slide_from_arrays
from napari_genselfdiff.verbs.inputs import check_mpp, resolution_of
from napari_genselfdiff.verbs.prediction import Segmentation, segment_region

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What came of it.

    Attributes
    ----------
    model : str
        Name of the model.
    images : list of dict
        ``name`` and scores of each image: ``dice, iou, precision, sensitivity, specificity, accuracy, f1``, 0
        to 1, averaged over the foreground classes that are there; ``hausdorff`` and ``hd95`` in pixels; of
        objects ``aji, pq, dq, sq, object_dice, object_f1``, 0 to 1, and ``object_hausdorff`` in pixels;
        ``classes``, the same of each, where there are several. Distances are also there in micrometres, as
        ``hausdorff_um, hd95_um, object_hausdorff_um``, where the resolution is known.
    mean : dict
        Mean over the images, each of which counts once.
    """

    model: str
    images: list[dict[str, Any]]
    mean: dict[str, Any]


def evaluate(
    model: str | Path,
    images: Path,
    labels: Path,
    *,
    compute: Compute,
    instances: bool = False,
    mpp: float | None = None,
    cancel: CancelToken | None = None,
) -> Iterator[Event]:
    """Segment every image at the model's resolution and score it at the labels'.

    Parameters
    ----------
    model : str or Path
        Name in the library, or a file.
    images, labels : Path
        Folders, see `find_pairs`.
    compute : Compute
    instances : bool
        Whether labels are ids of objects; then objects are scored too, and every class is foreground.
    mpp : float, optional
        Micrometres per pixel of the images, in place of what the files say.
    cancel : CancelToken, optional

    Yields
    ------
    Event
        `Progress`, then `Finished` with an `Evaluation`, or None when it was cancelled.

    Raises
    ------
    UserError
        If the model or the data is not good.
    """
    cancel = cancel or CancelToken()
    check_mpp(mpp, "--mpp")
    path = library.resolve(model)
    segmenter = load_segmenter(path)
    pairs = find_pairs(images, labels)
    if instances and all(is_binary_mask(load_pair(pair, instances=True).labels) for pair in pairs):
        raise UserError(
            "the labels are binary masks, which do not number the objects",
            labels,
            "leave --instances out, or give labels with an id for each object",
        )
    scores: list[dict[str, Any]] = []
    clock = Clock()
    for index, pair in enumerate(pairs):
        yield Progress(index, len(pairs), "scoring", clock.left(index, len(pairs)))
        image = load_pair(pair, instances=instances)
        _check_classes(image, segmenter, pair.label, instances)
        if not image.valid.any():
            logger.warning("%s has no labelled pixel and is left out", pair.label)
            continue
        resolution = resolution_of(pair.image, mpp)
        slide = slide_from_arrays(image.rgb, name=str(pair.image), mpp=resolution)
        found = _last(
            segment_region(
                segmenter,
                slide,
                Region(0, 0, *slide.shape),
                compute=compute,
                objects=instances,
                cancel=cancel,
            )
        )
        if found is None:
            yield Finished(None, "stopped; nothing was written", cancelled=True)
            return
        values = _scores(found, image, segmenter.spec.classes, instances, resolution)
        scores.append({"name": pair.name, **values})
    if not scores:
        raise UserError("no pixel of any image is labelled", labels, "label some")
    numbers = [{key: value for key, value in image.items() if key != "name"} for image in scores]
    yield Finished(Evaluation(path.stem, scores, mean_scores(numbers)), f"{len(scores)} images")


def _scores(
    found: Segmentation,
    image: LabelledImage,
    classes: tuple[str, ...],
    instances: bool,
    mpp: float | None,
) -> dict[str, Any]:
    if not instances:
        target = np.where(image.valid, image.labels, IGNORED)
        scores = segmentation_scores(found.labels, target, classes=len(classes), ignore=IGNORED, mpp=mpp)
        each = scores.pop("classes")
        if len(classes) > 2:
            scores["classes"] = {classes[number]: values for number, values in each.items()}
        return scores
    foreground: NDArray[Any] = np.where(image.valid, image.labels > 0, IGNORED)
    scores = segmentation_scores(found.labels > 0, foreground, classes=2, ignore=IGNORED, mpp=mpp)
    del scores["classes"]
    assert found.objects is not None
    return scores | instance_scores(found.objects, image.labels, mpp=mpp, valid=image.valid)


def _check_classes(image: LabelledImage, segmenter: Segmenter, label: Path, instances: bool) -> None:
    highest = int(np.max(image.labels, where=image.valid, initial=0))
    count = len(segmenter.spec.classes)
    if not instances and highest >= count:
        raise UserError(
            f"the label holds class {highest}, and the model's classes end at {count - 1}",
            label,
            "give --instances if the labels number objects",
        )


def _last(work: Generator[Progress, None, Segmentation | None]) -> Segmentation | None:
    """Run a generator to its end for what it returns."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            result: Segmentation | None = stop.value
            return result
