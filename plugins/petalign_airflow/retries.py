"""Which failures are tried again, and how soon; and what all tasks of a DAG have in common.

A retry resumes: a new driver takes a new lease and does the units without a record. A cleared task
starts over in Airflow's eyes, with a new driver too, but finished units are immutable and never
computed twice.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowException

from alignment.errors import ConfigError, DataError
from storage.errors import AccessError, SourceError, StorageError, UriError

FINAL_ERRORS = (ConfigError, DataError, AccessError, SourceError, UriError)
FINAL_KINDS = ("config", "data")
"""Errors, and their kinds in the ledger, that a retry would only repeat."""

POOL_VARIABLE = "PETALIGN_POOL"
"""Names the pool of the stages' tasks; Airflow does not run tasks whose pool does not exist."""


class ClusterLost(AirflowException):
    """No Dask scheduler answers, or it lost the driver: the cluster comes back or it does not."""


class StorageFailed(AirflowException):
    """A stage stopped because the store failed: a full disk, a server that is away."""


def retry_policy() -> ExceptionRetryPolicy:
    """Return the rules; what no rule names is retried as the task's own settings say."""
    final = [
        RetryRule(exception=error, action=RetryAction.FAIL, reason="a retry would only repeat it")
        for error in FINAL_ERRORS
    ]
    soon = [
        RetryRule(
            exception=ClusterLost,
            action=RetryAction.RETRY,
            retry_delay=timedelta(seconds=10),
            reason="the Dask cluster may be back",
        ),
        *(
            RetryRule(
                exception=error,
                action=RetryAction.RETRY,
                retry_delay=timedelta(seconds=30),
                reason="the store may answer again",
            )
            for error in (StorageFailed, StorageError)
        ),
    ]
    return ExceptionRetryPolicy(rules=[*final, *soon])


def task_defaults(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return the ``default_args`` of a DAG: retries, their policy, and the pool if there is one.

    :param environment: ``PETALIGN_POOL`` names the pool; without it tasks run in Airflow's default
    """
    pool = environment.get(POOL_VARIABLE)
    return {
        "retries": 8,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": 3.0,
        # A retry resumes, so it is cheap; a cluster that was killed is back within a minute or two.
        "max_retry_delay": timedelta(seconds=30),
        "retry_policy": retry_policy(),
        **({"pool": pool} if pool else {}),
    }
