"""A network as a graph of few operations; passes map one to another, kernels compute it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from inference.engine.ops import Input, Op, Shape
from inference.errors import ShapeError


@dataclass(frozen=True, eq=False)
class Node:
    """One operation, and the names of the nodes whose results it takes."""

    name: str
    op: Op
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes, each after those that it depends on.

    Raises
    ------
    ShapeError
        If an operation doesn't take what its inputs make; the node is named.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """What passes did to it, in words."""
    is_flat: bool = False
    """Whether the network is one of images (y, x, channel), without z."""

    def __post_init__(self) -> None:
        """Infer all shapes."""
        _ = self.shapes

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """The shape of every node's result."""
        found: dict[str, Shape] = {}
        for node in self.nodes:
            inputs = [found[name] for name in node.inputs]
            try:
                shape = node.op.shape(*inputs)
            except ShapeError as error:
                raise ShapeError(f"layer {node.name!r} cannot take {inputs}: {error}") from error
            if min(shape) < 1:
                raise ShapeError(
                    f"layer {node.name!r} makes {shape} (channels, z, y, x) of {inputs}: "
                    "nothing is left; give the network a larger input"
                )
            found[node.name] = shape
        return found

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        """Nodes by their names."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def uses(self) -> Mapping[str, int]:
        """How often a result is used, as an output too."""
        counts = Counter(name for node in self.nodes for name in node.inputs)
        counts.update(self.outputs)
        return counts

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The nodes that the caller gives, in order."""
        return tuple(node for node in self.nodes if isinstance(node.op, Input))

    def consumers(self, name: str) -> list[Node]:
        """Return the nodes that take a result."""
        return [node for node in self.nodes if name in node.inputs]

    def with_nodes(self, nodes: Iterable[Node], *notes: str) -> Graph:
        """Return a graph of other nodes, in a valid order, without those that nobody needs."""
        named = {node.name: node for node in nodes}
        ordered: dict[str, Node] = {node.name: node for node in self.inputs}
        waiting = [(name, False) for name in reversed(self.outputs)]
        while waiting:
            name, is_ready = waiting.pop()
            if name in ordered:
                continue
            if is_ready:
                ordered[name] = named[name]
                continue
            waiting.append((name, True))
            waiting += [(other, False) for other in reversed(named[name].inputs)]
        return replace(self, nodes=tuple(ordered.values()), notes=(*self.notes, *notes))
