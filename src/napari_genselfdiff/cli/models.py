"""The verb ``models``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from napari_genselfdiff.cli.terminal import complain, examples

app = typer.Typer(rich_markup_mode=None)


@app.callback(epilog=examples("models list", "models show nuclei", "models import mine.safetensors"))
def common() -> None:
    """List, show, import and export models."""


@app.command("list")
def show_all() -> None:
    """List the models that `--model` and `--base` know by name."""
    from napari_genselfdiff.cli.table import model_table
    from napari_genselfdiff.models.library import list_models

    entries = list_models()
    if entries:
        typer.echo(model_table(entries))
    else:
        complain("there are no models yet, train one with finetune, or use models import")


@app.command("show")
def show(name: Annotated[str, typer.Argument(metavar="NAME_OR_PATH")]) -> None:
    """Print the card of a model: what it is, and how and on what it was trained."""
    from napari_genselfdiff.models.library import resolve
    from napari_genselfdiff.models.weights import read_card, sha256_of

    path = resolve(name)
    card = read_card(path) | {"file": str(path), "sha256": sha256_of(path)}
    typer.echo(json.dumps(card, indent=1, ensure_ascii=False))


@app.command("import")
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name in the library. Default: the file's.")
    ] = None,
) -> None:
    """Add a weights file to your library."""
    from napari_genselfdiff.models.library import import_model

    entry = import_model(file, name=name)
    typer.echo(f"{entry.name}: {entry.path}")


@app.command("export")
def export(
    name: Annotated[str, typer.Argument(metavar="NAME_OR_PATH")],
    file: Annotated[Path, typer.Argument(metavar="FILE")],
) -> None:
    """Copy a model to a file, for a colleague."""
    from napari_genselfdiff.models.library import export_model

    typer.echo(str(export_model(name, file)))
