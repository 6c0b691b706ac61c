"""Batch normalisations and rescalings become part of the convolution beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from inference.engine.graph import Graph, Node
from inference.engine.ops import LINEAR, NO_MARGINS, Array, Conv, Pad, Resize, Scale, TransposedConv


def fold_scales(graph: Graph) -> Graph:
    """Fold every `Scale` that follows a convolution or nearest resizing, or can come before one.

    Before a convolution it can where zeros around the image stay zeros.

    A convolution that others use too, or that has an activation, keeps its scale behind it. What a
    convolution adds (`Conv.residual`) is scaled with it: its factor says so.
    """
    nodes, notes = dict(graph.by_name), []
    for node in graph.nodes:
        if not isinstance(node.op, Scale):
            continue
        graph_now = graph.with_nodes(nodes.values())
        behind = _behind(graph_now, nodes, node)
        if behind is not None:
            nodes[node.name] = behind
            notes.append(f"{node.name} folded into {node.inputs[0]}")
        elif _before(graph_now, nodes, node):
            notes.append(f"{node.name} folded into what follows it")
    return graph.with_nodes(nodes.values(), *notes) if notes else graph


def _behind(graph: Graph, nodes: dict[str, Node], node: Node) -> Node | None:
    """Return the convolution before a scale with the scale in it, under the scale's name."""
    before, scale = nodes[node.inputs[0]], node.op
    if graph.uses[before.name] > 1 or not isinstance(scale, Scale):
        return None
    op = before.op
    if isinstance(op, Resize):
        return _behind_resize(op, before, node)
    if not isinstance(op, Conv | TransposedConv) or op.activation != LINEAR:
        return None
    folded = replace(
        op,
        kernel=_product(op.kernel, scale.scale),
        bias=_product(op.bias, scale.scale) + scale.shift,
        activation=scale.activation,
    )
    if isinstance(folded, Conv) and folded.residual is not None:
        folded = replace(folded, residual=_product(folded.residual, scale.scale))
    return Node(node.name, folded, before.inputs)


def _behind_resize(op: Resize, before: Node, node: Node) -> Node | None:
    """Return a nearest resizing that scales its sum; it does so for nothing."""
    scale = node.op
    assert isinstance(scale, Scale)
    if op.kind != "nearest" or op.activation != LINEAR or op.scale is not None:
        return None
    factor = None if op.residual is None else _product(op.residual, scale.scale)
    folded = replace(
        op,
        scale=scale.scale,
        shift=scale.shift,
        residual=factor,
        activation=scale.activation,
    )
    return Node(node.name, folded, before.inputs)


def _before(graph: Graph, nodes: dict[str, Node], node: Node) -> bool:
    """Fold a scale into the convolutions that take it, if all can; say whether it was done."""
    scale = node.op
    if not isinstance(scale, Scale) or scale.activation != LINEAR or node.name in graph.outputs:
        return False
    takers: list[Node] = []
    for taker in graph.consumers(node.name):
        through = graph.consumers(taker.name) if isinstance(taker.op, Pad) else [taker]
        if isinstance(taker.op, Pad) and taker.name in graph.outputs:
            return False
        is_padded = isinstance(taker.op, Pad)
        for conv in through:
            source = taker.name if is_padded else node.name
            if not _takes(conv, source, is_padded=is_padded, is_shifted=bool(scale.shift.any())):
                return False
            takers.append(conv)
    for conv in takers:
        nodes[conv.name] = replace(conv, op=_scaled_input(nodes[conv.name].op, scale))
    for taker in graph.consumers(node.name):
        inputs = tuple(node.inputs[0] if i == node.name else i for i in taker.inputs)
        nodes[taker.name] = replace(nodes[taker.name], inputs=inputs)
    return bool(takers)


def _takes(node: Node, source: str, *, is_padded: bool, is_shifted: bool) -> bool:
    """Whether a scale may move into a node's kernel: zeros stay zeros only without a shift."""
    op = node.op
    if not isinstance(op, Conv) or node.inputs.count(source) != 1 or node.inputs[0] != source:
        return False
    return not (is_shifted and (is_padded or op.padding != NO_MARGINS))


def _scaled_input(op: object, scale: Scale) -> Conv:
    assert isinstance(op, Conv)
    added = np.einsum("zyxio,i->o", op.kernel.astype(np.float64), scale.shift)
    return replace(
        op,
        kernel=_product(op.kernel, scale.scale[:, np.newaxis]),
        bias=(op.bias + added).astype(np.float32),
    )


def _product(values: Array, factors: Array) -> Array:
    return (values.astype(np.float64) * factors).astype(np.float32)
