"""Where the time of a network goes: ``python -m tests.benchmarks.engine.layers``.

Every step of the engine is timed within the whole network, over some rounds; layers of one kind
are one row. GFLOP are those of direct sums, so that Winograd's kernels may pass the peak.
``--network A`` names it, ``--threads 1,2`` the threads, ``--rounds N`` the rounds; ``--write`` puts
the table between its markers in docs/engine.md.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inference.engine import Engine, from_keras
from inference.engine.engine import Settings
from inference.engine.graph import Graph, Node
from inference.engine.ops import Conv, TransposedConv
from inference.native.structures import Kind
from inference.operations import gflop_of
from tests.benchmarks.engine.networks import find
from tests.benchmarks.engine.peak.measure import peak_gflop_s
from tests.benchmarks.machine import machine
from tests.pages import write_table

LEAST = 1.3
"""Of the measured peak, on layers of 3 x 3 x 3."""
OTHERS = {
    Kind.READ: "the caller's input, laid out in blocks",
    Kind.WRITE: "the output, laid out for the caller",
    Kind.ZERO_MARGIN: "zeros around images",
    Kind.MAP: "sums, enlarging and activations by themselves",
    Kind.MAX_POOL: "pooling",
    Kind.AVERAGE_POOL: "pooling",
    Kind.COPY: "copies",
}


@dataclass
class Row:
    """Steps of one kind."""

    title: str
    seconds: float = 0.0
    steps: int = 0
    gflop: float = 0.0
    kernels: set[str] = field(default_factory=set)
    is_cube: bool = False
    """Whether it is a convolution of 3 x 3 x 3."""


def main() -> None:
    """Print, or write, the account as markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="A")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    network = find(arguments.network)
    graph = from_keras.read(network.build(), network.batch[1:])
    x = np.random.default_rng(0).uniform(-1, 1, network.batch).astype(np.float32)
    parts = [f"{network.title}; {machine('numpy')}"]
    for threads in map(int, arguments.threads.split(",")):
        parts.append(account(Engine(graph, Settings(threads=threads)), x, arguments.rounds))
        print(parts[-1], flush=True)
    if arguments.write:
        write_table("engine.md", "bench-engine-layers", "\n\n".join(parts))


def account(engine: Engine, x: np.ndarray, rounds: int) -> str:
    """Return the table of one engine."""
    threads = engine.settings.threads
    peak = peak_gflop_s(threads)
    times, whole = _measured(engine, x, rounds)
    peak = max(peak or 0.0, peak_gflop_s(threads) or 0.0) or None
    rows = grouped(engine.graph, engine.program, times)
    total = sum(row.seconds for row in rows)
    lines = [
        f"Threads: {threads}. Measured peak in float32: {_rounded(peak)} GFLOP/s. A call takes "
        f"{whole:.3f} s, its steps {total:.3f} s; the lowest of {rounds}.",
        "",
        "| steps | number | ms | % of the steps | GFLOP | GFLOP/s | % of the peak | kernels |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
        *(_line(row, total, peak) for row in rows),
    ]
    if cubes := [row for row in rows if row.is_cube]:
        together = Row("*3 x 3 x 3 together*")
        for row in cubes:
            together.seconds += row.seconds
            together.steps += row.steps
            together.gflop += row.gflop
        lines += [_line(together, total, peak), "", _verdict(together, peak)]
    return "\n".join(lines)


def _measured(engine: Engine, x: np.ndarray, rounds: int) -> tuple[list[float], float]:
    """Return the lowest time of every step, like the peak's, and of calls not timed inside."""
    engine(x)
    turns, calls = [], []
    for _ in range(rounds):
        turns.append([seconds for _, seconds in engine.profile(x)])
        start = time.perf_counter()
        engine(x[:1])
        calls.append(time.perf_counter() - start)
    return [min(times) for times in zip(*turns, strict=True)], min(calls)


def grouped(graph: Graph, program: Any, times: Iterable[float]) -> list[Row]:
    """Sum steps up by the kind of their layer, the dearest first."""
    steps = list(zip(program.labels, program.ops, times, strict=True))
    owners = [_owner(graph, label) for label, *_ in steps]
    number: dict[str, int] = defaultdict(int)  # of steps that share a layer's operations
    for owner, (_, op, _) in zip(owners, steps, strict=True):
        if owner and op.kind in (Kind.DIRECT, Kind.WINOGRAD):
            number[owner.name] += 1
    rows: dict[str, Row] = {}
    for owner, (label, op, seconds) in zip(owners, steps, strict=True):
        is_conv = op.kind in (Kind.DIRECT, Kind.WINOGRAD) and owner is not None
        title = _title(graph, owner) if is_conv and owner else _other(op.kind)
        row = rows.setdefault(title, Row(title))
        row.seconds += seconds
        row.steps += 1
        if is_conv and owner:
            row.gflop += gflop_of(graph, owner) / number[owner.name]
            row.kernels.add(_kernel(label))
            row.is_cube = owner.op.kernel.shape[:3] == (3, 3, 3)
    return sorted(rows.values(), key=lambda row: -row.seconds)


def _owner(graph: Graph, label: str) -> Node | None:
    """Return the convolution that a step's label begins with, the longest name first."""
    found = [
        node
        for node in graph.nodes
        if isinstance(node.op, Conv | TransposedConv)
        and (label.startswith((f"{node.name}:", f"{node.name} (")))
    ]
    return max(found, key=lambda node: len(node.name), default=None)


def _title(graph: Graph, node: Node) -> str:
    z, y, x, inputs, outputs = node.op.kernel.shape
    size = " x ".join(map(str, graph.shapes[node.name][1:]))
    kind = "transposed " if isinstance(node.op, TransposedConv) else ""
    return f"{kind}{z} x {y} x {x}, {inputs} to {outputs} channels, {size}"


def _other(kind: int) -> str:
    found = Kind(kind)
    return OTHERS.get(found, found.name.lower().replace("_", " "))


def _kernel(label: str) -> str:
    return "Winograd" if "Winograd" in label else "direct"


def _line(row: Row, total: float, peak: float | None) -> str:
    rate = row.gflop / row.seconds if row.seconds else 0.0
    known = row.gflop > 0
    return (
        f"| {row.title} | {row.steps} | {1e3 * row.seconds:.1f} "
        f"| {100 * row.seconds / total:.1f} | {f'{row.gflop:.1f}' if known else ''} "
        f"| {f'{rate:.0f}' if known else ''} "
        f"| {f'{100 * rate / peak:.0f}' if known and peak else ''} "
        f"| {', '.join(sorted(row.kernels))} |"
    )


def _verdict(cubes: Row, peak: float | None) -> str:
    if not peak:
        return "Without a C++ compiler the peak cannot be measured."
    share = cubes.gflop / cubes.seconds / peak
    said = "met" if share >= LEAST else "missed"
    return f"At least {LEAST} times the peak on layers of 3 x 3 x 3: {share:.2f}, {said}."


def _rounded(peak: float | None) -> str:
    return f"{peak:.0f}" if peak else "unknown"


if __name__ == "__main__":
    main()
