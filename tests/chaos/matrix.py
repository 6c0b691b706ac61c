"""The fault matrix: ``python -m tests.chaos.matrix [--row N ...] [--soak LOG] [--write]``.

Each row makes one fault for real and says what came of it. ``--soak`` takes the rows that a soak
has struck many times from its log. ``--write`` puts the rows that were done into
``docs/reliability.md`` and leaves the others there as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.chaos.ground import ground
from tests.chaos.local_rows import ROWS as LOCAL
from tests.chaos.platform_rows import Arena
from tests.chaos.rows import INPUTS, SECURITY, Outcome, Row, tests
from tests.chaos.runs import make_golden
from tests.pages import DOCS, write_table

PAGE, NAME = "reliability.md", "matrix"
HEAD = """\
| # | fault | how it is made | result | begun again | recovery |
|--:|---|---|---|--:|--:|"""

STRUCK = (
    Row(1, "worker killed amid a unit", "`kill -9`", kinds=("kill worker",)),
    Row(4, "Dask scheduler killed", "`kill -9`", kinds=("kill dask-scheduler",)),
    Row(5, "worker frozen and revived", "SIGSTOP, SIGCONT after its time to live",
        kinds=("freeze worker",)),
    Row(7, "Airflow task killed", "`kill -9`", kinds=("kill airflow-task",)),
    Row(8, "Airflow task's supervisor killed", "`kill -9`",
        kinds=("kill airflow-task-supervisor",)),
    Row(9, "Airflow scheduler and API server killed", "`kill -9`",
        kinds=("kill airflow-scheduler", "kill airflow-api")),
)  # fmt: skip
"""Rows that a soak strikes, too."""

ARENA: tuple[tuple[Row, Callable[[Arena], Outcome]], ...] = (
    (Row(6, "worker without a network", "S3 accepts and answers nothing for 20 s (no network "
         "namespace: the rest of the machine shares it)"), Arena.cut_off),
    (Row(10, "metadata database restarted", "SQLite locked for 15 s, all of Airflow killed"),
     Arena.database),
    (Row(35, "the same run triggered twice", "a second DAG run of the same parameters"),
     Arena.twice),
    (Row(38, "cleared tasks", "`ingest` and all after it cleared amid the run"), Arena.cleared),
    (Row(39, "Dask reached by other machines", "connecting to its port by this machine's own "
         "address"), Arena.from_outside),
)  # fmt: skip
RESUMED = Row(
    37, "settings or code changed before a resume", "settings changed, units compared with plan",
    tests("tests/pipeline/test_keys.py", "tests/pipeline/test_resume.py"),
)  # fmt: skip


def main() -> None:
    """Do the rows that are asked for; all without a choice."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.chaos.matrix")
    parser.add_argument("--row", type=int, action="append", help="may be given again")
    parser.add_argument("--soak", type=Path, help="log of tests.chaos.soak")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    lines, is_right = {}, True
    for row, outcome in _outcomes(options.row, options.soak):
        lines[row.number] = _line(row, outcome)
        is_right &= outcome.is_right
        print(lines[row.number], flush=True)
        if options.write:
            _write(lines)
    sys.exit(0 if is_right else 1)


def _outcomes(asked: list[int] | None, log: Path | None) -> Iterator[tuple[Row, Outcome]]:
    def wants(row: Row) -> bool:
        return asked is None or row.number in asked

    for row in (*INPUTS, *SECURITY, *LOCAL, RESUMED):
        if wants(row) and row.do is not None:
            yield row, row.do()
    if log is not None:
        yield from ((row, o) for row, o in from_soak(log) if wants(row))
    struck = [] if log is not None else [row for row in STRUCK if wants(row)]
    others = [(row, do) for row, do in ARENA if wants(row)]
    if struck or others:
        with ground() as place:
            os.environ.update(place.platform.environment())
            arena = Arena(place, make_golden(f"s3://{place.platform.bucket}")[0])
            for row in struck:
                yield row, arena.kinds(*row.kinds)
            for row, do in others:
                yield row, do(arena)


def from_soak(log: Path) -> Iterator[tuple[Row, Outcome]]:
    """Yield the rows that a soak has struck, and the soak itself as row 11."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    told = {line["kind"]: line for line in lines if line["what"] == "kind"}
    everything = Row(11, "all of it at random", "the soak above", kinds=("",))
    for row in (*STRUCK, everything):
        found = [told[kind] for kind in row.kinds if kind in told]
        if found:
            yield (
                row,
                Outcome(
                    all(each["identical"] == each["runs"] for each in found),
                    "; ".join(f"{e['identical']} of {e['runs']} runs identical" for e in found)
                    + f" ({sum(e['injected'] for e in found)} times)",
                    "; ".join(f"{e['again_percent']:.1f} %" for e in found),
                    "; ".join(f"{e['median_s']:.0f} s, worst {e['worst_s']:.0f} s" for e in found),
                ),
            )


def _line(row: Row, outcome: Outcome) -> str:
    result = outcome.result if outcome.is_right else f"**wrong**: {outcome.result}"
    cells = (row.number, row.fault, row.how, result, outcome.waste, outcome.recovery)
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _write(lines: dict[int, str]) -> None:
    text = (DOCS / PAGE).read_text(encoding="utf-8")
    inside = text.partition(f"<!-- {NAME} -->")[2].partition(f"<!-- /{NAME} -->")[0]
    known = {int(m[1]): m[0] for m in re.finditer(r"^\| (\d+) \|.*$", inside, re.MULTILINE)}
    merged = {**known, **lines}
    write_table(PAGE, NAME, "\n".join([HEAD, *(merged[n] for n in sorted(merged))]))


if __name__ == "__main__":
    main()
