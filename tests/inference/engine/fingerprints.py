"""What a graph is, in a word: two are the same if every node, setting and weight is."""

from __future__ import annotations

import hashlib
from dataclasses import fields

import numpy as np


def fingerprint(graph):
    """Return a digest of a graph."""
    digest = hashlib.sha256(repr((graph.outputs, graph.is_flat)).encode())
    for node in graph.nodes:
        digest.update(repr((node.name, type(node.op).__name__, node.inputs)).encode())
        for field in fields(node.op):
            value = getattr(node.op, field.name)
            if isinstance(value, np.ndarray):
                digest.update(repr((value.shape, value.dtype)).encode() + value.tobytes())
            else:
                digest.update(repr(value).encode())
    return digest.hexdigest()
