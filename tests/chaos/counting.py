"""Preloaded by Dask workers under test: notes every unit that one begins."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

STARTS = "starts.jsonl"


class Start(NamedTuple):
    """A worker began a unit."""

    at: float
    run_uri: str
    unit: str
    """Stage, phase and label."""


def dask_setup(_: object) -> None:
    """Note from now on what this worker begins; called by Dask."""
    from alignment.stages.work import Work

    original = Work.__call__
    path = Path(os.environ["CHAOS_FOLDER"]) / STARTS

    def noted(self: Work, unit: Any) -> Any:
        if not self.always:  # such units are done again by design
            start = Start(time.time(), self.run_uri, f"{self.stage}/{self.phase}/{unit.label}")
            with path.open("a") as lines:
                lines.write(json.dumps(start) + "\n")
        return original(self, unit)

    Work.__call__ = noted  # type: ignore[method-assign]


def read_starts(folder: Path) -> list[Start]:
    """Return what was begun so far; a line of a worker that was killed meanwhile is left out."""
    found = []
    path = folder / STARTS
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(Start(*json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found
