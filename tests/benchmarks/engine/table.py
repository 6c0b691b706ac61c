"""Race the engine against its peers: ``python -m tests.benchmarks.engine.table``.

``--networks A,B,C,twelve`` names networks (keys of `networks.find`), ``--threads 1,2`` the threads,
``--ways "engine;OpenVINO, float32"`` who takes part, ``--rounds N`` the rounds. What was raced by
the engine's present sources is kept and not raced again, unless ``--fresh`` is given, so that a
run that was cut short goes on. ``--write`` puts the tables between their markers in
docs/performance.md; with ``--processor NAME`` goals and summary alone, between the markers of
another kind of processor. ``--peers`` names the Python that has the peers.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.engine import goals, reports
from tests.benchmarks.engine.networks import GOALS, TWELVE
from tests.benchmarks.engine.race import PEERS_PYTHON, hold, ways_for
from tests.benchmarks.engine.results import Race, saved
from tests.pages import write_table


def main() -> None:
    """Hold the races and print, or write, their tables as markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default="A,B,C,twelve")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--ways", default="")
    parser.add_argument("--rounds", type=int, default=0, help="7 for A, B and C, 3 for others")
    parser.add_argument("--peers", type=Path, default=PEERS_PYTHON)
    parser.add_argument("--processor", default="")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    keys = [
        key
        for name in arguments.networks.split(",")
        for key in (TWELVE if name == "twelve" else [name])
    ]
    ways = [way for way in arguments.ways.split(";") if way]
    for threads in map(int, arguments.threads.split(",")):
        races = []
        for key in keys:
            rounds = arguments.rounds or (7 if key in GOALS else 3)
            entered = ways or ways_for(key)
            race = None if arguments.fresh else saved(key, threads, entered, rounds)
            if race is None:
                race = hold(key, threads, rounds, entered, arguments.peers)
                race.save()
            races.append(race)
            print(reports.details([race]), flush=True)
        text = brief(races) if arguments.processor else table(races)
        print(text)
        if arguments.write:
            marker = "-".join(filter(None, ["bench-engine", str(threads), arguments.processor]))
            write_table("performance.md", marker, text)


def brief(races: Sequence[Race]) -> str:
    """Return goals and summary of one number of threads."""
    return "\n".join(
        [
            reports.heading(races),
            "",
            goals.judged(races),
            "",
            "Times as long as the engine takes (and times its processor time):",
            "",
            reports.summary(races),
        ]
    )


def table(races: Sequence[Race]) -> str:
    """Return these, and all rows."""
    return "\n".join([brief(races), "", "Everything measured:", "", reports.details(races)])


if __name__ == "__main__":
    main()
