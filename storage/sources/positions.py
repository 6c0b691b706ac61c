"""The table positions.csv: one line a camera tile, with where it roughly lies."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass

from storage.errors import SourceError, UriError
from storage.uri import check_key

REQUIRED = ("file", "y", "x")
OPTIONAL = ("page", "mask")
SECTION = ("section", "z")


@dataclass(frozen=True)
class Tile:
    """One image of a camera, and where the microscope says that it lies."""

    section: str
    file: str
    """Key of its image below the folder."""
    page: int
    y: float | None
    """Nominal place of its first pixel in the section, px of its own image; None if unknown."""
    x: float | None
    mask: str | None
    """Key of the image that is 0 where the tile shows no tissue."""


def parse_positions(text: str, name: str) -> list[Tile]:
    """Return the tiles of a table.

    Raises
    ------
    SourceError
        Naming the line, what was expected and what came.
    """
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    columns = [str(column).strip() for column in reader.fieldnames or []]
    section = [c for c in columns if c in SECTION]
    unknown = [c for c in columns if c not in (*REQUIRED, *OPTIONAL, *SECTION)]
    missing = [c for c in REQUIRED if c not in columns]
    if missing or unknown or len(section) != 1 or len(set(columns)) != len(columns):
        raise SourceError(
            f"{name} has the columns {', '.join(columns) or 'none'}; expected file, section (or "
            "z), y, x, and if needed page and mask"
        )
    reader.fieldnames = columns
    tiles = []
    for row in reader:
        where = f"{name}, line {reader.line_num}"
        if None in row or None in row.values():
            raise SourceError(f"{where}: expected {len(columns)} values, one for each column")
        cells = {key: value.strip() for key, value in row.items()}
        if not cells[section[0]]:
            raise SourceError(f"{where}: the {section[0]} is empty")
        tiles.append(
            Tile(
                section=cells[section[0]],
                file=check_file(cells["file"], where),
                page=_page(cells.get("page") or "0", where),
                y=_number(cells["y"], "y", where),
                x=_number(cells["x"], "x", where),
                mask=check_file(cells["mask"], where) if cells.get("mask") else None,
            )
        )
    if not tiles:
        raise SourceError(f"{name} lists no tiles")
    return tiles


def check_file(key: str, where: str) -> str:
    """Return the key of a file below the folder; absolute paths and ``..`` are refused."""
    try:
        return check_key(key)
    except UriError as error:
        raise SourceError(f"{where}: {error}; give the file's path below the folder") from None


def _page(cell: str, where: str) -> int:
    if not cell.isdecimal() or len(cell) > 9:
        raise SourceError(f"{where}: page is {cell!r}; expected a whole number from 0")
    return int(cell)


def _number(cell: str, column: str, where: str) -> float | None:
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not abs(value) < 1e9:
        raise SourceError(f"{where}: {column} is {cell!r}; expected px, or nothing if unknown")
    return value
