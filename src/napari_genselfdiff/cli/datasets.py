"""The verb ``dataset``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from napari_genselfdiff.cli.terminal import examples, follow

EPILOG = examples(
    "dataset MoNuSeg --output nuclei",
    "dataset WarwickQU --output glands --classes",
    "dataset photos --output mine --mpp 0.5 --labels photos/edited-masks",
)


class Layout(StrEnum):
    """Layouts of data sets."""

    auto = "auto"
    monuseg = "monuseg"
    glas = "glas"
    pairs = "pairs"
    ome_zarr = "ome-zarr"


def dataset(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Folder of the data set, as it was unpacked.")
    ],
    output: Annotated[
        Path,
        typer.Option(metavar="DIR", help="A new folder, for images/, labels/ and the table dataset.csv."),
    ],
    layout: Annotated[Layout, typer.Option(help="auto recognises it.")] = Layout.auto,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="DIR_OR_NAME",
            help="Folder of masks, in place of the annotations in SOURCE; the name of the label image in "
            "OME-Zarr that has several.",
        ),
    ] = None,
    mpp: Annotated[
        float | None,
        typer.Option(
            "--mpp",
            metavar="FLOAT",
            help="Micrometres per pixel. Default: what the files say; 0.25 for MoNuSeg, 0.62 for GlaS.",
        ),
    ] = None,
    instances: Annotated[
        bool | None,
        typer.Option(
            "--instances/--classes",
            help="Whether labels number objects or classes. MoNuSeg and GlaS number objects, which --classes "
            "joins to one class. Of masks it is asked for where the numbers leave it open.",
        ),
    ] = None,
) -> None:
    """Turn a data set into what finetune and evaluate take.

    MoNuSeg (TIFF and XML), GlaS (BMP and Grade.csv), images with masks of the same names in one folder or
    two, and OME-Zarr with labels.
    """
    from napari_genselfdiff.verbs import converting

    done: converting.Converted = follow(
        lambda cancel: converting.convert_dataset(
            source, output, layout=layout, labels=labels, mpp=mpp, instances=instances, cancel=cancel
        )
    )
    resolutions = [f"{value:g}" for value in dict.fromkeys((*done.mpp[:1], *done.mpp[-1:]))]
    said = [f"{' to '.join(resolutions)} um/px"] if resolutions else []
    if done.unknown:
        said.append(f"{done.unknown} of unknown resolution (give --mpp)")
    typer.echo(
        f"{done.path}: {done.images} images in {done.groups} groups ({done.layout}), {', '.join(said)}, "
        + (f"{done.objects} objects" if done.instances else f"{done.objects} pixels of foreground")
    )
    flag = " --instances" if done.instances else ""
    typer.echo(
        f"for finetune and evaluate: --images {done.path / 'images'} --labels {done.path / 'labels'}{flag}"
    )
