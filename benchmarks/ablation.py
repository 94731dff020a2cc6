"""Which pretext, which time step, which network? Staged, cross-validated, judged by labels it never saw.

    python benchmarks/ablation.py DATA --work runs/ablation --json docs/benchmarks/ablation.json
    python benchmarks/ablation.py DATA --work runs/ablation --json ... --stage probe --set glands

``DATA`` holds ``monuseg`` and ``glas``. Only the training part of `label_efficiency`'s split is used, so that
no choice is made on the images that the results are reported on. It is cross-validated in four folds: by
patient (GlaS) or by image (MoNuSeg).

Stages:

1. ``probe``: every pretext of `PRETEXTS` is trained for ``--steps`` on the unlabelled images of the training
   part, and a linear classifier on its frozen features (`probe`) says what it knows, with 1, 3, 8 and all
   labelled images of the other folds, three draws of them.
2. ``fine-tune``: the pretexts of ``--names`` are fine-tuned, one fold a draw, with each of
   ``--learning-rates`` and ``--body-rates``; ``chance`` is training from scratch.
3. ``network``: `NETWORKS` from scratch, with their speed.

Rows that the JSON file holds are not computed again. Several processes may share ``--work`` with different
``--json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

import probe
from label_efficiency import Task, examples, tasks
from napari_genselfdiff.compute import choose_compute
from napari_genselfdiff.diffusion.config import COMPACT, UNetConfig
from napari_genselfdiff.diffusion.patches import to_unit_range
from napari_genselfdiff.diffusion.pretraining import SETTINGS, PretrainSettings, load_pretext, pretrain
from napari_genselfdiff.diffusion.unet import UNet
from napari_genselfdiff.events import Finished
from napari_genselfdiff.finetuning.examples import Example
from napari_genselfdiff.finetuning.loop import FineTuneResult, FineTuneSettings, fine_tune
from napari_genselfdiff.finetuning.scoring import mean_dice
from napari_genselfdiff.segmentation.network import SegmenterSpec, build_segmenter

Row = dict[str, Any]
FOLDS = 4
DRAWS = 3
LABELS = ("1", "3", "8", "all")
TIMES = (0, 50, 100, 150)
TIME = 50
BASE = replace(SETTINGS["compact"], stain=0.4, zoom=(0.62, 1.55))
"""Magnifications are in multiples of the task's here."""
NOISE = replace(BASE, objective="ddpm")
PRETEXTS: dict[str, PretrainSettings] = {
    "noise, P2": NOISE,
    "noise, min-SNR": replace(NOISE, weighting="min-snr"),
    "noise, flat": replace(NOISE, weighting="flat"),
    "noise, flat, cosine": replace(NOISE, weighting="flat", schedule="cosine"),
    "masked": replace(BASE, objective="masked"),
    "features": BASE,
    "features, cosine": replace(BASE, schedule="cosine"),
    "features, little stain": replace(BASE, stain=0.1),
    "features, no EMA": replace(BASE, ema=0.0),
    "features, task's magnification": replace(BASE, zoom=(0.8, 1.0)),
}
NETWORKS: dict[str, UNetConfig] = {
    "compact": COMPACT,
    "narrow": replace(COMPACT, name="narrow", widths=(24, 48, 96, 192)),
    "narrow at the top": replace(COMPACT, name="narrow-top", widths=(16, 48, 128, 256)),
    "wide": replace(COMPACT, name="wide", widths=(48, 96, 192, 384)),
    "two blocks": replace(COMPACT, name="two-blocks", blocks=2),
    "five levels": replace(COMPACT, name="five-levels", widths=(32, 64, 128, 192, 256)),
    "stride 1": replace(COMPACT, name="stride-1", widths=(16, 32, 64, 128, 256), stem_stride=1),
}


@dataclass(frozen=True)
class Trial:
    """Labelled images to learn from, and images to be scored on, as indices into the training part."""

    labels: str
    draw: int
    fold: int
    learn: list[int]
    score: list[int]


def folds(task: Task) -> list[list[int]]:
    """Indices of the training part, by group, in parts of about one size."""
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(task.training):
        groups.setdefault(str(item.group) if task.name == "glands" else item.name, []).append(index)
    parts: list[list[int]] = [[] for _ in range(FOLDS)]
    for group in sorted(groups.values(), key=len, reverse=True):
        min(parts, key=len).extend(group)
    return parts


def trials(task: Task, *, one_fold: bool) -> Iterator[Trial]:
    """All numbers of labels, draws and folds; or, where a trial is dear, another fold for each draw."""
    parts = folds(task)
    for labels in LABELS:
        for draw in range(DRAWS):
            for fold, score in enumerate(parts):
                if one_fold and fold != draw % FOLDS:
                    continue
                others = [i for other, part in enumerate(parts) if other != fold for i in part]
                order = np.random.default_rng(100 + draw).permutation(others).tolist()
                yield Trial(labels, draw, fold, order if labels == "all" else order[: int(labels)], score)


