"""Units that do nothing: what is left of a run is what the runner itself costs."""

from __future__ import annotations

from typing import NamedTuple

from alignment.stages.units import Phase, Record

STAGE = "masks"
"""The units pass as this stage's, so that their keys are made from a real stage's code."""


class Noop(NamedTuple):
    """A unit without work."""

    n: int

    @property
    def label(self) -> str:
        """Return the unit's name."""
        return f"n{self.n:07d}"


def do(unit: Noop, *, run_uri: str) -> Record:
    """Return a record as small as a stage's."""
    return {"n": unit.n, "bytes_written": 0}


def phase(units: int) -> Phase:
    """Return a phase of so many units; their keys depend on the settings of the masks."""
    return Phase("noop", [Noop(n) for n in range(units)], do, parameters=("masks",))
