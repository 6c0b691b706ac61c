"""How width matters: ``python -m tests.benchmarks.engine.sweep``.

The published sweeps, widths 8 to 64 in steps of 8: a residual block in 64^3, and a U-Net for images
of 128^2. ``--kinds block,flat``, ``--widths 8,16``, ``--threads N`` (1), ``--rounds N`` (5). What
was raced is kept, as by ``table``; ``--fresh`` races again. ``--write`` puts the tables between
their markers in docs/performance.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.engine import reports
from tests.benchmarks.engine.networks import SWEEP_WIDTHS, find
from tests.benchmarks.engine.race import PEERS_PYTHON, hold
from tests.benchmarks.engine.results import Race, saved
from tests.pages import write_table

WAYS = ("engine", "OpenVINO, float32", "TensorFlow")


def main() -> None:
    """Hold the races and print, or write, their tables as markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", default="block,flat")
    parser.add_argument("--widths", default=",".join(map(str, SWEEP_WIDTHS)))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=Path, default=PEERS_PYTHON)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    parts = []
    for kind in arguments.kinds.split(","):
        races = []
        for width in map(int, arguments.widths.split(",")):
            key = f"{kind}-{width}"
            threads, rounds = arguments.threads, arguments.rounds
            race = None if arguments.fresh else saved(key, threads, WAYS, rounds)
            if race is None:
                race = hold(key, threads, rounds, WAYS, arguments.peers)
                race.save()
            races.append(race)
            print(_row(race, width), flush=True)
        parts.append(table(kind, races))
    text = "\n\n".join(parts)
    print(text)
    if arguments.write:
        write_table("performance.md", "bench-engine-widths", text)


def table(kind: str, races: Sequence[Race]) -> str:
    """Return the table of one sweep."""
    shape = " x ".join(map(str, find(f"{kind}-8").batch[:-1]))
    said = {"block": "A residual block", "flat": "A symmetric U-Net for images"}[kind]
    rates = " | ".join(f"{way}, GFLOP/s" for way in WAYS)
    times = " | ".join(f"{way}, times the engine's s" for way in WAYS[1:])
    lines = [
        reports.heading(races),
        "",
        f"{said}, {shape} (images first). Times by the clock, by processor time in brackets.",
        "",
        f"| width | {rates} | engine, Mvoxel/s | {times} |",
        f"|--:|{'--:|' * (len(WAYS) + 1)}{'--:|' * (len(WAYS) - 1)}",
    ]
    return "\n".join([*lines, *(_row(race, int(race.key.split("-")[1])) for race in races)])


def _row(race: Race, width: int) -> str:
    results = race.results()
    rates = [f"{race.gflop * results[way].per_s:.0f}" if way in results else "" for way in WAYS]
    voxels = f"{race.voxels * results['engine'].per_s / 1e6:.2f}" if results else "failed"
    times = [
        f"{1 / results[way].ratio:.2f} ({1 / results[way].cpu_ratio:.2f})" if way in results else ""
        for way in WAYS[1:]
    ]
    return f"| {width} | {' | '.join(rates)} | {voxels} | {' | '.join(times)} |"


if __name__ == "__main__":
    main()
