"""Zeros around an image lie there already: buffers have a margin, and nothing is copied."""

from __future__ import annotations

from dataclasses import replace

from inference.engine.graph import Graph
from inference.engine.ops import Conv, Margins, Pad


def fuse_pads(graph: Graph) -> Graph:
    """Let convolutions read zeros around what was padded for them."""
    nodes, notes = dict(graph.by_name), []
    for node in graph.nodes:
        before = nodes[node.inputs[0]] if node.inputs else node
        if isinstance(node.op, Conv) and isinstance(before.op, Pad):
            op = replace(node.op, padding=_sum(node.op.padding, before.op.margins))
            nodes[node.name] = replace(node, op=op, inputs=(before.inputs[0], *node.inputs[1:]))
            notes.append(f"{before.name} is the margin of {before.inputs[0]}")
    return graph.with_nodes(nodes.values(), *notes) if notes else graph


def _sum(a: Margins, b: Margins) -> Margins:
    z, y, x = ((c[0] + d[0], c[1] + d[1]) for c, d in zip(a, b, strict=True))
    return z, y, x
