"""Activations are applied where their argument is made, in registers."""

from __future__ import annotations

from dataclasses import replace

from inference.engine.graph import Graph, Node
from inference.engine.ops import LINEAR, Activate, Add, Conv, Resize, Scale, TransposedConv


def fuse_activations(graph: Graph) -> Graph:
    """Fuse every `Activate` into what it follows, unless that has other uses, or softmax it is."""
    nodes, notes = dict(graph.by_name), []
    for node in graph.nodes:
        if not isinstance(node.op, Activate) or not node.op.activation.is_pointwise:
            continue
        before = nodes[node.inputs[0]]
        if graph.uses[before.name] > 1 or not isinstance(
            before.op, Conv | TransposedConv | Resize | Scale | Add
        ):
            continue
        if before.op.activation != LINEAR:
            continue
        op = replace(before.op, activation=node.op.activation)
        nodes[node.name] = Node(node.name, op, before.inputs)
        notes.append(f"{node.name} applied by {before.name}")
    return graph.with_nodes(nodes.values(), *notes) if notes else graph
