"""Does adapting the bundled pretext to a cohort help? Denoising error and few-label Dice, before and after.

The training images of a set, without their labels, are the cohort. The bundled pretext goes on for so many
steps (300 are about five minutes on one core). Then short fine-tunes on few labelled images start from
either, with the same images, patches and steps, and are scored on images of other patients (GlaS) or other
images (MoNuSeg).

    python benchmarks/adapt.py DATA --json docs/benchmarks/adapt.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from label_efficiency import chosen, examples, tasks
from napari_genselfdiff.compute import choose_compute
from napari_genselfdiff.diffusion.adaptation import Adaptation, adapt
from napari_genselfdiff.diffusion.pretraining import load_pretext
from napari_genselfdiff.events import Finished, LossPoint
from napari_genselfdiff.finetuning.few_labels import few_label_check
from napari_genselfdiff.models.library import resolve
from napari_genselfdiff.segmentation.network import SegmenterSpec
from napari_genselfdiff.slides import slide_from_arrays


def main() -> None:
    """Adapt to each set, fine-tune from both, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", default=["glands", "nuclei"])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--labels", type=int, default=3, help="labelled images of a draw")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--fine-tune-steps", type=int, default=100)
    parser.add_argument("--test", type=int, default=18, help="images to score on")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    compute, base = choose_compute("cpu"), resolve("pretext")
    rows: list[dict[str, Any]] = []
    for task in (tasks(arguments.data)[name] for name in arguments.sets):
        slides = [slide_from_arrays([i.load()[0]], name=i.name, mpp=i.mpp) for i in task.training]
        output = arguments.runs / f"adapted-{task.name}.safetensors"
        for event in adapt(slides, base, output, compute=compute, seconds=None, steps=arguments.steps):
            if isinstance(event, LossPoint):
                print(event.step, round(event.loss, 4), round(event.seconds), flush=True)
        assert isinstance(event, Finished)
        assert isinstance(event.result, Adaptation)
        done = event.result
        print(done.message, flush=True)
        row: dict[str, Any] = {
            "set": task.name,
            "steps": done.steps,
            "seconds": done.seconds,
            "denoising error": [round(done.before, 4), round(done.after, 4)],
            "change, 95 %": [round(value, 4) for value in done.change],
            "kept": done.kept,
            "labels": arguments.labels,
            "Dice": [],
        }
        rows.append(row)
        if done.path is None:
            continue
        old, new = (load_pretext(path)[0] for path in (base, done.path))
        spec = SegmenterSpec(old.config, ("background", "object"), task.mpp, instances=True)
        places = np.unique(np.linspace(0, len(task.test) - 1, arguments.test).round().astype(int))
        test = examples(task, [task.test[index] for index in places])
        for draw in range(arguments.draws):
            check = few_label_check(
                spec,
                examples(task, chosen(task, arguments.labels, draw)),
                test,
                compute=compute,
                steps=arguments.fine_tune_steps,
                seeds=1,
            )
            row["Dice"].append([round(value, 4) for value in check(old.state_dict(), new.state_dict())])
            print(task.name, "draw", draw, row["Dice"][-1], flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
        before, after = np.mean(row["Dice"], axis=0)
        print(f"{task.name}: Dice {before:.3f} -> {after:.3f} over {arguments.draws} draws")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
