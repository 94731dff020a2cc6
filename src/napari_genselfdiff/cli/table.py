"""Results as aligned text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from napari_genselfdiff.models.library import ModelEntry

SCORES = (
    *("dice", "iou", "precision", "sensitivity", "specificity", "accuracy"),
    *("hd95", "hd95_um", "aji", "pq", "dq", "sq"),
)


def score_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One row for each image; scores that none has are left out."""
    names = [name for name in SCORES if any(name in row for row in rows)]
    cells = [["image", *names]]
    cells += [[row["name"], *(_number(row.get(name), name) for name in names)] for row in rows]
    return aligned(cells)


def model_table(entries: Sequence[ModelEntry]) -> str:
    """One row for each model."""
    cells = [["name", "kind", "from", "mpp", "classes"]]
    for entry in entries:
        mpp = entry.card.get("mpp")
        classes = ", ".join(entry.card.get("classes", ())[1:])
        origin = "bundled" if entry.bundled else "yours"
        cells.append([entry.name, entry.kind, origin, "-" if mpp is None else f"{mpp:.3g}", classes or "-"])
    return aligned(cells)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, with two spaces between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _number(value: float | None, name: str) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if name.startswith("hd95") else f"{value:.3f}"
