"""What makes a graph cheaper without changing what it computes; each by its name.

A pass is a pure function from graph to graph, which adds to the notes what it did. `apply` runs
those that are asked for in the one order in which they serve each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from inference.engine.graph import Graph
from inference.engine.passes.activate import fuse_activations
from inference.engine.passes.add import fuse_adds
from inference.engine.passes.concat import write_in_place
from inference.engine.passes.pad import fuse_pads
from inference.engine.passes.resize import resize_last
from inference.engine.passes.scale import fold_scales
from inference.errors import ConfigError

Pass = Callable[[Graph], Graph]
Passes = Literal["full", "none"] | Iterable[str]

PASSES: dict[str, Pass] = {
    "scale": fold_scales,
    "resize": resize_last,
    "add": fuse_adds,
    "activate": fuse_activations,
    "pad": fuse_pads,
    "concat": write_in_place,
}
"""Passes over the graph, in their order. "scale" runs again behind "add"."""

ALL = (*PASSES, "memory")
"""All names; "memory" is no pass over the graph: it lets results share memory."""


def chosen(passes: Passes) -> frozenset[str]:
    """Return the names that are meant.

    >>> sorted(chosen("full"))
    ['activate', 'add', 'concat', 'memory', 'pad', 'resize', 'scale']
    """
    if passes == "full":
        return frozenset(ALL)
    names = frozenset([] if passes == "none" else passes)
    if isinstance(passes, str) and passes != "none":
        names = frozenset([passes])
    if unknown := sorted(names - set(ALL)):
        raise ConfigError(f"there are no passes {unknown}; passes are 'full', 'none' or of {ALL}")
    return names


def apply(graph: Graph, passes: Passes) -> Graph:
    """Run passes over a graph."""
    names = chosen(passes)
    for name, run in PASSES.items():
        if name in names:
            graph = run(graph)
        if name == "add" and {"add", "scale"} <= names:
            graph = fold_scales(graph)  # those behind sums that are fused now
    return graph
