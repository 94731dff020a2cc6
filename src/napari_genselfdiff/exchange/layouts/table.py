"""Tables that stand beside the images of a data set: one line an image."""

from __future__ import annotations

import csv
from pathlib import Path

from napari_genselfdiff.errors import UserError

NAME = "name"


def read_table(path: Path) -> dict[str, dict[str, str]]:
    """Read a CSV file with a column ``name``.

    Returns
    -------
    dict
        The line of every name. Names of columns are in lower case and, like the values, without the blanks
        around them that such files have.

    Raises
    ------
    UserError
        If the file is missing or not a table, has no column ``name``, or names an image twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file, strict=True))
    except FileNotFoundError as error:
        raise UserError("there is no such file", path, "check the path") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError("the table could not be read", path, "save it as CSV in UTF-8") from error
    header = [column.strip().lower() for column in lines[0]] if lines else []
    if NAME not in header:
        raise UserError("the table has no column 'name'", path, "its first line must name the columns")
    rows: dict[str, dict[str, str]] = {}
    for number, line in enumerate(lines[1:], 2):
        row = {column: value.strip() for column, value in zip(header, line, strict=False)}
        name = row.get(NAME, "")
        if not name:
            continue  # such as an empty line at the end
        if name in rows:
            raise UserError(f"line {number} names {name} a second time", path, "remove one of the two lines")
        rows[name] = row
    return rows
