"""``adapt``: go on with a pretext on the tissue of new slides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_genselfdiff.cli.options import Device, InputMpp
from napari_genselfdiff.cli.terminal import complain, examples, follow
from napari_genselfdiff.errors import UserError

if TYPE_CHECKING:
    from napari_genselfdiff.diffusion.adaptation import Adaptation

NOT_KEPT = 1
EPILOG = examples(
    "adapt slides --output ours.safetensors",
    "adapt a.svs b.svs --base pretext --output ours.safetensors --seconds 600",
    "adapt slides --output ours.safetensors --seconds 1200 --resume",
    "finetune --images tiles --labels masks --base ours.safetensors --output mine.safetensors",
)


def adapt(
    ctx: typer.Context,
    slides: Annotated[
        list[str],
        typer.Argument(
            metavar="SLIDE...",
            help="The cohort: slides, folders of slides, or patterns in quotes. No labels are needed.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            metavar="WEIGHTS", help="The .safetensors file to write, if the new weights are better."
        ),
    ],
    base: Annotated[str, typer.Option(metavar="NAME_OR_PATH", help="The pretext to go on with.")] = "pretext",
    seconds: Annotated[
        float | None,
        typer.Option(metavar="N", min=0.1, help="Train for N seconds, resumed parts included. Default: 300."),
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", min=1, help="Stop after N steps.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Runs with the same seed repeat.")] = 0,
    mpp: InputMpp = None,
    check_images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A few labelled images, with --check-labels: new weights with which short fine-tunes on "
            "them are worse are not kept.",
        ),
    ] = None,
    check_labels: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Their masks, paired by file stem.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint beside the output.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Adapt a pretext to the tissue of new slides.

    It goes on learning on unlabelled tiles of their tissue. The new weights are kept only if they denoise
    tissue of the cohort that they did not see better than the old ones; else the exit status is 1. Ctrl-C
    stops and keeps the checkpoint; --resume goes on.
    """
    from napari_genselfdiff.compute import choose_compute
    from napari_genselfdiff.verbs.adapting import adapt_to_slides

    if (check_images is None) != (check_labels is None):
        missing = "--check-labels" if check_labels is None else "--check-images"
        raise UserError("labelled images need both folders", missing, "give it, or leave both out")
    labelled = None if check_images is None or check_labels is None else (check_images, check_labels)
    compute = choose_compute(device)
    done: Adaptation = follow(
        lambda cancel: adapt_to_slides(
            slides,
            output,
            compute=compute,
            base=base,
            seconds=seconds,
            steps=steps,
            seed=seed,
            mpp=mpp,
            labelled=labelled,
            resume=resume,
            command=ctx.obj,
            cancel=cancel,
        )
    )
    if done.path is None:
        complain(done.message)
        raise typer.Exit(NOT_KEPT)
    typer.echo(f"{done.path}: {done.steps} steps in {done.seconds:.0f} s")
    typer.echo(done.message)
