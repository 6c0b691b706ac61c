"""Print how exact each kernel is: ``python -m tests.benchmarks.engine.errors``.

One convolution of random weights and values of order 1 by every kernel that may compute it, against
sums in float64. ``--write`` puts the table between its markers in docs/engine.md.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from inference import native
from inference.engine.choices import candidates, work_of
from inference.engine.engine import Engine, Settings
from inference.engine.graph import Graph, Node
from inference.engine.ops import Conv, Input
from tests.pages import write_table

DRAWS = 3
SIZE = (5, 25, 27)
LAYERS = ((1, 3), (3, 3), (1, 5))
"""Taps along z, and in y and x."""
CHANNELS = (28, 64, 256)


@dataclass(frozen=True)
class Error:
    """Of one kernel, relative to the layer's largest value."""

    largest: float
    rms: float


def layer(depth: int, side: int, channels: int, seed: int) -> tuple[Graph, np.ndarray, np.ndarray]:
    """Return a convolution, an input, and the result in float64."""
    random = np.random.default_rng(seed)
    taps = depth * side * side
    kernel = random.normal(size=(depth, side, side, channels, channels)) / np.sqrt(taps * channels)
    kernel = kernel.astype(np.float32)
    x = random.normal(size=(*SIZE, channels)).astype(np.float32)
    op = Conv(kernel, np.zeros(channels, np.float32))
    nodes = (Node("given", Input((channels, *SIZE))), Node("made", op, ("given",)))
    windows = sliding_window_view(x.astype(np.float64), kernel.shape[:3], axis=(0, 1, 2))
    exact = np.tensordot(windows, kernel.astype(np.float64), ((3, 4, 5, 6), (3, 0, 1, 2)))
    return Graph(nodes, ("made",)), x[np.newaxis], exact


def errors(depth: int, side: int, channels: int) -> dict[str, Error]:
    """Return the worst error of several draws, by kernel."""
    found: dict[str, list[Error]] = {}
    isa = native.widest() or ""
    lanes = native.library(isa).petalign_engine_lanes()
    for seed in range(DRAWS):
        graph, x, exact = layer(depth, side, channels, seed)
        op = graph.nodes[1].op
        work = work_of(op, graph.shapes["made"], lanes, channels, is_plain=False)
        kernels = {}
        for choice in candidates(work, is_strict=False):
            kernels.setdefault((choice.kernel, choice.tile), choice)
        for (kernel, tile), choice in kernels.items():
            with patch("inference.engine.engine.candidates", lambda *_, c=choice, **__: [c]):
                made = Engine(graph, Settings(isa=isa, tuning=False))(x)
            difference = (made[0] - exact) / abs(exact).max()
            name = "direct" if kernel == "direct" else f"F({tile}, {side})"
            error = Error(float(abs(difference).max()), float(np.sqrt((difference**2).mean())))
            found.setdefault(name, []).append(error)
    return {
        name: Error(max(e.largest for e in all_), max(e.rms for e in all_))
        for name, all_ in found.items()
    }


def main() -> None:
    """Print, or write, the table as markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    lines = [
        f"Worst of {DRAWS} draws, {native.widest()}.",
        "",
        "| taps | channels | kernel | largest error | rms |",
        "|---|--:|---|--:|--:|",
    ]
    for depth, side in LAYERS:
        for channels in CHANNELS:
            lines += [
                f"| {depth} x {side} x {side} | {channels} | {name} | {error.largest:.1e} "
                f"| {error.rms:.1e} |"
                for name, error in errors(depth, side, channels).items()
            ]
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        write_table("engine.md", "bench-engine-errors", text)


if __name__ == "__main__":
    main()
