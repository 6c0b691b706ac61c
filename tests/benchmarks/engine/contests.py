"""What runs a network: TensorFlow, OpenVINO if it is installed, and the engine, all in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from inference.backends import by_keras
from inference.config import NCCNetConfig
from inference.engine import compile
from inference.engine.engine import Engine
from inference.engine.ops import Conv
from inference.keras_on_tensorflow import tf
from tests.engine_networks import drawn, rsunet, unet_2d

Run = Callable[[], Any]


@dataclass(frozen=True)
class Network:
    """A network and the batch that it is timed with."""

    title: str
    build: Callable[[], Any]
    batch: tuple[int, ...]


NETWORKS = {
    "A": Network("A: RSUNet 28-36-48-64-80, 3D", rsunet, (1, 18, 192, 192, 1)),
    "B": Network(
        "B: NCCNet 8-16-32-64",
        lambda: drawn(by_keras.build(NCCNetConfig(widths=(8, 16, 32, 64), grey_unit=1.0))),
        (8, 512, 512, 1),
    ),
    "C": Network("C: U-Net 64 to 1024", lambda: unet_2d((512, 512, 1)), (1, 512, 512, 1)),
}


@dataclass(frozen=True)
class Entry:
    """A network with all that run it."""

    network: Network
    engine: Engine
    ways: dict[str, Run]
    errors: dict[str, float]
    """Largest difference to TensorFlow."""


def enter(network: Network, threads: int) -> Entry:
    """Compile a network by all; check that they compute the same."""
    model = network.build()
    shape = network.batch[1:]
    x = np.random.default_rng(0).uniform(-1, 1, network.batch).astype(np.float32)
    engine = compile(model, shape, threads=threads)
    traced = tf.function(lambda images: model(images, training=False))
    given = tf.constant(x)
    ways: dict[str, Run] = {"engine": lambda: engine(x)}
    if find_spec("openvino"):
        ways["OpenVINO"] = _openvino(model, traced, x, threads)
    ways["TensorFlow"] = lambda: np.asarray(traced(given))
    expected = ways["TensorFlow"]()
    errors = {name: float(abs(run() - expected).max()) for name, run in ways.items()}
    if max(errors.values()) > 1e-3:
        raise ValueError(f"{network.title}: outputs differ by {errors}")
    return Entry(network, engine, ways, errors)


def _openvino(model: Any, traced: Any, x: np.ndarray, threads: int) -> Run:
    import openvino

    concrete = traced.get_concrete_function(tf.TensorSpec(x.shape, tf.float32))
    converted = openvino.convert_model(concrete)
    converted.reshape(x.shape)
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
    }
    request = openvino.Core().compile_model(converted, "CPU", settings).create_infer_request()
    return lambda: np.array(request.infer({0: x})[0])


def gflop(entry: Entry) -> float:
    """Return the multiplications and additions of all convolutions, 1e9, as a direct sum has."""
    graph = entry.engine.graph
    total = 0.0
    for node in graph.nodes:
        kernel = getattr(node.op, "kernel", None)
        if kernel is not None:  # of a transposed one, every input voxel adds a kernel
            of = node.name if isinstance(node.op, Conv) else node.inputs[0]
            total += 2.0 * kernel.size * np.prod(graph.shapes[of][1:])
    return float(total * entry.network.batch[0] / 1e9)
