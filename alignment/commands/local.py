"""A whole run on this machine: worker processes, no Airflow, the same stages and ledger."""

from __future__ import annotations

import os
from collections.abc import Callable

from alignment.blockwise import local_client
from alignment.stages import ORDER, run_stage
from storage.ledger import StageState


def align(
    run_uri: str, *, workers: int | None = None, tell: Callable[[StageState], None] | None = None
) -> None:
    """Run every stage of a prepared run; what has a record already is not done again.

    Raises
    ------
    StageFailed
        If units of a stage failed; the finished ones are kept.
    """
    with local_client(workers or os.cpu_count() or 1) as client:
        for stage in ORDER:
            run_stage(stage, run_uri, client, tell=tell)
