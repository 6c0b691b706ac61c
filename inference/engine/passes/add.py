"""A sum becomes part of the convolution, or the resizing, that makes one of its terms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from inference.engine.graph import Graph, Node
from inference.engine.ops import LINEAR, Add, Conv, Resize


def fuse_adds(graph: Graph) -> Graph:
    """Let one term of every `Add` take the other as its residual.

    The term must have no other use and no activation of its own. Of two, the later one is taken:
    the other is ready by then.
    """
    nodes, notes = dict(graph.by_name), []
    order = {node.name: n for n, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if not isinstance(node.op, Add):
            continue
        for name in sorted(node.inputs, key=order.__getitem__, reverse=True):
            if graph.uses[name] == 1 and _can_add(nodes[name]):
                nodes[node.name] = _with_residual(graph, nodes[name], node)
                notes.append(f"{node.name} added by {name}")
                break
    return graph.with_nodes(nodes.values(), *notes) if notes else graph


def _can_add(node: Node) -> bool:
    op = node.op
    if not isinstance(op, Conv | Resize) or op.activation != LINEAR or op.residual is not None:
        return False
    return isinstance(op, Conv) or op.kind == "nearest"


def _with_residual(graph: Graph, term: Node, add: Node) -> Node:
    assert isinstance(term.op, Conv | Resize)
    assert isinstance(add.op, Add)
    first, second = add.inputs
    ones = np.ones(graph.shapes[term.name][0], np.float32)
    op = replace(term.op, residual=ones, activation=add.op.activation)
    return Node(add.name, op, (term.inputs[0], second if first == term.name else first))
