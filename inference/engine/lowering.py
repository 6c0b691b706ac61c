"""From a graph to the steps that compute it: kernels are chosen, then places, then steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import singledispatchmethod

import numpy as np

from inference.engine import convolutions
from inference.engine.choices import Choice, Work, work_of
from inference.engine.graph import Graph, Node
from inference.engine.layout import Margin, Place, external, joined_places, own_place
from inference.engine.ops import (
    Activate,
    Activation,
    Add,
    Array,
    Concat,
    Conv,
    Crop,
    Input,
    Op,
    Pad,
    Pool,
    Resize,
    Scale,
    TransposedConv,
    linear_taps,
)
from inference.engine.packing import by_lane
from inference.engine.program import Somewhere, Step
from inference.native.structures import Kind

Choose = Callable[[Work], Choice]
_FEW = 4  # channels of an input that are kept apart, instead of filling a vector's lanes with zeros


@dataclass
class Lowered:
    """The steps of a graph, and how its convolutions are computed."""

    steps: list[Step]
    choices: dict[str, tuple[Work, Choice]]


def lower(graph: Graph, lanes: int, choose: Choose, *, threads: int = 1) -> Lowered:
    """Return the steps that compute a graph; the caller's arrays are its inputs, then its outputs.

    Parameters
    ----------
    lanes : int
        Floats of a vector.
    choose : callable
        Returns how a convolution is to be computed.
    threads : int
        How many share the work; results don't depend on it.
    """
    return Lowering(graph, lanes, choose, threads).lowered()


class Lowering:
    """The kernels of a graph are chosen, which is quick; `lowered` lays out weights for them."""

    def __init__(self, graph: Graph, lanes: int, choose: Choose, threads: int) -> None:
        self.graph, self.lanes, self.threads, self.choose = graph, lanes, threads, choose
        self.steps: list[Step] = []
        self.choices: dict[str, tuple[Work, Choice]] = {}
        self.places = self._places()
        self._choose_kernels()

    def lowered(self) -> Lowered:
        """Return the steps."""
        self._widen_margins()
        self._write_all()
        return Lowered(self.steps, self.choices)

    # ------------------------------------------------------------------ where results lie

    def _places(self) -> dict[str, Place]:
        found: dict[str, Place] = {}
        for node in self.graph.nodes:
            if isinstance(node.op, Concat) and node.op.in_place:
                shapes = [self.graph.shapes[name] for name in node.inputs]
                whole, parts = joined_places(node.name, shapes, self.lanes)
                found |= {node.name: whole, **dict(zip(node.inputs, parts, strict=True))}
        for node in self.graph.nodes:
            lanes = 1 if self._is_plain(node) else self.lanes
            found.setdefault(node.name, own_place(node.name, self.graph.shapes[node.name], lanes))
        return found

    def _is_plain(self, node: Node) -> bool:
        """Whether a result's channels lie apart: inputs of few channels, for convolutions."""
        readers = self.graph.consumers(node.name)
        return (
            isinstance(node.op, Input)
            and node.op.size[0] <= _FEW
            and node.name not in self.graph.outputs
            and all(isinstance(r.op, Conv) and node.name not in r.inputs[1:] for r in readers)
        )

    def _choose_kernels(self) -> None:
        """Choose how each convolution is computed."""
        for node in self.graph.nodes:
            if isinstance(node.op, Conv):
                place = self.places[node.inputs[0]]
                is_plain = place.buffer.lanes != self.lanes
                shape = self.graph.shapes[node.name]
                work = work_of(node.op, shape, self.lanes, place.channels, is_plain=is_plain)
                self.choices[node.name] = (work, self.choose(work))

    def _widen_margins(self) -> None:
        """Give every buffer the zeros that its readers expect around it."""
        for node in self.graph.nodes:
            margin: Margin | None = None
            if isinstance(node.op, Conv):
                sizes = self.graph.shapes[node.inputs[0]], self.graph.shapes[node.name]
                margin = convolutions.margin(node.op, *sizes, self.choices[node.name][1])
            elif isinstance(node.op, TransposedConv):
                sizes = self.graph.shapes[node.inputs[0]], self.graph.shapes[node.name]
                margin = convolutions.transposed_margin(node.op, *sizes)
            if margin:
                self.places[node.inputs[0]].buffer.margin.widen(margin)

    # ------------------------------------------------------------------ steps

    def _write_all(self) -> None:
        """Write the steps of all nodes, and of what the caller gets."""
        first = len(self.graph.inputs)
        direct = self._written_directly()
        for node in self.graph.nodes:
            self._write(node.op, node, direct.get(node.name, self.places[node.name]))
        for n, name in enumerate(self.graph.outputs):
            if name not in direct:
                target = external(self.graph.shapes[name], first + n)
                self.steps.append(
                    Step(Kind.WRITE, f"{name} to the caller", target, self.places[name])
                )

    def _written_directly(self) -> Mapping[str, Somewhere]:
        """Return results that their convolution writes into the caller's array."""
        first = len(self.graph.inputs)
        return {
            name: external(self.graph.shapes[name], first + n)
            for n, name in enumerate(self.graph.outputs)
            if self.graph.uses[name] == 1
            and name in self.choices
            and self.choices[name][1].kernel == "direct"
        }

    def _inputs(self, node: Node) -> list[Place]:
        return [self.places[name] for name in node.inputs]

    @singledispatchmethod
    def _write(self, op: Op, node: Node, out: Somewhere) -> None:
        raise NotImplementedError(f"{type(op).__name__} has no kernel")

    @_write.register
    def _(self, op: Input, node: Node, out: Place) -> None:
        index = [other.name for other in self.graph.inputs].index(node.name)
        given = external(op.size, index)
        self.steps.append(Step(Kind.READ, f"{node.name} from the caller", out, given))

    @_write.register
    def _(self, op: Conv, node: Node, out: Somewhere) -> None:
        inputs = self._inputs(node)
        work, choice = self.choices[node.name]
        residual = inputs[1] if op.residual is not None else None
        step = convolutions.step(
            node.name, op, inputs[0], out, residual, work, choice, threads=self.threads
        )
        self.steps.append(step)

    @_write.register
    def _(self, op: TransposedConv, node: Node, out: Place) -> None:
        given = self._inputs(node)[0]
        self.steps += convolutions.transposed_steps(node.name, op, given, out, self.choose)

    @_write.register
    def _(self, op: Scale, node: Node, out: Place) -> None:
        arrays = {"weights": self._vector(op.scale, out), "bias": self._vector(op.shift, out)}
        self._map(node, out, op.activation, arrays=arrays, words="scaled")

    @_write.register
    def _(self, op: Activate, node: Node, out: Place) -> None:
        if op.activation.is_pointwise:
            self._map(node, out, op.activation, words=op.activation.kind)
        else:
            given = self._inputs(node)[0]
            self.steps.append(Step(Kind.SOFTMAX, f"{node.name}: softmax", out, given))

    @_write.register
    def _(self, op: Add, node: Node, out: Place) -> None:
        ones = np.ones(self.graph.shapes[node.name][0], np.float32)
        self._map(node, out, op.activation, residual=ones, words="added")

    @_write.register
    def _(self, op: Resize, node: Node, out: Place) -> None:
        if op.kind == "nearest":
            words = f"enlarged {op.factor}"
            arrays = {}
            if op.scale is not None and op.shift is not None:
                arrays = {"weights": self._vector(op.scale, out)}
                arrays["bias"] = self._vector(op.shift, out)
            self._map(
                node, out, op.activation, op.residual, factor=op.factor, arrays=arrays, words=words
            )
            return
        given = self._inputs(node)[0]
        taps = [linear_taps(n, f) for n, f in zip(given.size, op.factor, strict=True)]
        tables = {
            "index": np.concatenate([[*low, *high] for low, high, _ in taps]).astype(np.int32),
            "weights": np.concatenate([part for *_, part in taps]).astype(np.float32),
        }
        step = Step(
            Kind.LINEAR_RESIZE,
            f"{node.name}: enlarged {op.factor} linearly",
            out,
            given,
            activation=op.activation,
            arrays=tables,
        )
        self.steps.append(step)

    def _map(
        self,
        node: Node,
        out: Place,
        activation: Activation,
        residual: Array | None = None,
        *,
        factor: tuple[int, int, int] = (1, 1, 1),
        arrays: Mapping[str, Array] | None = None,
        words: str,
    ) -> None:
        inputs = self._inputs(node)
        more = {} if residual is None else {"factor": self._vector(residual, out)}
        step = Step(
            Kind.MAP,
            f"{node.name}: {words}",
            out,
            inputs[0],
            inputs[1] if residual is not None else None,
            activation,
            {"sides": factor},
            {**(arrays or {}), **more},
        )
        self.steps.append(step)

    def _vector(self, values: Array, place: Place) -> Array:
        return by_lane(values, place.positions, -(-place.channels // self.lanes) * self.lanes)

    @_write.register
    def _(self, op: Pool, node: Node, out: Place) -> None:
        kind = Kind.MAX_POOL if op.kind == "max" else Kind.AVERAGE_POOL
        z, y, x = (before for before, _ in op.padding)
        numbers = {"sides": op.size, "stride": op.stride, "before": (z, y, x)}
        given = self._inputs(node)[0]
        self.steps.append(
            Step(kind, f"{node.name}: {op.kind} of {op.size}", out, given, numbers=numbers)
        )

    @_write.register
    def _(self, op: Concat, node: Node, out: Place) -> None:
        if op.in_place:
            return
        channel = 0
        for name in node.inputs:
            self._copy(f"{name} into {node.name}", self.places[name], out, channel)
            channel += self.graph.shapes[name][0]

    @_write.register
    def _(self, op: Crop, node: Node, out: Place) -> None:
        z, y, x = (before for before, _ in op.margins)
        given = self._inputs(node)[0]
        self._copy(f"{node.name}: cut", given.part((z, y, x), out.size), out)

    @_write.register
    def _(self, op: Pad, node: Node, out: Place) -> None:
        z, y, x = (before for before, _ in op.margins)
        given = self._inputs(node)[0]
        self.steps.append(Step(Kind.ZERO_ALL, f"{node.name}: zeros", out))
        self._copy(f"{node.name}: inside", given, out.part((z, y, x), given.size))

    def _copy(self, label: str, given: Place, out: Place, channel: int = 0) -> None:
        self.steps.append(Step(Kind.COPY, label, out, given, numbers={"channel": channel}))
