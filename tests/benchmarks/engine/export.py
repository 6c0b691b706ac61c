"""Write a network for peers: ``python -m tests.benchmarks.engine.export NETWORK FOLDER``.

A process of its own, because what TensorFlow takes for the expected output it doesn't give back.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from inference.engine import from_keras, ops, passes
from inference.engine.graph import Graph, Node
from tests.benchmarks.engine.networks import find
from tests.benchmarks.engine.peers import exchange


def write(key: str, folder: Path) -> None:
    """Build a network and write all that peers need; the marker "done" comes last."""
    network = find(key)
    model = network.build()
    graph = with_padding(from_keras.read(model, network.batch[1:]))
    write_graph(key, graph, folder)
    x = np.random.default_rng(0).uniform(-1, 1, network.batch).astype(np.float32)
    np.save(folder / "input.npy", _channels_first(x))
    expected = np.asarray(model.predict_on_batch(x), np.float32)
    np.save(folder / "expected.npy", _channels_first(expected))
    (folder / "done").touch()


def with_padding(graph: Graph) -> Graph:
    """Return the graph with convolutions that pad, as one writes them in any library."""
    return passes.apply(graph, {"pad"})


def write_graph(key: str, graph: Graph, folder: Path) -> None:
    """Write graph and weights."""
    arrays: dict[str, Any] = {}
    nodes = [_node(node, arrays) for node in graph.nodes]
    read = {"key": key, "nodes": nodes, "outputs": graph.outputs, "is_flat": graph.is_flat}
    (folder / "graph.json").write_text(json.dumps(read), encoding="utf-8")
    np.savez(folder / "weights.npz", **arrays)


def read_graph(network: exchange.Network) -> Graph:
    """Return the graph of the engine that was written."""
    nodes = [_read(node) for node in network.nodes]
    return Graph(tuple(nodes), tuple(network.outputs), is_flat=network.is_flat)


def _node(node: Node, arrays: dict[str, Any]) -> dict[str, Any]:
    plain, names = {}, []
    for field in fields(node.op):
        value = getattr(node.op, field.name)
        if isinstance(value, np.ndarray):
            arrays[f"{node.name}:{field.name}"] = value
            names.append(field.name)
        elif isinstance(value, ops.Activation):
            plain[field.name] = [value.kind, value.alpha]
        else:
            plain[field.name] = value
    kind = type(node.op).__name__
    return {
        "name": node.name, "kind": kind, "inputs": node.inputs, "fields": plain, "arrays": names
    }  # fmt: skip


def _read(node: exchange.Node) -> Node:
    values = {name: _tuples(value) for name, value in node.fields.items()}
    if "activation" in values:
        values["activation"] = ops.Activation(*values["activation"])
    return Node(node.name, getattr(ops, node.kind)(**values), tuple(node.inputs))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value


def _channels_first(x: np.ndarray) -> np.ndarray:
    """Return (n, channels, z, y, x) of (n, [z,] y, x, channels)."""
    x = x[:, np.newaxis] if x.ndim == 4 else x
    return np.ascontiguousarray(x.transpose(0, 4, 1, 2, 3))


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]))
