"""Print the tables of rendering: ``python -m tests.benchmarks.render.table``.

``--rounds N`` sets the number of rounds, ``--write`` puts the tables between their markers in
docs/performance.md.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import cv2

from tests.benchmarks.machine import machine
from tests.benchmarks.render.contests import KERNELS, EndToEnd, contest, end_to_end
from tests.benchmarks.rounds import hold, markdown

PAGE = Path(__file__).parents[3] / "docs" / "performance.md"
MARKERS = "<!-- bench-render: begin -->", "<!-- bench-render: end -->"


def main() -> None:
    """Hold the contests and print, or write, their tables as markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    text = [machine("numpy", "opencv-python-headless", "zarr") + "\n"]
    for interpolation in KERNELS:
        found = contest(interpolation)
        text.append("#" + markdown(found, hold(found, arguments.rounds)))
        print(text[-1], flush=True)
    rows = []
    for interpolation in KERNELS:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(end_to_end(Path(folder), interpolation, arguments.rounds))
    text += [_shares(rows), _parts(rows)]
    print("\n".join(text[-2:]), flush=True)
    if arguments.write:
        before, _, rest = PAGE.read_text().partition(MARKERS[0])
        after = rest.partition(MARKERS[1])[2]
        tables = "\n".join(text)
        PAGE.write_text(f"{before}{MARKERS[0]}\n\n{tables}\n{MARKERS[1]}{after}")


def _shares(rows: list[EndToEnd]) -> str:
    lines = [
        "#### A shard of 32 x 2048 x 2048, from zarr to zarr on local disk",
        "",
        "| kernel | OpenCV in memory, Mpx/s per core | all of it, Mpx/s per core "
        "| share | lowest ... highest | peak memory, MB | as planned, MB |",
        "|---|--:|--:|--:|---|--:|--:|",
    ]
    for row in rows:
        shares = sorted(row.shares)
        lines.append(
            f"| {row.interpolation} | {row.bare_mpx_per_s:.0f} | {row.mpx_per_s:.0f} "
            f"| {shares[len(shares) // 2]:.0%} | {shares[0]:.0%} ... {shares[-1]:.0%} "
            f"| {row.peak_bytes / 1e6:.0f} | {row.planned_bytes / 1e6:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _parts(rows: list[EndToEnd]) -> str:
    lines = [
        "#### Where the time of a shard goes, seconds of one core",
        "",
        f"| part | {' | '.join(row.interpolation for row in rows)} |",
        f"|---|{'--:|' * len(rows)}",
    ]
    lines += [
        f"| {part} | {' | '.join(f'{row.parts[part]:.2f}' for row in rows)} |"
        for part in rows[0].parts
    ]
    totals = (f"{sum(row.parts.values()):.2f}" for row in rows)
    lines.append(f"| **all** | {' | '.join(totals)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
