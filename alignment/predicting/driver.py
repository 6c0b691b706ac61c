"""Drive a prediction: its units, its seal, and then the pointer of its volume."""

from __future__ import annotations

from collections.abc import Callable

from alignment.blockwise import Client, driver_client
from alignment.driving.progress import Progress, driving
from alignment.errors import StageFailed
from alignment.predicting.runs import STAGE, load
from alignment.stages.runner import do_stage
from storage import ledger
from storage.publish import publish


def run(run_uri: str) -> int:
    """Drive a prediction from inside a Dask worker; return the number of its finished units.

    It never raises for one that failed: the ledger says so. See `alignment.stages.runner.run`.
    """
    with driver_client() as client:
        try:
            return run_prediction(run_uri, client)
        except StageFailed:
            return ledger.read_state(run_uri, STAGE).blocks_done


def run_prediction(
    run_uri: str, client: Client, *, tell: Callable[[ledger.StageState], None] | None = None
) -> int:
    """Do every unit that has no record yet, seal and publish; return the number of units.

    Units whose key is that of a unit of the published prediction are taken over from it.

    Raises
    ------
    StageFailed
        If units failed; the others are done, and the ledger holds the same message.
    """
    progress = Progress(run_uri, STAGE, tell)
    with driving(progress):
        run = load(run_uri)
        do_stage(STAGE, run, client, progress)
        progress.change(phase="publish")  # raises if somebody stopped it meanwhile
        publish(run.volume_uri, run.key, stages=[STAGE])
        progress.settle(status="done")
    return progress.state.blocks_done