def trained(name: str, task: Task, arguments: argparse.Namespace, seed: int) -> tuple[UNet, float]:
    """A pretext of this name, made now if it is not there; and the gigapixels that it has seen."""
    settings = replace(PRETEXTS[name], seed=seed)
    scale = task.scale(task.training[0])
    settings = replace(settings, zoom=(settings.zoom[0] * scale, settings.zoom[1] * scale))
    slug = "".join(c if c.isalnum() else "-" for c in name)
    output = arguments.work / f"{task.name}-{slug}-{arguments.steps}-{seed}.safetensors"
    if not output.exists():
        arguments.work.mkdir(parents=True, exist_ok=True)
        part = output.with_name(f"part-{output.name}")
        for _ in pretrain(
            [item.image for item in task.training],
            part,
            config=COMPACT,
            compute=choose_compute("cpu"),
            settings=settings,
            steps=arguments.steps,
        ):
            pass
        part.rename(output)
    return load_pretext(output)[0], arguments.steps * settings.batch * settings.patch**2 / 1e9


def starts(name: str, task: Task, arguments: argparse.Namespace, seed: int) -> tuple[UNet | None, float]:
    """What a name stands for: a pretext, a file, chance, or no network at all; and its gigapixels."""
    if name == "hand-made":
        return None, 0.0
    if name == "chance":
        torch.manual_seed(seed)
        return UNet(COMPACT).to(memory_format=torch.channels_last), 0.0  # type: ignore[call-overload]
    if name in PRETEXTS:
        return trained(name, task, arguments, seed)
    network, card = load_pretext(name)
    return network, card["steps"] * card["settings"]["batch"] * card["settings"]["patch"] ** 2 / 1e9


def probed(name: str, task: Task, data: list[Example], arguments: argparse.Namespace, seed: int) -> list[Row]:
    """Dice of linear classifiers on a network's frozen features, a row a time step."""
    network, seen = starts(name, task, arguments, seed)
    truth = [probe.block_labels(example) for example in data]
    rows = []
    for moment in (TIME,) if network is None or name == "chance" else TIMES:
        if network is None:
            features = [probe.handmade_features(example.rgb) for example in data]
        else:
            ready = probe.recalibrated(network, [example.rgb for example in data], moment)
            features = [probe.network_features(ready, example.rgb, moment) for example in data]
        row: Row = {"stage": "probe", "set": task.name, "name": name, "seed": seed, "time": moment}
        row |= {"steps": arguments.steps, "gigapixels": round(seen, 3)}
        for labels in LABELS:
            by_draw: list[list[float]] = [[] for _ in range(DRAWS)]
            for trial in trials(task, one_fold=False):
                if trial.labels == labels:
                    linear = probe.Linear(
                        [features[i] for i in trial.learn], [truth[i] for i in trial.learn], seed=trial.draw
                    )
                    by_draw[trial.draw] += [linear.dice(features[i], truth[i]) for i in trial.score]
            row[labels] = [round(float(np.mean(scores)), 4) for scores in by_draw]
        rows.append(row)
    return rows


def fine_tuned(
    config: UNetConfig,
    start: UNet | None,
    task: Task,
    data: list[Example],
    trial: Trial,
    steps: int,
    rates: tuple[float, float],
) -> float:
    """Dice of a fine-tuned network on the images of a trial."""
    compute = choose_compute("cpu")
    spec = SegmenterSpec(config, ("background", "object"), task.mpp, instances=True)
    state = start.state_dict() if start is not None else None
    *_, last = fine_tune(
        build_segmenter(spec, start=state, seed=trial.draw),
        [data[i] for i in trial.learn],
        [],
        compute=compute,
        settings=FineTuneSettings(seed=trial.draw, learning_rate=rates[0], body_rate=rates[1]),
        score_before=False,
        steps=steps,
    )
    assert isinstance(last, Finished)
    assert isinstance(last.result, FineTuneResult)
    return mean_dice(last.result.segmenter, [data[i] for i in trial.score], compute)


def speed(config: UNetConfig, side: int = 512, repeats: int = 7) -> float:
    """Megapixels a second of one window, forward, float32; the median of some."""
    segmenter = build_segmenter(SegmenterSpec(config, ("background", "object"), 0.5), start=None, seed=0)
    x = to_unit_range(np.zeros((1, side, side, 3), np.uint8))
    times = []
    with torch.inference_mode():
        for _ in range(repeats):
            started = time.perf_counter()
            segmenter.eval()(x)
            times.append(time.perf_counter() - started)
    return side**2 / 1e6 / statistics.median(times)


