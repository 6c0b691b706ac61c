"""ONNX Runtime, from the network as an ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.benchmarks.engine.peers import to_onnx
from tests.benchmarks.engine.peers.exchange import Network


def prepare(network: Network, variant: str, threads: int) -> tuple[str, Callable[[], Any], Any]:
    """Open a session with all of its optimisations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Idle threads would otherwise spin on while the next contestant has its turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(
        str(to_onnx.write(network)), options, providers=["CPUExecutionProvider"]
    )
    given = {session.get_inputs()[0].name: network.array("input")}
    return onnxruntime.__version__, lambda: session.run(None, given), lambda made: made[0]
