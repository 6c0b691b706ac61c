"""NCCNet in OpenVINO: runs a network without TensorFlow, on every CPU that the library knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.backends import openvino_runtime
from inference.model import Network, Predict
from inference.nccnet import check_sides, layers

Node = Any


def predictor(network: Network, *, threads: int = 0) -> Predict:
    """Return the function of images (y, x) to features (y, x, channels).

    Parameters
    ----------
    threads : int
        Threads that compute one image; 0 leaves it to the library. Threads may share the function.

    Raises
    ------
    BackendError
        If OpenVINO is not installed.
    """
    openvino = openvino_runtime.library("this network is to run")
    opset = openvino.opset11
    grey = opset.parameter([1, 1, -1, -1], np.float32, name="grey")
    features = layers(grey, network.config, _OpenVINO(opset, network.weights))[-1]
    model = openvino.Model([features], [grey])
    compiled = openvino_runtime.compiled(openvino, model, threads)

    def predict(image: NDArray[np.float32]) -> NDArray[np.float32]:
        check_sides((image.shape[0], image.shape[1]), network.config)
        request = compiled.create_infer_request()  # one is not for two threads
        found = request.infer({0: np.ascontiguousarray(image[np.newaxis, np.newaxis])})
        return np.moveaxis(np.array(found[0][0], np.float32), 0, -1)

    return predict


class _OpenVINO:
    """Reads the description of a network with nodes of OpenVINO, (b, c, y, x)."""

    def __init__(self, opset: Any, weights: Mapping[str, NDArray[np.float32]]) -> None:
        self.opset = opset
        self.weights = weights

    def scale(self, x: Node, zero: float, unit: float) -> Node:
        shifted = self.opset.subtract(x, np.float32(zero))
        return self.opset.multiply(shifted, np.float32(1 / unit))

    def conv(self, x: Node, name: str, side_px: int, channels: int) -> Node:
        kernel = np.ascontiguousarray(self.weights[f"{name}/kernel"].transpose(3, 2, 0, 1))
        before, after = (side_px - 1) // 2, side_px // 2
        sums = self.opset.convolution(x, kernel, [1, 1], [before] * 2, [after] * 2, [1, 1])
        bias = self.weights[f"{name}/bias"].reshape(1, -1, 1, 1)
        return self.opset.tanh(self.opset.add(sums, bias))

    def pool(self, x: Node) -> Node:
        return self.opset.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)

    def enlarge(self, x: Node) -> Node:
        return self.opset.interpolate(
            x,
            np.array([2, 2], np.float32),
            "nearest",
            "scales",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
            axes=np.array([2, 3]),
        )

    def add(self, x: Node, y: Node) -> Node:
        return self.opset.add(x, y)
