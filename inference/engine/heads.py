"""What is computed behind the kernels' program: correlograms, the end of siamese networks.

Their cost is that of transforms of whole images, for which there are good libraries; the network
before them is what kernels are for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from inference.engine.correlation import correlogram
from inference.engine.graph import Graph, Node
from inference.engine.ops import Array, Correlate, Similarity
from inference.errors import UnsupportedError


@dataclass(frozen=True)
class Head:
    """How one output is made of results of the program."""

    sources: tuple[str, ...]
    similarity: Similarity | None = None
    """Of a correlogram, whose sources are the search image and the template; None: as it is."""
    words: str = ""
    """What it does."""

    def __call__(self, made: Mapping[str, Array]) -> Array:
        """Return the output for a batch."""
        arrays = [made[name] for name in self.sources]
        if self.similarity is None:
            return arrays[0]
        pairs = zip(*arrays, strict=True)
        return np.stack([correlogram(*pair, similarity=self.similarity) for pair in pairs])


def split(graph: Graph) -> tuple[Graph, tuple[Head, ...]]:
    """Return what kernels compute of a graph, and what makes its outputs of that.

    Raises
    ------
    UnsupportedError
        If a correlogram is used by another layer; it is named.
    """
    ends = {node.name: node for node in graph.nodes if isinstance(node.op, Correlate)}
    for node in graph.nodes:
        used = next((name for name in node.inputs if name in ends), None)
        if used:
            raise UnsupportedError(
                f"the engine computes correlograms as outputs only, and the layer {node.name!r} "
                f"takes that of {used!r}"
            )
    heads = tuple(_head(name, ends.get(name)) for name in graph.outputs)
    outputs = dict.fromkeys(name for head in heads for name in head.sources)
    if not ends:
        return replace(graph, outputs=tuple(outputs)), heads
    body = Graph(graph.nodes, tuple(outputs), graph.notes, graph.is_flat)
    return body.with_nodes(graph.nodes), heads


def _head(name: str, end: Node | None) -> Head:
    if end is None or not isinstance(end.op, Correlate):
        return Head((name,))
    search, template = end.inputs
    words = f"{name}: {end.op.similarity} correlation of {template} in {search}, by spectra"
    return Head((search, template), end.op.similarity, words)
