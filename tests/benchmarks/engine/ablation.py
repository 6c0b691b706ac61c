"""Print what each pass is worth: ``python -m tests.benchmarks.engine.ablation``.

The residual network A by the engine alone: with all passes, without each of them, with none, and
with direct sums only. ``--rounds N`` sets the rounds; ``--write`` puts the table between its
markers in docs/engine.md.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np

from inference.engine import from_keras, passes
from inference.engine.engine import Engine, Settings
from tests.benchmarks.engine.networks import find
from tests.benchmarks.machine import machine
from tests.benchmarks.rounds import Contest, Result, hold
from tests.pages import write_table


def main() -> None:
    """Hold the contest and print, or write, its table as markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    network = find("A")
    shape = network.batch[1:]
    graph = from_keras.read(network.build(), shape)
    x = np.random.default_rng(0).uniform(-1, 1, network.batch).astype(np.float32)
    settings = {
        "all passes": Settings(),
        **{f"without {n}": Settings(passes=set(passes.ALL) - {n}) for n in passes.ALL},
        "none": Settings(passes="none"),
        "all passes, direct sums": Settings(strict=True),
    }
    engines = {name: Engine(graph, one) for name, one in settings.items()}
    ways = {name: partial(engine, x) for name, engine in engines.items()}
    contest = Contest(network.title, 1.0, ways, per=1.0)
    lines = [
        f"{network.title}, one thread; {machine('numpy')}",
        "",
        "| passes | CPU-s | times as much as with all | steps | memory, MB |",
        "|---|--:|--:|--:|--:|",
    ]
    results = hold(contest, arguments.rounds)
    lines += [_row(result, engines[result.way]) for result in results]
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        write_table("engine.md", "bench-engine-passes", text)


def _row(result: Result, engine: Engine) -> str:
    return (
        f"| {result.way} | {1 / result.per_cpu_s:.3f} | {1 / result.cpu_ratio:.2f} "
        f"| {len(engine.program.labels)} | {engine.working_bytes / 1e6:.0f} |"
    )


if __name__ == "__main__":
    main()
