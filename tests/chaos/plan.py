"""Which fault strikes when: drawn from a seed, so that the same seed gives the same schedule."""

from __future__ import annotations

import random
from typing import NamedTuple

S3_TIMES = {
    "error 500": 10,
    "503 storm": 12,
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
    "worker": 2.0,
    "nanny": 0.3,
    "dask-scheduler": 0.25,
    "airflow-task": 1.0,
    "airflow-task-supervisor": 0.8,
    "airflow-scheduler": 0.2,
    "airflow-api": 0.15,
    "airflow-triggerer": 0.25,
    "airflow-dag-processor": 0.2,
    "s3": 0.3,
    "supervisor": 0.4,
}
"""What is killed with ``kill -9``, and how often beside the others."""

FROZEN = {
    "worker": 1.0,
    "dask-scheduler": 0.2,
    "airflow-task": 0.8,
    "airflow-scheduler": 0.2,
    "airflow-triggerer": 0.3,
    "supervisor": 0.4,
}
FULL = {"S3 server": 0.4, "all else": 0.2}
"""Disks that fill up."""

WEIGHTS = {
    **{f"S3: {kind}": 1.3 for kind in S3_TIMES},
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
    """Return the faults of a soak, one every `mean_s` or so; each kind once, if there is time.

    >>> schedule(1, 60, 5) == schedule(1, 60, 5)
    True
    """
    draw = random.Random(seed)
    times = [mean_s]
    while times[-1] < seconds:
        times.append(times[-1] + mean_s * draw.uniform(*COMMON))
    count = len(times) - 1
    kinds = draw.sample(list(WEIGHTS), min(len(WEIGHTS), count))
    kinds += draw.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count - len(kinds))
    draw.shuffle(kinds)
    return [Planned(at, kind, draw.random()) for at, kind in zip(times[:-1], kinds, strict=True)]
