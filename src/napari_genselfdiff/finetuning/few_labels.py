"""Whether other pretext weights make few labels worth more: the same short fine-tunes from both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from napari_genselfdiff.compute import Compute
from napari_genselfdiff.events import CancelToken, Finished
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.finetuning.loop import FineTuneResult, FineTuneSettings, fine_tune
from napari_genselfdiff.segmentation.network import SegmenterSpec, build_segmenter

STEPS = 80
SEEDS = 2


def few_label_check(
    spec: SegmenterSpec,
    training: Sequence[Example],
    held_out: Sequence[Example],
    *,
    compute: Compute,
    steps: int | None = None,
    seeds: int = SEEDS,
    settings: FineTuneSettings | None = None,
    cancel: CancelToken | None = None,
) -> Callable[[dict[str, Tensor], dict[str, Tensor]], tuple[float, float]]:
    """Make the check that `adaptation.adapt` asks for.

    Parameters
    ----------
    spec : SegmenterSpec
        The task; its network's configuration is the pretext's.
    training, held_out : sequence of Example
        At the task's resolution; something must be held out.
    compute : Compute
    steps : int, optional
        Of each fine-tune; `STEPS` by default.
    seeds : int
        Fine-tunes from either weights, with the same patches for both; their scores are averaged.
    settings : FineTuneSettings, optional
        Its seed is not used.
    cancel : CancelToken, optional
        The scores say nothing then.

    Returns
    -------
    callable
        ``(old weights, new weights) -> (before, after)``: mean Dice on what was held out.
    """
    settings = settings or FineTuneSettings()

    def score(weights: dict[str, Tensor]) -> float:
        found = []
        for seed in range(seeds):
            *_, last = fine_tune(
                build_segmenter(spec, start=weights, seed=seed),
                training,
                held_out,
                compute=compute,
                settings=replace(settings, seed=seed),
                steps=steps or STEPS,
                score_before=False,
                cancel=cancel,
            )
            assert isinstance(last, Finished)
            assert isinstance(last.result, FineTuneResult)
            found.append(last.result.after if last.result.after is not None else float("nan"))
        return float(np.mean(found))

    return lambda old, new: (score(old), score(new))
