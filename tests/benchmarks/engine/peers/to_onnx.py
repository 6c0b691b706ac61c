"""A network as an ONNX file, of the plain operations that any exporter writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.engine.peers.exchange import Network, Node

OPSET = 17
ACTIVATIONS = {
    "relu": "Relu", "leaky": "LeakyRelu", "elu": "Elu", "tanh": "Tanh", "sigmoid": "Sigmoid",
    "softmax": "Softmax",
}  # fmt: skip


def write(network: Network) -> Path:
    """Write the file into the network's folder, unless it is there; return its path."""
    import onnx

    path = network.folder / "model.onnx"
    if not path.exists():
        model = _Writer(network).model()
        onnx.checker.check_model(model)
        beside = network.folder / f"model.{os.getpid()}.onnx"
        onnx.save(model, str(beside))
        beside.replace(path)
    return path


class _Writer:
    """Collects nodes and weights; every node's result is called like the node."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def model(self) -> Any:
        from onnx import TensorProto, helper

        for node in self.network.nodes:
            if node.kind != "Input":
                getattr(self, node.kind.lower())(node, node.fields)
        x, y = self.network.array("input"), self.network.array("expected")
        given = next(node.name for node in self.network.nodes if node.kind == "Input")
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info(given, TensorProto.FLOAT, x.shape)],
            [helper.make_tensor_value_info(self.network.outputs[0], TensorProto.FLOAT, y.shape)],
            self.weights,
        )
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=9)

    def put(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))

    def weight(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        from onnx import numpy_helper

        array = np.ascontiguousarray(values, dtype)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def ends(self, margins: Any) -> list[int]:
        """Return margins as ONNX has them: all before, then all behind."""
        sizes = self.network.sizes(margins)
        return [before for before, _ in sizes] + [after for _, after in sizes]

    def linear(self, node: Node, values: dict[str, Any]) -> list[str]:
        """Return the names of a convolution's inputs; a bias of zeros is left out."""
        order = "io" if node.kind == "TransposedConv" else "oi"
        kernel = self.network.kernel(values["kernel"], order)
        inputs = [node.inputs[0], self.weight(f"{node.name}:kernel", kernel)]
        if values["bias"].any():
            inputs.append(self.weight(f"{node.name}:bias", values["bias"]))
        return inputs

    # ------------------------------------------------------------------ one for each kind

    def conv(self, node: Node, values: dict[str, Any]) -> None:
        self.put(
            "Conv",
            self.linear(node, values),
            node.name,
            strides=self.network.sizes(values["stride"]),
            pads=self.ends(values["padding"]),
        )

    def transposedconv(self, node: Node, values: dict[str, Any]) -> None:
        self.put(
            "ConvTranspose",
            self.linear(node, values),
            node.name,
            strides=self.network.sizes(values["stride"]),
            pads=self.ends(values["crop"]),
        )

    def scale(self, node: Node, values: dict[str, Any]) -> None:
        zeros = np.zeros_like(values["scale"])
        inputs = [
            node.inputs[0],
            self.weight(f"{node.name}:scale", values["scale"]),
            self.weight(f"{node.name}:shift", values["shift"]),
            self.weight(f"{node.name}:mean", zeros),
            self.weight(f"{node.name}:variance", zeros + 1),
        ]
        self.put("BatchNormalization", inputs, node.name, epsilon=0.0)

    def activate(self, node: Node, values: dict[str, Any]) -> None:
        kind, alpha = values["activation"]
        more: dict[str, Any] = {"alpha": alpha} if kind in ("leaky", "elu") else {}
        more |= {"axis": 1} if kind == "softmax" else {}
        self.put(ACTIVATIONS[kind], node.inputs, node.name, **more)

    def add(self, node: Node, values: dict[str, Any]) -> None:
        self.put("Add", node.inputs, node.name)

    def concat(self, node: Node, values: dict[str, Any]) -> None:
        self.put("Concat", node.inputs, node.name, axis=1)

    def pool(self, node: Node, values: dict[str, Any]) -> None:
        self.put(
            "MaxPool" if values["kind"] == "max" else "AveragePool",
            node.inputs,
            node.name,
            kernel_shape=self.network.sizes(values["size"]),
            strides=self.network.sizes(values["stride"]),
            pads=self.ends(values["padding"]),
        )

    def resize(self, node: Node, values: dict[str, Any]) -> None:
        scales = self.weight(f"{node.name}:factor", [1, 1, *self.network.sizes(values["factor"])])
        kind = {"nearest": ("nearest", "asymmetric"), "linear": ("linear", "half_pixel")}
        mode, places = kind[values["kind"]]
        self.put(
            "Resize",
            [node.inputs[0], "", scales],
            node.name,
            mode=mode,
            coordinate_transformation_mode=places,
            nearest_mode="floor",
        )

    def crop(self, node: Node, values: dict[str, Any]) -> None:
        sizes = self.network.sizes(values["margins"])
        starts = [before for before, _ in sizes]
        stops = [-after or np.iinfo(np.int64).max for _, after in sizes]
        axes = range(2, 2 + len(sizes))
        inputs = [
            self.weight(f"{node.name}:{name}", numbers, np.int64)
            for name, numbers in (("starts", starts), ("stops", stops), ("axes", list(axes)))
        ]
        self.put("Slice", [node.inputs[0], *inputs], node.name)

    def pad(self, node: Node, values: dict[str, Any]) -> None:
        n = len(self.network.sizes([0, 0, 0]))
        ends = self.ends(values["margins"])
        whole = [0, 0, *ends[:n], 0, 0, *ends[n:]]
        pads = self.weight(f"{node.name}:pads", whole, np.int64)
        self.put("Pad", [node.inputs[0], pads], node.name)
