"""``segment``: one slide into a file, or many into a folder."""

from __future__ import annotations

from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_genselfdiff.cli.options import Device, InputMpp
from napari_genselfdiff.cli.terminal import complain, examples, follow
from napari_genselfdiff.errors import UserError
from napari_genselfdiff.exchange.labels import WRITABLE
from napari_genselfdiff.slides.addresses import located
from napari_genselfdiff.verbs.inputs import is_folder

if TYPE_CHECKING:
    from napari_genselfdiff.verbs.cohort import Cohort
    from napari_genselfdiff.verbs.segmenting import Segmented

FAILED = 1
EPILOG = examples(
    "segment slide.svs --output nuclei.geojson",
    "segment slide.svs --output mask.png --region 1000 2000 512 512",
    "segment photo.png --output labels.tif --mpp 0.5 --model mine.safetensors",
    "segment slides --output predictions",
    "segment 'slides/**/*.svs' --output predictions --scheduler local:4",
    "segment slides --output predictions --scheduler tcp://node7:8786",
)


def segment(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE_OR_SLIDE...",
            help="Slides, folders of slides, patterns in quotes ('slides/**/*.svs'), or https:// and s3:// "
            "addresses of OME-Zarr.",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="For one slide a file, whose suffix says the form: .png or .tif label mask of the size of "
            "the input (or region), .zarr OME-Zarr labels, .geojson polygons for QuPath, .csv table of "
            "objects. For any number of slides a folder, or an address such as s3://bucket/predictions: each "
            "becomes an OME-Zarr label pyramid in it, and the same command again does what is missing.",
        ),
    ],
    model: Annotated[str, typer.Option(metavar="NAME_OR_PATH", help="See `models list`.")] = "nuclei",
    region: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(metavar="Y X HEIGHT WIDTH", help="In level-0 pixels. Default: all."),
    ] = None,
    mpp: InputMpp = None,
    instances: Annotated[
        bool,
        typer.Option(
            "--instances", help="Write ids of objects, not classes. .geojson and .csv hold objects anyhow."
        ),
    ] = False,
    icc: Annotated[
        bool, typer.Option("--icc", help="See the colours as the scanner's profile in the file means them.")
    ] = False,
    device: Device = "auto",
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="threads|local:N|ADDRESS",
            help="Who computes a folder: this process, N processes of this computer, or the workers of a "
            "Dask scheduler such as tcp://node7:8786.",
        ),
    ] = None,
) -> None:
    """Segment a slide, an image, a region of it, or many slides."""
    file = Path(output)
    labels = file.suffix.lower() in WRITABLE
    if scheduler is None and (labels or (file.suffix and not file.is_dir())) and not _is_cohort(images):
        _one(images[0], file, model, region, mpp, instances, icc, device)
        return
    for given, option in ((region is not None, "--region"), (instances, "--instances"), (icc, "--icc")):
        if given:
            raise UserError(
                "this is for one slide and a file", option, "leave it out, or name an output file"
            )
    if labels:
        raise UserError("many slides, and those of a scheduler, go into a folder", output, "name a folder")
    _many(images, output, model, mpp, device, scheduler or "threads")


def _is_cohort(images: list[str]) -> bool:
    path = located(images[0])
    if len(images) > 1 or isinstance(path, str):
        return len(images) > 1
    return is_folder(path) or (has_magic(images[0]) and not path.exists())


def _one(
    image: str,
    output: Path,
    model: str,
    region: tuple[int, int, int, int] | None,
    mpp: float | None,
    instances: bool,
    icc: bool,
    device: str,
) -> None:
    from napari_genselfdiff.compute import choose_compute
    from napari_genselfdiff.geometry import Region
    from napari_genselfdiff.verbs import segmenting

    compute = choose_compute(device)
    done: Segmented = follow(
        lambda cancel: segmenting.segment(
            image,
            output,
            compute=compute,
            model=model,
            region=None if region is None else Region(*region),
            mpp=mpp,
            instances=instances,
            icc=icc,
            cancel=cancel,
        )
    )
    said = [f"{name} {share:.1%}" for name, share in done.shares.items()]
    if done.objects is not None:
        said.insert(0, f"{done.objects} objects")
    typer.echo(f"{done.path}: {done.shape[0]} x {done.shape[1]} pixels, {', '.join(said)}")


def _many(images: list[str], output: str, model: str, mpp: float | None, device: str, scheduler: str) -> None:
    from napari_genselfdiff.verbs.cohort import segment_cohort

    done: Cohort = follow(
        lambda cancel: segment_cohort(
            images, output, model=model, mpp=mpp, device=device, scheduler=scheduler, cancel=cancel
        )
    )
    for slide, error in done.failed.items():
        complain(f"error: {error}" if slide in error else f"error: {error}, {slide}")
    typer.echo(f"{done.manifest}: {len(done.done)} of {len(done.done) + len(done.failed)} slides are done")
    if done.failed:
        raise typer.Exit(FAILED)
