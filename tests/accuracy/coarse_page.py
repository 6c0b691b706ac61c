"""Where the tables of the coarse stage stand: docs/coarse.md, each between its two markers."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "coarse.md"


def write_table(name: str, table: str) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->``."""
    text = PAGE.read_text(encoding="utf-8")
    before, start, rest = text.partition(f"<!-- {name} -->")
    _, stop, after = rest.partition(f"<!-- /{name} -->")
    if not (start and stop):
        raise ValueError(f"{PAGE.name} has no markers <!-- {name} --> and <!-- /{name} -->")
    PAGE.write_text(f"{before}{start}\n{table.rstrip()}\n{stop}{after}", encoding="utf-8")
