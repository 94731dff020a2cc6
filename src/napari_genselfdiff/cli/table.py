"""Results as aligned text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from napari_genselfdiff.models.library import ModelEntry

PIXEL_SCORES = (
    *("dice", "iou", "precision", "sensitivity", "specificity", "accuracy", "f1"),
    *("hausdorff", "hausdorff_um", "hd95", "hd95_um"),
)
OBJECT_SCORES = (
    *("aji", "pq", "dq", "sq", "object_dice", "object_f1"),
    *("object_hausdorff", "object_hausdorff_um"),
)
DISTANCES = ("hausdorff", "hd95", "object_hausdorff")


def score_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One row for each image; scores that none has are left out.

    The scores of objects are a table of their own, below that of the pixels, because a terminal is not wide
    enough for both.
    """
    tables = []
    for scores in (PIXEL_SCORES, OBJECT_SCORES):
        names = [name for name in scores if any(name in row for row in rows)]
        if names:
            cells = [["image", *names]]
            cells += [[row["name"], *(_number(row.get(name), name) for name in names)] for row in rows]
            tables.append(aligned(cells))
    return "\n\n".join(tables)


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
    return f"{value:.1f}" if name.removesuffix("_um") in DISTANCES else f"{value:.3f}"
