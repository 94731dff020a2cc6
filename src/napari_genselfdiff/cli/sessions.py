"""The verb ``session``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_genselfdiff.cli.terminal import complain, examples, follow

if TYPE_CHECKING:
    from napari_genselfdiff.annotations.audit import Audit, AuditRecord

app = typer.Typer(rich_markup_mode=None)

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The session's folder, or an export of it.")]


@app.callback(
    epilog=examples(
        "session verify FOLDER --replay",
        "session verify FOLDER --head 9f86d081884c7d65",
        "session log FOLDER --last 20",
        "session export FOLDER handover.zip",
    )
)
def common() -> None:
    """Check, print and hand over what was drawn in a session."""


@app.command("verify")
def verify(
    folder: Folder,
    replay: Annotated[
        bool, typer.Option("--replay", help="Compare the stored pixels with a replay of the journal.")
    ] = False,
    head: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HASH",
            help="A head hash that was kept elsewhere; may be given again for further slides. A journal that"
            " has grown since still holds it.",
        ),
    ] = None,
) -> None:
    """Check the journals and the models of a session; the exit status is 1 when something is wrong.

    The chain of hashes shows damage. It shows tampering only with a head hash that was kept elsewhere.
    """
    from napari_genselfdiff.verbs.auditing import check_session

    check = check_session(folder, replay=replay, heads=head or ())
    for name, checked in check.audits.items():
        typer.echo("\n".join(_summary(name, checked, replay=replay)))
    for model in check.models:
        typer.echo(f"model {model.name}: {'reads well' if not model.problem else 'cannot be used'}")
        if model.sha256:
            typer.echo(f"  sha256   {model.sha256}")
    for problem in check.problems:
        complain(f"problem: {problem}")
    if check.problems:
        raise typer.Exit(1)
    kept = " and hold what was kept" if head else ""
    typer.echo(f"no problem found: {len(check.audits)} journals are whole{kept}")


@app.command("log")
def log(
    folder: Folder,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    last: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only the last N records of each slide.")
    ] = None,
) -> None:
    """Print who changed what, when and where, and which model was in use: one record a line."""
    from napari_genselfdiff.annotations.audit import read_records
    from napari_genselfdiff.verbs.auditing import annotation_folders, class_names, readable_state, slide_names

    found = annotation_folders(folder)
    state = readable_state(folder)
    classes = class_names(folder, state)
    for name, place in slide_names(folder, state, found).items():
        for record in read_records(place, last=last, classes=classes):
            if as_json:
                line = json.dumps({"slide_name": name, **asdict(record)}, ensure_ascii=False)
            else:
                line = f"{name}  {_line(record)}"
            typer.echo(line)


@app.command("export")
def export(
    folder: Folder,
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="A new folder, or an archive when it ends in .zip.")
    ],
) -> None:
    """Write what was drawn, by whom and when, for somebody who does not have this program.

    Slides, pictures of them and their paths are left out, and so are the weights of the models.
    """
    from napari_genselfdiff.verbs.handover import export_session

    typer.echo(str(follow(lambda cancel: export_session(folder, output, cancel=cancel))))


def _summary(name: str, checked: Audit, *, replay: bool) -> list[str]:
    lines = [f"slide {name}", f"  slide    sha256 {checked.slide or 'not known yet'}"]
    who = f", by {', '.join(checked.authors)}" if checked.authors else ""
    when = f" ({checked.first[:16]} to {checked.last[:16]} UTC{who})" if checked.first else ""
    lines.append(f"  records  {len(checked.hashes):,}{when}")
    lines.append(f"  head     {checked.head}")
    lines.append(f"  chain    {'holds' if checked.chained else 'does not hold'}")
    if checked.replayed:
        lines.append(
            f"  pixels   {'agree' if checked.agrees else 'do not agree'} with a replay of the journal"
        )
    elif replay:
        lines.append("  pixels   were not compared")
    return [*lines, *(f"  note     {note}" for note in checked.notes)]


def _line(record: AuditRecord) -> str:
    from napari_genselfdiff.verbs.handover import changes

    box = record.region
    parts = [
        f"{record.seq:>6}",
        record.time,
        record.author or "-",
        record.kind + (f" of {record.of}" if record.of else ""),
        f"y {box.y} x {box.x}, {box.height} x {box.width} px at 1/{2**record.layer}",
        changes(record) or "-",
        *([f"{record.cleared} finer chunks cleared"] if record.cleared else []),
        f"model {record.model or '-'}",
        *([record.text] if record.text else []),
    ]
    return "  ".join(" ".join(part.split()) if index else part for index, part in enumerate(parts))
