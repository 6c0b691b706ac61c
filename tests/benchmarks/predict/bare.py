"""What a worker does for the benchmark of predictions: the network alone, and its own clocks."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np

from alignment.predicting.runs import layout_of, load
from alignment.stages.predict import model_uri, network_of
from inference.backends.engine_file import EngineNetwork
from inference.backends.files import on_engine
from storage.store import read_bytes


class Spent(NamedTuple):
    """What a worker has spent so far, s."""

    cpu_s: float
    """Of the process."""
    in_network_s: float
    """On the clock, while it was in a call of the network."""


_in_network_s = 0.0


def watch() -> None:
    """Take the time of all calls of networks in this worker from now on."""
    original = EngineNetwork.__call__

    def timed(self: EngineNetwork, patches: Any) -> Any:
        global _in_network_s
        start = time.perf_counter()
        made = original(self, patches)
        _in_network_s += time.perf_counter() - start
        return made

    EngineNetwork.__call__ = timed  # type: ignore[method-assign]


def spent() -> Spent:
    """Return what this worker has spent so far."""
    return Spent(time.process_time(), _in_network_s)


def call_network(
    run_uri: str, patches: int, begin: float, *, is_whole: bool
) -> tuple[float, float]:
    """Call the network of a prediction so often; return when it was done, and its CPU-s.

    The engine as anybody calls it, who gets whole patches; or as the prediction does, which gets
    them without their margins. Begins at a time (s since 1970) that workers agree on. The patches
    are in memory already, as the network takes them, and what it gives is dropped.
    """
    layout = layout_of(run_uri)
    network, patch = network_of(run_uri), layout.patch
    if is_whole:
        network = on_engine(read_bytes(model_uri(load(run_uri))), isa=layout.isa)
    random = np.random.default_rng(0)
    given = [random.random((1, *patch, 1), np.float32) for _ in range(2)]
    network(given[0])
    time.sleep(max(begin - time.time(), 0))
    cpu_s = time.process_time()
    for n in range(patches):
        network(given[n % 2])
    return time.time(), time.process_time() - cpu_s
