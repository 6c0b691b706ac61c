"""The engine itself, in a process like its peers'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.benchmarks.engine.peers.exchange import Network


def prepare(network: Network, variant: str, threads: int) -> tuple[str, Callable[[], Any], Any]:
    """Compile the network; `variant` is nothing, or "tiles of 6"."""
    from inference.engine import compile
    from tests.benchmarks.engine.export import read_graph

    settings: dict[str, Any] = {"largest_tile": int(variant.split()[-1])} if variant else {}
    engine = compile(read_graph(network), threads=threads, **settings)
    x = network.array("input")
    given = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    return engine.isa, lambda: engine(given), lambda y: np.moveaxis(y, -1, 1)
