"""Verbs and options; a stable contract."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from napari_genselfdiff.cli import adapting, datasets, models, segmenting, sessions
from napari_genselfdiff.cli.options import Device, InputMpp
from napari_genselfdiff.cli.terminal import PROGRAM, examples, follow
from napari_genselfdiff.events import CancelToken, Event, Finished, LossPoint

PRETRAIN_SECONDS = 3600.0


class Loss(StrEnum):
    """Losses of a fine-tune."""

    dice = "dice"
    paper = "paper"


class Objective(StrEnum):
    """What a pretext learns to do."""

    ddpm = "ddpm"
    features = "features"
    masked = "masked"


class Config(StrEnum):
    """Networks that can be pretrained."""

    compact = "compact"
    paper = "paper"


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.add_typer(models.app, name="models")
app.add_typer(sessions.app, name="session")

Steps = Annotated[int | None, typer.Option(metavar="N", min=1, help="Stop after N steps.")]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Runs with the same seed repeat.")]
Folder = typer.Option(metavar="DIR")


def _version(wanted: bool) -> None:
    if wanted:
        from napari_genselfdiff import __version__

        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback(
    invoke_without_command=True,
    epilog=examples(
        "                                    opens napari with the dock",
        "segment slide.svs --output nuclei.geojson --region 0 0 4000 4000",
        "finetune --images tiles --labels masks --output mine.safetensors",
        "segment slide.svs --output labels.tif --model mine.safetensors",
    )
    + "\n\n\b\nExit status: 0 done; 2 bad input, with one line on standard error;\n"
    "1 failure; 130 stopped with Ctrl-C. --debug behind any verb shows where an error happened.",
)
def common(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Segment whole-slide histology, and train models on your labels.

    Without a verb, napari opens with the dock. Research use only.
    """
    if ctx.invoked_subcommand is None:
        from napari_genselfdiff.widgets.launch import open_window

        open_window()


app.command(epilog=segmenting.EPILOG)(segmenting.segment)


@app.command(
    epilog=examples(
        "finetune --images tiles --labels masks --output mine.safetensors",
        "finetune --images tiles --labels ids --instances --mpp 0.25 --base nuclei --output mine.safetensors",
    )
)
def finetune(
    ctx: typer.Context,
    images: Annotated[Path, Folder],
    labels: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Masks, paired with the images by file stem: 0 is background, then classes. 255 means not "
            "labelled and counts nowhere (65535 with --instances).",
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="MODEL", help="The .safetensors file to write.")],
    base: Annotated[
        str,
        typer.Option(
            metavar="pretext|scratch|NAME|PATH",
            help="What to start from: the bundled pretext, random weights, or a model.",
        ),
    ] = "pretext",
    seconds: Annotated[
        float | None,
        typer.Option(metavar="N", min=0.1, help="Stop after N seconds, scoring included. Default: 300."),
    ] = None,
    steps: Steps = None,
    seed: Seed = 0,
    mpp: InputMpp = None,
    target_mpp: Annotated[
        float | None,
        typer.Option(
            metavar="FLOAT",
            help="Micrometres per pixel that the MODEL shall work at. Default: the base's, or such that "
            "objects are about 16 pixels wide.",
        ),
    ] = None,
    instances: Annotated[
        bool, typer.Option("--instances", help="Each object in the labels has a number of its own.")
    ] = False,
    loss: Annotated[
        Loss,
        typer.Option(help="dice: cross-entropy and soft Dice. paper: structure similarity and focal loss."),
    ] = Loss.dice,
    device: Device = "auto",
) -> None:
    """Train a model on labelled images, and score it."""
    from napari_genselfdiff.compute import choose_compute
    from napari_genselfdiff.verbs import training

    compute = choose_compute(device)
    done: training.Trained = follow(
        lambda cancel: training.finetune(
            images,
            labels,
            output,
            compute=compute,
            base=base,
            seconds=seconds,
            steps=steps,
            seed=seed,
            mpp=mpp,
            target_mpp=target_mpp,
            instances=instances,
            loss=loss,
            command=ctx.obj,
            cancel=cancel,
        )
    )
    typer.echo(f"{done.path}: {done.steps} steps in {done.seconds:.0f} s")
    what = "held-out images" if done.whole_images else "images' held-out regions"
    if done.after is None:
        typer.echo("no score: nothing could be held out")
    else:
        before = "" if done.before is None else f" (before {done.before:.3f})"
        typer.echo(f"Dice {done.after:.3f} on {done.held_out} {what}{before}")


