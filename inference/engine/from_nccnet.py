"""Read NCCNet from its one description, `inference.nccnet.layers`."""

from __future__ import annotations

import numpy as np

from inference.engine.builder import Builder
from inference.engine.graph import Graph
from inference.engine.ops import Activation, Add, Correlate, Pool, Resize, Scale
from inference.model import Network
from inference.nccnet import check_sides, layers


def read(network: Network, sides_px: tuple[int, int]) -> Graph:
    """Return the graph of a trained network for images of sides (y, x)."""
    check_sides(sides_px, network.config)
    builder = Builder(is_flat=True)
    grey = builder.input("grey", (1, 1, *sides_px))
    output = layers(grey, network.config, _Reader(builder, network))[-1]
    return builder.graph([output])


def read_siamese(
    network: Network, search_px: tuple[int, int], template_px: tuple[int, int]
) -> Graph:
    """Return the graph from a search image and a template, of sides (y, x), to their correlogram.

    Both go through the one network.
    """
    builder = Builder(is_flat=True)
    features = []
    for name, sides_px in (("search", search_px), ("template", template_px)):
        check_sides(sides_px, network.config)
        grey = builder.input(name, (1, 1, *sides_px))
        features.append(layers(grey, network.config, _Reader(builder, network))[-1])
    return builder.graph([builder.add("ncc", Correlate(), *features)])


class _Reader:
    """Reads the description with names of nodes."""

    def __init__(self, builder: Builder, network: Network) -> None:
        self.builder = builder
        self.weights = network.weights

    def scale(self, x: str, zero: float, unit: float) -> str:
        scale, shift = (np.full(1, n, np.float32) for n in (1 / unit, -zero / unit))
        return self.builder.add("scaled", Scale(scale, shift), x)

    def conv(self, x: str, name: str, side_px: int, channels: int) -> str:
        return self.builder.conv(
            name,
            x,
            self.weights[f"{name}/kernel"][np.newaxis],
            self.weights[f"{name}/bias"],
            padding="same",  # of an even side the odd zero lies behind, as described
            activation=Activation("tanh"),
        )

    def pool(self, x: str) -> str:
        return self.builder.add("pool", Pool("max", (1, 2, 2), (1, 2, 2)), x)

    def enlarge(self, x: str) -> str:
        return self.builder.add("enlarge", Resize((1, 2, 2)), x)

    def add(self, x: str, y: str) -> str:
        return self.builder.add("add", Add(), x, y)
