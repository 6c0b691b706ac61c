"""Print the table of the engine: ``python -m tests.benchmarks.engine.table``.

``--nets ABC`` names the networks, ``--rounds N`` the rounds, ``--threads N`` the threads;
``--write`` puts the table between its markers in docs/engine.md, that of several threads between
others.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from tests.benchmarks.machine import machine
from tests.benchmarks.rounds import Contest, Result, hold
from tests.pages import write_table


def main() -> None:
    """Hold the contests and print, or write, their table as markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", default="ABC")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    _use_threads(arguments.threads)
    from tests.benchmarks.engine.contests import NETWORKS, enter, gflop

    libraries = ["tensorflow-cpu", "keras", *(["openvino"] if find_spec("openvino") else [])]
    lines = [
        f"{machine(*libraries)} Threads: {arguments.threads}.",
        "",
        "| network | way | s | CPU-s | times the engine's CPU-s | lowest ... highest, by time | "
        "GFLOP per CPU-s | largest difference |",
        "|---|---|--:|--:|--:|---|--:|--:|",
    ]
    for name in arguments.nets:
        entry = enter(NETWORKS[name], arguments.threads)
        work = gflop(entry)
        contest = Contest(entry.network.title, work, entry.ways, unit="GFLOP", per=1.0)
        for result in hold(contest, arguments.rounds):
            lines.append(_row(entry.network.title, result, work, entry.errors[result.way]))
            print(lines[-1], flush=True)
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        name = "bench-engine" if arguments.threads == 1 else "bench-engine-threads"
        write_table("engine.md", name, text)


def _row(title: str, result: Result, work: float, error: float) -> str:
    seconds, cpu = work / result.per_s, work / result.per_cpu_s
    spread = f"{1 / result.highest:.2f} ... {1 / result.lowest:.2f}"
    return (
        f"| {title} | {result.way} | {seconds:.3f} | {cpu:.3f} | {1 / result.cpu_ratio:.2f} "
        f"| {spread} | {result.per_cpu_s:.0f} | {error:.0e} |"
    )


def _use_threads(threads: int) -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


if __name__ == "__main__":
    main()
