"""The stages of a run in order, and the one way to run them.

Each module names its phases: a phase is a list of units and a function that reads a unit's inputs
from storage, calls a pure function of `alignment`, and writes one array.
"""

from alignment.stages.order import ORDER
from alignment.stages.runner import StageFailed, run, run_stage

__all__ = ["ORDER", "StageFailed", "run", "run_stage"]
