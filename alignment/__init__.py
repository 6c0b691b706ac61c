"""Align serial sections: pure functions of arrays, stages around them, one runner.

The names below are loaded when they are first used, so that reading a configuration (as Airflow
does while it parses a DAG file) does not import numpy, OpenCV and Dask.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "PipelineConfig": "alignment.config",
    "chunk_correlation": "alignment.qc",
    "estimate_pair": "alignment.coarse",
    "estimate_valid": "alignment.masks",
    "match_block": "alignment.match",
    "prepare": "alignment.runs",
    "reject_outliers": "alignment.filter",
    "relax_stack": "alignment.relax",
    "solve_stack": "alignment.coarse",
    "warp": "alignment.render",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Load a public function from the module that owns it."""
    if name not in _HOME:
        raise AttributeError(f"module 'alignment' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
