"""A 1 x 1 convolution of an enlarged image is computed before it is enlarged."""

from __future__ import annotations

from inference.engine.graph import Graph, Node
from inference.engine.ops import LINEAR, NO_MARGINS, ONES, Conv, Resize


def resize_last(graph: Graph) -> Graph:
    """Swap a nearest resizing and the 1 x 1 convolution that alone takes it.

    Both orders give the same values: a voxel and its copies have the same channels.
    """
    nodes, notes = dict(graph.by_name), []
    for node in graph.nodes:
        before = nodes[node.inputs[0]] if node.inputs else node
        if graph.uses[before.name] > 1 or not _is_pointwise(node) or not _is_nearest(before):
            continue
        conv = Node(before.name, node.op, before.inputs)
        nodes[before.name], nodes[node.name] = conv, Node(node.name, before.op, (before.name,))
        notes.append(f"{node.name} computed before {before.name} enlarges it")
    return graph.with_nodes(nodes.values(), *notes) if notes else graph


def _is_pointwise(node: Node) -> bool:
    op = node.op
    return (
        isinstance(op, Conv)
        and op.kernel.shape[:3] == ONES
        and op.stride == ONES
        and op.padding == NO_MARGINS
        and op.residual is None
    )


def _is_nearest(node: Node) -> bool:
    op = node.op
    return (
        isinstance(op, Resize)
        and op.kind == "nearest"
        and op.activation == LINEAR
        and op.residual is None
        and op.scale is None
    )
