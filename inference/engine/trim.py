"""Compute of a network's output only the inside, and of its last layers only what that needs.

Who crops the margins of overlapping patches throws away two thirds of what the last layers compute.
Backwards through the graph it is found how much of each result nobody needs. Where an image is
enlarged, that is cut off before, and then from whatever meets it; layers in between stay as they
are. Their zeros now lie inside the image, but what they spoil is not needed.

Cuts are whole tiles of the kernels, which lie as before: results differ by rounding at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from inference.engine.graph import Graph, Node
from inference.engine.ops import (
    NO_MARGINS,
    ONES,
    Activate,
    Add,
    Concat,
    Conv,
    Crop,
    Margins,
    Op,
    Pad,
    Resize,
    Scale,
    TransposedConv,
    Triple,
)

_TILE: Triple = (1, 4, 4)
"""What is cut off before an image is enlarged is a multiple of this."""


def trimmed(graph: Graph, margins: Triple) -> Graph:
    """Return a graph, before any pass, that gives its one output without margins at either side."""
    if not any(margins):
        return graph
    (output,) = graph.outputs
    z, y, x = ((m, m) for m in margins)
    cutting = _Cutting(_spare(graph, output, (z, y, x)), _tail(graph, output), (z, y, x))
    for node in graph.nodes:
        cutting.write(node)
    last = cutting.cut(output, (z, y, x))
    note = f"{output} is computed without {margins} at either side, as far back as that saves"
    return replace(graph, outputs=(last,)).with_nodes(cutting.nodes.values(), note)


def _spare(graph: Graph, output: str, margins: Margins) -> dict[str, Margins]:
    """Return how much of each result is not needed for the inside of the output."""
    found = {output: margins}
    for node in reversed(graph.nodes):
        for name in node.inputs if node.name in found else ():
            spare = _spare_of_input(node.op, found[node.name])
            found[name] = _by_side(min, found[name], spare) if name in found else spare
    return found


def _spare_of_input(op: Op, spare: Margins) -> Margins:
    """Return how much of its input an operation does not need, if so much of its result is not."""
    if isinstance(op, Pad):
        return _by_side(lambda s, m: max(s - m, 0), spare, op.margins)
    if factor := _enlarges_by(op):
        return _by_side(lambda s, f: s // f, spare, _alike(factor))
    return spare if _keeps_place(op) else NO_MARGINS


def _keeps_place(op: Op) -> bool:
    """Whether what is cut off an operation's inputs is then missing of its result, and no more."""
    if isinstance(op, Conv):
        # Without zeros around it a result is smaller, and what it lacks is counted from its border.
        return op.stride == ONES and op.padding == NO_MARGINS
    return isinstance(op, Activate | Scale | Add | Concat | Pad)


def _enlarges_by(op: Op) -> Triple | None:
    """Return the factor of an operation that makes a block of each voxel, by itself."""
    if isinstance(op, Resize) and op.kind == "nearest":
        return op.factor
    if isinstance(op, TransposedConv) and op.crop == NO_MARGINS:
        return op.stride if op.kernel.shape[:3] == op.stride else None
    return None


def _tail(graph: Graph, output: str) -> frozenset[str]:
    """Return the last 1 x 1 convolutions and what follows: they see no more than is given away.

    What stands before them is applied by convolutions of other sizes as they write.
    """
    found: list[str] = []
    tail: list[str] = []
    name = output
    while graph.uses[name] == 1:
        node = graph.by_name[name]
        is_conv = isinstance(node.op, Conv) and node.op.kernel.shape[:3] == ONES
        if not _keeps_place(node.op) or not (is_conv or isinstance(node.op, Activate | Scale)):
            break
        found.append(name)
        tail = [*found] if is_conv else tail
        (name,) = node.inputs
    return frozenset(tail)


@dataclass
class _Cutting:
    """Writes the nodes again, for images of which parts are cut off."""

    spare: dict[str, Margins]
    tail: frozenset[str]
    margins: Margins
    nodes: dict[str, Node] = field(default_factory=dict)
    missing: dict[str, Margins] = field(default_factory=dict)
    """What is cut off each result; never more than is to spare."""

    def write(self, node: Node) -> None:
        """Write a node; all its inputs are cut alike."""
        if node.name not in self.spare:
            return
        factor = _enlarges_by(node.op)
        wanted = self.margins if node.name in self.tail else NO_MARGINS
        if factor:
            wanted = _by_side(lambda s, t: s // t * t, self.spare[node.inputs[0]], _alike(_TILE))
        for name in node.inputs:
            wanted = _by_side(max, wanted, self.missing[name])
        inputs = tuple(self.cut(name, wanted) for name in node.inputs)
        self.nodes[node.name] = replace(node, inputs=inputs)
        self.missing[node.name] = (
            _by_side(lambda n, f: n * f, wanted, _alike(factor)) if factor else wanted
        )

    def cut(self, name: str, wanted: Margins) -> str:
        """Return the name of a result of which so much is missing."""
        margins = _by_side(lambda a, b: a - b, wanted, self.missing[name])
        if margins == NO_MARGINS:
            return name
        inside = f"{name}/inside {wanted}"
        self.nodes[inside] = Node(inside, Crop(margins), (name,))
        self.missing[inside] = wanted
        return inside


def _alike(numbers: Triple) -> Margins:
    z, y, x = ((n, n) for n in numbers)
    return z, y, x


def _by_side(rule: Callable[[int, int], int], a: Margins, b: Margins) -> Margins:
    """Apply a rule to what two margins say of each side of each axis."""
    z, y, x = ((rule(c[0], d[0]), rule(c[1], d[1])) for c, d in zip(a, b, strict=True))
    return z, y, x
