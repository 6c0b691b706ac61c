"""A network in a folder: its graph as JSON, its weights, an input, and what Keras makes of it.

Peers live in an environment without petalign, and on Python 3.11 too: all that they know of a
network is in here. Arrays are channels first, (n, channels, z, y, x), as peers take them; kernels
are (z, y, x, channels in, channels out).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Node:
    """One operation: its kind is the name of a class in `inference.engine.ops`."""

    name: str
    kind: str
    inputs: list[str]
    fields: dict[str, Any]
    """Fields of that class; triples and margins are lists, an activation is [kind, alpha]."""


@dataclass(frozen=True)
class Network:
    """What a folder holds."""

    key: str
    nodes: list[Node]
    outputs: list[str]
    is_flat: bool
    """Whether it is one of images: then z is 1 everywhere."""
    folder: Path

    def array(self, name: str) -> np.ndarray:
        """Return "input" or "expected" as (n, channels, [z,] y, x)."""
        found = np.load(self.folder / f"{name}.npy")
        return np.ascontiguousarray(found[:, :, 0] if self.is_flat else found)

    def users(self, name: str) -> list[Node]:
        """Return the nodes that take a result."""
        return [node for node in self.nodes if name in node.inputs]

    def sizes(self, values: list[Any]) -> list[Any]:
        """Return what is given for (z, y, x), without z for networks of images."""
        return list(values[1:]) if self.is_flat else list(values)

    def kernel(self, kernel: np.ndarray, order: str) -> np.ndarray:
        """Return a kernel as (out, in, [z,] y, x), or "io" as (in, out, [z,] y, x)."""
        moved = kernel.transpose((4, 3, 0, 1, 2) if order == "oi" else (3, 4, 0, 1, 2))
        return np.ascontiguousarray(moved[:, :, 0] if self.is_flat else moved)


def load(folder: Path) -> Network:
    """Read a network."""
    read = json.loads((folder / "graph.json").read_text(encoding="utf-8"))
    arrays = np.load(folder / "weights.npz")
    nodes = []
    for node in read["nodes"]:
        fields = dict(node["fields"])
        for name in node["arrays"]:
            fields[name] = arrays[f"{node['name']}:{name}"]
        nodes.append(Node(node["name"], node["kind"], node["inputs"], fields))
    return Network(read["key"], nodes, read["outputs"], read["is_flat"], folder)
