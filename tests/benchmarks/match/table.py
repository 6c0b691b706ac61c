"""Print the tables of matching in docs/performance.md: ``python -m tests.benchmarks.match.table``.

``--rounds N`` sets the number of rounds, ``--sizes N`` takes the first N sizes only, ``--sides``
sets which sections are matched as a whole, ``--picture FILE`` draws what these cost.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import matplotlib.pyplot as plt

from tests.benchmarks.machine import machine
from tests.benchmarks.match.bounds import bound
from tests.benchmarks.match.contests import SIZES, contest
from tests.benchmarks.match.sections import NEIGHBOURS, measure
from tests.benchmarks.rounds import Result, hold


def main() -> None:
    """Hold the contests and print their tables as markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, default=len(SIZES))
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--sides", type=int, nargs="*", default=[1024, 2048, 4096, 8192])
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    libraries = ("numpy", "scipy", "opencv-python-headless", "scikit-image")
    print(machine(*libraries), "\n", flush=True)
    measured: dict[tuple[int, int], float] = {}
    for threads in (1, 2):
        for size in SIZES[: arguments.sizes]:
            results = hold(contest(*size, threads=threads), arguments.rounds)
            if threads == 1:
                measured[size] = 1e6 / results[0].per_cpu_s
            print(_table(f"{size[0]} px in {size[1]} px", results, threads), flush=True)
    print(_bounds(measured), flush=True)
    found = [measure(side) for side in arguments.sides]
    print(_sections(found), flush=True)
    if arguments.picture:
        _draw(found, arguments.picture)


def _table(title: str, results: list[Result], threads: int) -> str:
    peer = next(r for r in results if r.way.startswith("OpenCV"))
    lines = [
        f"### {title}, {threads} thread{'s' if threads > 1 else ''}",
        "",
        "| way | matches/s | per CPU-second | times OpenCV, in time | by CPU time |",
        "|---|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {r.way} | {r.per_s:,.0f} | {r.per_cpu_s:,.0f} | {r.ratio / peer.ratio:.2f} "
        f"| {r.cpu_ratio / peer.cpu_ratio:.2f} |"
        for r in results
    ]
    return "\n".join(lines) + "\n"


def _bounds(measured: dict[tuple[int, int], float]) -> str:
    lines = [
        "### What bounds a match",
        "",
        "| template, window | transform | MFLOP | GFLOP/s in L1 | transforms, us | a match, us "
        "| share of transforms | spectra, MB | GB/s |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for size, microseconds in measured.items():
        b = bound(*size)
        lines.append(
            f"| {size[0]}, {size[1]} | {b.size_px} | {b.mflop:.1f} | {b.gflop_per_s:.0f} "
            f"| {b.transforms_us:.0f} | {microseconds:.0f} "
            f"| {b.transforms_us / microseconds:.0%} | {b.spectra_mb:.2f} "
            f"| {b.spectra_mb / microseconds * 1e3:.1f} |"
        )
    return "\n".join(lines) + "\n"


def _sections(found: list[dict[str, float]]) -> str:
    lines = [
        f"### A section against {NEIGHBOURS} neighbours, 160 px in 320 px every 80 px",
        "",
        "| side, px | nodes matched | CPU-s | Mpx/s per core | CPU-s per Mpx | one section, MB "
        "| peak memory above the sections, MB |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row['side_px']:.0f} | {row['matched']:.1%} | {row['cpu_s']:.2f} "
        f"| {row['mpx_per_s']:.2f} | {row['cpu_s'] / (row['side_px'] ** 2 / 1e6):.3f} "
        f"| {row['section_mb']:.0f} | {row['peak_mb']:.0f} |"
        for row in found
    ]
    return "\n".join(lines) + "\n"


def _draw(found: list[dict[str, float]], path: Path) -> None:
    pixels = [row["side_px"] ** 2 / 1e6 for row in found]
    figure, left = plt.subplots(figsize=(6, 3.6), layout="constrained")
    left.loglog(pixels, [row["cpu_s"] for row in found], "o-", color="C0", label="measured")
    per_pixel = found[-1]["cpu_s"] / pixels[-1]
    left.loglog(pixels, [per_pixel * p for p in pixels], ":", color="grey", label="linear")
    left.set(xlabel="section, Mpx", ylabel="CPU-s, three neighbours")
    left.legend(loc="upper left", frameon=False)
    right = left.twinx()
    right.semilogx(pixels, [row["peak_mb"] for row in found], "s--", color="C1")
    right.set_ylabel("peak memory above the sections, MB", color="C1")
    right.set_ylim(bottom=0)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
