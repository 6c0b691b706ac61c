"""Runs of two kinds: those that align sections, and those that predict over an aligned volume."""

from __future__ import annotations

from alignment.stages.order import ORDER
from storage.errors import MissingError
from storage.store import join, read_json

ALIGNMENT, PREDICTION = "alignment", "prediction"
STAGES = {ALIGNMENT: ORDER, PREDICTION: ("predict",)}
"""The stages of a run of each kind that can be asked for, in order."""


def kind_of(run_uri: str) -> str:
    """Return which kind of run lies at `run_uri`; one that aligns says nothing of it."""
    try:
        return str(read_json(join(run_uri, "run.json")).get("kind", ALIGNMENT))
    except MissingError:
        return ALIGNMENT


def stages_of(run_uri: str) -> tuple[str, ...]:
    """Return the stages of a run, in order."""
    return STAGES.get(kind_of(run_uri), ORDER)
