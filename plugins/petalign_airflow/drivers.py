"""A stage's driver as Airflow sees it: a task on the Dask scheduler and a state in the ledger."""

from __future__ import annotations

from alignment.driving.slabs import ALL, state_name
from storage import ledger

DRIVER = "alignment.stages:run"
PREDICT_DRIVER = "alignment.predicting.driver:run"
SLAB_DRIVER = "alignment.driving.slabdriver:run_slab"
"""Called on the cluster with the stage, the run's URI and, for one of its slabs, the slab; that of
a prediction with the run's URI alone. They keep the state in the ledger."""

PREDICT = "predict"
"""The stage of a prediction, which is a run of its own kind."""


def driver_call(run_uri: str, stage: str, sections: str) -> tuple[str, ...]:
    """Return what drives a stage, or one slab of it, and its arguments."""
    if stage == PREDICT:
        return PREDICT_DRIVER, run_uri
    if sections == ALL:
        return DRIVER, stage, run_uri
    return SLAB_DRIVER, stage, run_uri, sections


def driver_name(run_uri: str, state: str) -> str:
    """Return the name of a driver on the scheduler, the same for every attempt.

    :param state: under which the ledger knows it: a stage, or a slab of one
    """
    return f"{run_uri}/{state}"


def claim_driver(run_uri: str, stage: str, sections: str, *, silent_after_s: float) -> bool:
    """Return True if the caller, and nobody else, may start a driver now.

    A slab that is done is claimed again as long as nobody is to finish its stage, as when a run was
    repaired: whichever slab comes last will.
    """
    name = state_name(stage, sections)
    if name == stage:
        return ledger.claim(run_uri, stage, silent_after_s=silent_after_s)
    whole = ledger.read_state(run_uri, stage).status
    if whole == "done":
        return False
    return ledger.claim(run_uri, name, silent_after_s=silent_after_s, redo=whole != "running")


def read_driver(run_uri: str, name: str) -> ledger.StageState:
    """Return the state of a stage, or of a slab, which is done when its stage is."""
    state = ledger.read_state(run_uri, name)
    stage = ledger.stage_of(name)
    if not state.is_settled and stage != name:
        whole = ledger.read_state(run_uri, stage)
        if whole.status == "done":
            return whole
    return state


def stop_driver(run_uri: str, name: str, reason: str) -> None:
    """Settle what is under way as failed; with a slab its stage, if its driver is finishing it."""
    ledger.stop(run_uri, name, reason)
    stage = ledger.stage_of(name)
    if stage != name and ledger.read_state(run_uri, stage).finisher == name:
        ledger.stop(run_uri, stage, reason)
