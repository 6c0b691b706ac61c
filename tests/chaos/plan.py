"""Which fault strikes when: drawn from a seed, so that the same seed gives the same schedule."""

from __future__ import annotations

import random
from typing import NamedTuple

S3_TIMES = {
    "error 500": 10,
    "503 storm": 30,
    "reset": 10,
    "lost answer": 6,
    "short body": 6,
    "lying length": 4,
    "flipped answer": 3,
    "flipped request": 3,
    "404": 2,
    "hang": 2,
    "slow": 20,
}
"""Faults of S3, and how many requests in a row one strikes."""

KILLED = {
    "worker": 3.0,
    "nanny": 0.8,
    "dask-scheduler": 0.6,
    "airflow-task": 1.2,
    "airflow-task-supervisor": 1.0,
    "airflow-scheduler": 0.5,
    "airflow-api": 0.5,
    "airflow-triggerer": 0.5,
    "airflow-dag-processor": 0.3,
    "s3": 0.6,
    "supervisor": 1.0,
}
"""What is killed with ``kill -9``, and how often beside the others."""

FROZEN = {
    "worker": 1.5,
    "dask-scheduler": 0.4,
    "airflow-task": 0.8,
    "airflow-scheduler": 0.4,
    "airflow-triggerer": 0.4,
    "supervisor": 0.5,
}
FULL = {"S3 server": 0.8, "all else": 0.4}
"""Disks that fill up."""

WEIGHTS = {
    **{f"S3: {kind}": 1.1 for kind in S3_TIMES},
    **{f"kill {part}": weight for part, weight in KILLED.items()},
    **{f"freeze {part}": weight for part, weight in FROZEN.items()},
    **{f"full disk: {part}": weight for part, weight in FULL.items()},
}
"""How often each kind of fault is drawn. What takes a minute to start again is drawn less."""

COMMON = (0.7, 1.3)
"""Pauses lie evenly between these parts of the mean."""


class Planned(NamedTuple):
    """A fault to come."""

    at_s: float
    """After the beginning of the soak."""
    kind: str
    draw: float
    """In [0, 1): chooses the victim among those that there are."""


def schedule(seed: int, seconds: float, mean_s: float) -> list[Planned]:
    """Return the faults of a soak, one every `mean_s` or so.

    >>> schedule(1, 60, 5) == schedule(1, 60, 5)
    True
    """
    draw = random.Random(seed)
    found: list[Planned] = []
    now = mean_s
    while now < seconds:
        kind = draw.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        found.append(Planned(now, kind, draw.random()))
        now += mean_s * draw.uniform(*COMMON)
    return found