class Table:
    """Rows that are kept in a file as they come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = json.loads(path.read_text()) if path.exists() else []

    def has(self, **key: Any) -> bool:
        """Whether there is a row with these entries."""
        return any(key.items() <= row.items() for row in self.rows)

    def add(self, row: Row) -> None:
        """Keep a row."""
        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.rows, indent=0) + "\n")
        print(row, flush=True)


def shown(name: str) -> str:
    """A name as a table shows it."""
    return Path(name).stem if name.endswith(".safetensors") else name


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}" if values else "-"


def print_tables(rows: list[Row]) -> None:
    """All stages in Markdown; means and standard deviations over draws and seeds."""
    probes = [row for row in rows if row["stage"] == "probe"]
    for name in dict.fromkeys(row["set"] for row in probes):
        print(f"\n{name}: linear classifier on frozen features, time step {TIME}\n")
        print(f"| pretext | gigapixels | {' | '.join(LABELS)} |\n{'| --- ' * (len(LABELS) + 2)}|")
        here = [row for row in probes if row["set"] == name]
        at_time = [row for row in here if row["time"] == TIME]
        for key in dict.fromkeys((row["name"], row["gigapixels"]) for row in at_time):
            same = [row for row in at_time if (row["name"], row["gigapixels"]) == key]
            cells = [spread([dice for row in same for dice in row[labels]]) for labels in LABELS]
            print(f"| {shown(key[0])} | {key[1]} | {' | '.join(cells)} |")
        print(f"\n{name}: time steps, 8 labelled images\n")
        print(f"| pretext | {' | '.join(map(str, TIMES))} |\n{'| --- ' * (len(TIMES) + 1)}|")
        for pretext in dict.fromkeys(row["name"] for row in here if row["time"] != TIME):
            same = [row for row in here if row["name"] == pretext]
            cells = [spread([d for row in same if row["time"] == time for d in row["8"]]) for time in TIMES]
            print(f"| {shown(pretext)} | {' | '.join(cells)} |")
    for stage in ("fine-tune", "network"):
        trained = [row for row in rows if row["stage"] == stage]
        for name, steps in dict.fromkeys((row["set"], row["fine_tune_steps"]) for row in trained):
            print(f"\n{name}: {stage}, {steps} steps\n")
            print(f"| start | learning rate | body | Mpx/s | {' | '.join(LABELS)} |")
            print("| --- " * (len(LABELS) + 4) + "|")
            here = [row for row in trained if (row["set"], row["fine_tune_steps"]) == (name, steps)]
            named = [((row["name"], row["learning_rate"], row["body_rate"]), row) for row in here]
            for kind in dict.fromkeys(name for name, _ in named):
                same = [row for name, row in named if name == kind]
                start, rate, body = kind
                cells = [spread([r["dice"] for r in same if r["labels"] == labels]) for labels in LABELS]
                fast = same[0].get("mpx_per_second", "-")
                print(f"| {shown(start)} | {rate:g} | {body:g} | {fast} | {' | '.join(cells)} |")


def parsed() -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where the pretexts are kept")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--stage", choices=["probe", "fine-tune", "network"], default="probe")
    parser.add_argument("--sets", nargs="+", default=["glands", "nuclei"])
    parser.add_argument("--names", nargs="+", help="of PRETEXTS or NETWORKS; hand-made, chance, or a file")
    parser.add_argument("--labels", nargs="+", default=list(LABELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the pretexts")
    parser.add_argument("--steps", type=int, default=500, help="of the pretexts")
    parser.add_argument("--fine-tune-steps", type=int, default=300)
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[FineTuneSettings.learning_rate])
    parser.add_argument("--body-rates", type=float, nargs="+", default=[FineTuneSettings.body_rate])
    return parser.parse_args()


def main() -> None:
    """Compute the rows that are missing."""
    arguments = parsed()
    table = Table(arguments.json)
    known = tasks(arguments.data)
    networks = arguments.stage == "network"
    names = arguments.names or (list(NETWORKS) if networks else ["hand-made", "chance", *PRETEXTS])
    for task in (known[name] for name in arguments.sets):
        data = examples(task, task.training)
        for name in names:
            for seed in arguments.seeds:
                key = {"stage": arguments.stage, "set": task.name, "name": name, "seed": seed}
                key["steps"] = arguments.steps
                if arguments.stage == "probe":
                    if not table.has(**key):
                        for row in probed(name, task, data, arguments, seed):
                            table.add(row)
                    continue
                config = NETWORKS[name] if networks else COMPACT
                start = None if networks or name == "chance" else starts(name, task, arguments, seed)[0]
                if networks:
                    key |= {"mpx_per_second": round(speed(config), 3)}
                every = product(arguments.learning_rates, arguments.body_rates, trials(task, one_fold=True))
                for rate, body, trial in every:
                    steps = arguments.fine_tune_steps
                    row = key | {"labels": trial.labels, "draw": trial.draw}
                    row |= {"fine_tune_steps": steps, "learning_rate": rate, "body_rate": body}
                    identity = {k: v for k, v in row.items() if k != "mpx_per_second"}
                    if trial.labels in arguments.labels and not table.has(**identity):
                        dice = fine_tuned(config, start, task, data, trial, steps=steps, rates=(rate, body))
                        table.add(row | {"dice": round(dice, 4)})
    print_tables(table.rows)


if __name__ == "__main__":
    main()
