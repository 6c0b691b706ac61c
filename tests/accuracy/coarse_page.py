"""Where printed tables stand in the pages of docs/, each between its two markers."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "coarse.md"


def write_table(name: str, table: str, page: Path = PAGE) -> None:
    """Replace what stands between ``<!-- name -->`` and ``<!-- /name -->``."""
    text = page.read_text(encoding="utf-8")
    before, start, rest = text.partition(f"<!-- {name} -->")
    _, stop, after = rest.partition(f"<!-- /{name} -->")
    if not (start and stop):
        raise ValueError(f"{page.name} has no markers <!-- {name} --> and <!-- /{name} -->")
    page.write_text(f"{before}{start}\n{table.rstrip()}\n{stop}{after}", encoding="utf-8")
