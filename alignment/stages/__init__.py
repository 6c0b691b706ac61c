"""The stages of a run in order, and the one way to run them.

Each module names its phases: a phase is a list of units and a function that reads a unit's inputs
from storage, calls a pure function of `alignment`, and writes one array.
"""

from importlib import import_module
from typing import Any

from alignment.stages.order import ORDER

__all__ = ["ORDER", "run", "run_stage"]


def __getattr__(name: str) -> Any:
    """Load the runner, and Dask with it, for who runs a stage; names alone cost nothing."""
    if name not in ("run", "run_stage"):
        raise AttributeError(f"module 'alignment.stages' has no attribute {name!r}")
    return getattr(import_module("alignment.stages.runner"), name)
