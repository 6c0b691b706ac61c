"""OpenVINO, if it is installed: all others import it here."""

from __future__ import annotations

from typing import Any

from inference.errors import BackendError


def library(why: str) -> Any:
    """Return the module.

    Parameters
    ----------
    why : str
        What is to run by it, for the message if it is missing.
    """
    try:
        import openvino
    except ImportError as error:
        raise BackendError(
            f"{why} by OpenVINO, which is not installed: pip install openvino"
        ) from error
    return openvino


def compiled(openvino: Any, model: Any, threads: int) -> Any:
    """Return a model of OpenVINO, compiled in float32; 0 threads leaves it to the library."""
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # on some processors bfloat16 is the default
    }
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    return openvino.Core().compile_model(model, "CPU", settings)
