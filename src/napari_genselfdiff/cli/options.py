"""Options that several verbs have."""

from __future__ import annotations

from typing import Annotated

import typer

Device = Annotated[
    str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps. auto takes the fastest.")
]
InputMpp = Annotated[
    float | None,
    typer.Option(
        "--mpp",
        metavar="FLOAT",
        help="Micrometres per pixel of the INPUT, for files that do not say. 0.25 is typical of 40x, 0.5 of "
        "20x. The resolution a model works at is its own, and results come back at the input's size.",
    ),
]
