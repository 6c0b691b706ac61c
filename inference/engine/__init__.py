"""The fused engine for CPUs: a network compiled once for one size of input, and run often.

>>> import numpy as np
>>> from inference.engine.builder import Builder
>>> from inference.engine.ops import Activate, Activation
>>> builder = Builder(is_flat=True)
>>> x = builder.input("grey", (1, 1, 2, 3))  # channels, z, y, x
>>> graph = builder.graph([builder.add("positive", Activate(Activation("relu")), x)])
>>> engine = compile(graph)
>>> engine(np.array([-1, 2, -3, 4, 5, 6], np.float32).reshape(1, 2, 3, 1)).ravel()
array([0., 2., 0., 4., 5., 6.], dtype=float32)
"""

from inference.engine.engine import Engine, Settings, compile
from inference.engine.graph import Graph

__all__ = ["Engine", "Graph", "Settings", "compile"]
