"""Joined channels are written where they are read from, instead of copied."""

from __future__ import annotations

from dataclasses import replace

from inference.engine.graph import Graph, Node
from inference.engine.ops import Concat, Conv, Input, TransposedConv

WIDEST = 16
"""Channels of the widest vectors."""


def write_in_place(graph: Graph) -> Graph:
    """Mark every `Concat` whose inputs can lie side by side in its own memory.

    Each input begins at a vector of its own. Convolutions can skip the gaps that this leaves;
    where something else reads the result there must be none.
    """
    nodes, notes, taken = dict(graph.by_name), [], set[str]()
    for node in graph.nodes:
        if not isinstance(node.op, Concat) or not _is_possible(graph, node, taken):
            continue
        nodes[node.name] = replace(node, op=replace(node.op, in_place=True))
        taken |= {node.name, *node.inputs}
        notes.append(f"{node.name} written in place by {', '.join(node.inputs)}")
    return graph.with_nodes(nodes.values(), *notes) if notes else graph


def _is_possible(graph: Graph, node: Node, taken: set[str]) -> bool:
    inputs = node.inputs
    if len(set(inputs)) < len(inputs) or taken & set(inputs):
        return False
    if any(isinstance(graph.by_name[name].op, Input) for name in inputs):
        return False
    has_gaps = any(graph.shapes[name][0] % WIDEST for name in inputs[:-1])
    return not has_gaps or (
        node.name not in graph.outputs
        and all(
            isinstance(reader.op, Conv | TransposedConv) and node.name not in reader.inputs[1:]
            for reader in graph.consumers(node.name)
        )
    )
