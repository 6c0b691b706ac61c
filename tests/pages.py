"""Tables that a command writes into a page of docs/, each between its two markers."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def write_table(page: str, name: str, table: str) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->``."""
    path = DOCS / page
    text = path.read_text(encoding="utf-8")
    before, start, rest = text.partition(f"<!-- {name} -->")
    _, stop, after = rest.partition(f"<!-- /{name} -->")
    if not (start and stop):
        raise ValueError(f"{page} has no markers <!-- {name} --> and <!-- /{name} -->")
    path.write_text(f"{before}{start}\n{table.rstrip()}\n{stop}{after}", encoding="utf-8")


def read_table(page: str, name: str) -> list[str]:
    """Return the lines between the markers of a table."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return text.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0].splitlines()