@app.command(
    epilog=examples(
        "pretrain --images slides_a slides_b --output pretext.safetensors --seconds 7200",
        "pretrain --images slides_a slides_b --output pretext.safetensors --seconds 14400 --resume",
    )
)
def pretrain(
    ctx: typer.Context,
    images: Annotated[
        list[Path], typer.Option(metavar="DIR [DIR ...]", help="Folders of images; no labels are needed.")
    ],
    output: Annotated[Path, typer.Option(metavar="WEIGHTS", help="The .safetensors file to write.")],
    config: Annotated[Config, typer.Option(help="The network.")] = Config.compact,
    objective: Annotated[
        Objective | None,
        typer.Option(
            help="ddpm predicts noise, masked paints in hidden blocks, features denoises into what image "
            "analysis would measure. Default: features for compact, ddpm for paper."
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            metavar="N", min=0.1, help="Stop after N seconds, resumed parts included. Default: 3600."
        ),
    ] = None,
    steps: Steps = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint beside the output.")
    ] = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Train the diffusion pretext on unlabelled images.

    Ctrl-C stops it and saves what was learned; --resume goes on. On several graphics cards: torchrun
    --nproc-per-node 4 --no-python napari-genselfdiff pretrain ...; each takes its part of every batch.
    """
    from dataclasses import replace

    from napari_genselfdiff.compute import choose_compute
    from napari_genselfdiff.diffusion import distributed, pretraining
    from napari_genselfdiff.diffusion.config import CONFIGS
    from napari_genselfdiff.images import find_images
    from napari_genselfdiff.verbs.inputs import check_writable

    compute = choose_compute(device)
    check_writable(output)
    files = find_images(images)

    settings = replace(pretraining.SETTINGS[config], seed=seed)
    if objective is not None:
        settings = replace(settings, objective=objective.value)

    def work(cancel: CancelToken) -> Iterator[Event]:
        last = ""
        for event in pretraining.pretrain(
            files,
            output,
            config=CONFIGS[config],
            compute=compute,
            settings=settings,
            seconds=PRETRAIN_SECONDS if seconds is None and steps is None else seconds,
            steps=steps,
            resume=resume,
            card={"command": ctx.obj},
            cancel=cancel,
        ):
            if isinstance(event, LossPoint):
                last = f", loss {event.loss:.4f}"
            if isinstance(event, Finished):
                saved = f"stopped and saved in {output}, go on with --resume: " if event.cancelled else ""
                event = replace(event, result=event.message + last, message=saved + event.message)
            yield event

    others = distributed.torchrun_rank() > 0
    said = follow(work, quiet=others)
    if not others:
        typer.echo(f"{output}: {said}")


app.command(epilog=adapting.EPILOG)(adapting.adapt)


@app.command(
    epilog=examples(
        "evaluate --model nuclei --images tiles --labels masks --mpp 0.25 --json scores.json",
        "evaluate --model mine.safetensors --images tiles --labels ids --instances --json scores.json",
    )
)
def evaluate(
    ctx: typer.Context,
    model: Annotated[str, typer.Option(metavar="MODEL", help="Name or file, see `models list`.")],
    images: Annotated[Path, Folder],
    labels: Annotated[Path, typer.Option(metavar="DIR", help="Masks, paired with the images by file stem.")],
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="OUT", help="Write the scores to this file.")
    ] = None,
    instances: Annotated[
        bool,
        typer.Option(
            "--instances", help="Labels number the objects: score AJI, PQ and GlaS's object scores too."
        ),
    ] = False,
    mpp: InputMpp = None,
    device: Device = "auto",
) -> None:
    """Score a model on labelled images.

    Each is segmented at the model's resolution and compared at the labels'.
    """
    from napari_genselfdiff.cli.table import score_table
    from napari_genselfdiff.compute import choose_compute
    from napari_genselfdiff.files import write_text
    from napari_genselfdiff.verbs import evaluating
    from napari_genselfdiff.verbs.inputs import check_writable

    compute = choose_compute(device)
    if json_file is not None:
        check_writable(json_file)
    done: evaluating.Evaluation = follow(
        lambda cancel: evaluating.evaluate(
            model, images, labels, compute=compute, instances=instances, mpp=mpp, cancel=cancel
        )
    )
    if json_file is not None:
        values = {"model": done.model, "images": done.images, "mean": done.mean, "command": ctx.obj}
        write_text(json_file, json.dumps(values, indent=1))
    typer.echo(score_table([*done.images, {"name": f"mean of {len(done.images)}", **done.mean}]))


@app.command(
    epilog=examples(
        "export nuclei.geojson --output nuclei.csv", "export edited-in-qupath.geojson --output mask.tif"
    )
)
def export(
    labels: Annotated[Path, typer.Argument(metavar="LABELS")],
    output: Annotated[
        Path, typer.Option(metavar="PATH", help=".png, .tif, .zarr, .geojson, or .csv (a table of objects).")
    ],
    mpp: Annotated[
        float | None, typer.Option(metavar="FLOAT", help="Micrometres per pixel, if the file does not say.")
    ] = None,
    instances: Annotated[
        bool, typer.Option("--instances", help="The labels are ids of objects, if the file does not say.")
    ] = False,
) -> None:
    """Turn labels into a mask, OME-Zarr, GeoJSON or a table."""
    from napari_genselfdiff.exchange.labels import convert
    from napari_genselfdiff.verbs.inputs import check_mpp

    convert(labels, output, mpp=check_mpp(mpp, "--mpp"), instances=instances or None)
    typer.echo(str(output))


app.command(epilog=datasets.EPILOG)(datasets.dataset)


@app.command(epilog=examples("demo", "demo --slide slide.svs --output demo-output"))
def demo(
    slide: Annotated[Path | None, typer.Option(metavar="PATH", help="Default: a sample slide.")] = None,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where pictures and labels go.")] = Path(
        "demo-output"
    ),
) -> None:
    """Show the main job, in a napari window.

    It segments a slide, corrects, fine-tunes and segments better.
    """
    from napari_genselfdiff.demo import run_demo

    run_demo(slide, output)
