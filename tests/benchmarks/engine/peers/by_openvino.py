"""OpenVINO, from the network as an ONNX file: in float32, or quantised to int8 by NNCF."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.benchmarks.engine.peers import to_onnx
from tests.benchmarks.engine.peers.exchange import Network


def prepare(network: Network, variant: str, threads: int) -> tuple[str, Callable[[], Any], Any]:
    """Compile the network; `variant` is "float32" or "int8"."""
    import numpy as np
    import openvino

    if variant not in ("float32", "int8"):
        raise ValueError(f"OpenVINO is run in float32 or int8, not {variant!r}")
    core = openvino.Core()
    model = core.read_model(str(to_onnx.write(network)))
    x = network.array("input")
    if variant == "int8":
        model = _quantised(model, x)
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x, shared_memory=True))

    def compute() -> Any:
        request.infer()
        return request.get_output_tensor(0).data

    compute.given = x  # type: ignore[attr-defined]  # the request holds its memory, not the array

    return openvino.__version__.split("-")[0], compute, np.array


def _quantised(model: Any, x: Any) -> Any:
    """Quantise after training, calibrated by the very input that is timed."""
    import nncf

    return nncf.quantize(model, nncf.Dataset([x]), subset_size=1)
