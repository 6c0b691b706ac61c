"""What the runner costs: ``python -m tests.benchmarks.runner.table --write`` (`make bench-runner`).

10^3, 10^4 and 10^5 units that do nothing, each with a record, on a Dask cluster of processes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.machine import machine
from tests.benchmarks.runner.measure import WORKERS, Measured, measure_apart
from tests.pages import write_table

SIZES = (1_000, 10_000, 100_000)
_HEAD = """\
| units | wall, µs a unit | processors, µs a unit | of it sealing | resume, µs a unit | \
scheduler's memory | driver's memory |
|--:|--:|--:|--:|--:|--:|--:|
"""


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, nargs="+", default=SIZES)
    parser.add_argument("--read", type=Path, help="lines of tests.benchmarks.runner.measure")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    arguments = parser.parse_args()
    if arguments.read:
        rows = [Measured(**json.loads(line)) for line in arguments.read.read_text().splitlines()]
    else:
        rows = [measure_apart(units) for units in arguments.units]
    text = markdown(rows)
    print(text)
    if arguments.write:
        write_table("performance.md", "bench-runner", text)


def markdown(rows: Sequence[Measured]) -> str:
    """Return the table; memory is what was added to what the process had before."""
    lines = [
        f"| {row.units:,} | {row.us_per_unit:,.0f} | {row.cpu_us:,.0f} | {row.sealing_us:,.0f} | "
        f"{row.resume_us:,.0f} | +{row.scheduler_mib:.0f} MiB | +{row.driver_mib:.0f} MiB |"
        for row in rows
    ]
    about = f"{WORKERS} workers; {machine('distributed')}"
    return f"{about}\n\n{_HEAD}" + "\n".join(lines)


if __name__ == "__main__":
    main()
