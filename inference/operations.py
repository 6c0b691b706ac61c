"""How much a network has to compute, whatever computes it."""

from __future__ import annotations

from math import prod

from inference.engine.graph import Graph, Node
from inference.engine.ops import Conv


def gflop(graph: Graph) -> float:
    """Return 1e9 multiplications and additions of all convolutions, as direct sums have them.

    Of one sample: what Winograd's kernels save is not taken off.
    """
    return sum(gflop_of(graph, node) for node in graph.nodes)


def gflop_of(graph: Graph, node: Node) -> float:
    """Return those of one node; 0 if it is no convolution."""
    kernel = getattr(node.op, "kernel", None)
    if kernel is None:
        return 0.0
    # Of a transposed one, every input voxel adds a kernel.
    of = node.name if isinstance(node.op, Conv) else node.inputs[0]
    return 2.0 * float(kernel.size) * prod(graph.shapes[of][1:]) / 1e9
