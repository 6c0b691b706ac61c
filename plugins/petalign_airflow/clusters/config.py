"""How large a run's own cluster is: ``cluster`` in the extra of the connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError

from alignment.config import Config
from alignment.errors import ConfigError

Workers = Annotated[int, Field(ge=1, le=10_000)]
Gib = Annotated[float, Field(gt=0, le=4096)]


class ClusterConfig(Config):
    """What all kinds have."""

    workers: Workers = 2
    """Worker processes of one thread each."""
    memory_gib: Gib = 4.0
    """Of a worker."""
    start_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """How long all workers may take to come up; a queue may be long."""


class LocalConfig(ClusterConfig):
    """Processes on the machine of the Airflow worker."""

    folder: str = ""
    """Where logs and spilled data lie; below the system's folder for temporary files without it."""


class SlurmConfig(ClusterConfig):
    """A scheduler on the machine of the Airflow worker, and workers as jobs."""

    folder: str
    """A folder that the nodes see too: job scripts and logs."""
    host: str
    """The name or address under which the nodes reach this machine."""
    queue: str | None = None
    account: str | None = None
    walltime: str = "24:00:00"
    """As Slurm writes it; a job that ends sooner than its run is not replaced."""
    workers_per_job: Workers = 1
    python: str | None = None
    """The interpreter on the nodes; the same path as here without it."""
    local_directory: str | None = None
    """A fast disk of the nodes, for spilled data."""
    directives: tuple[str, ...] = ()
    """Further lines of ``#SBATCH``, such as "--exclusive"."""
    prologue: tuple[str, ...] = ()
    """Lines of the shell before the workers start, such as "module load openssl"."""


class KubernetesConfig(ClusterConfig):
    """Pods, by the operator of dask-kubernetes."""

    image: str
    """With petalign installed, in the version of Airflow's."""
    namespace: str = "default"
    cpus: Annotated[float, Field(gt=0)] = 1.0
    """Of a worker."""
    env: Mapping[str, str] = {}
    """Variables of scheduler and workers."""
    service_account: str | None = None
    """Of the pods: gives workers access to S3 without keys."""


def settings[C: ClusterConfig](model: type[C], extra: Mapping[str, Any]) -> C:
    """Return the settings of a cluster.

    :raises ConfigError: naming what is wrong in the extra of the connection
    """
    try:
        return model(**extra.get("cluster") or {})
    except (ValidationError, TypeError) as error:
        raise ConfigError(f"'cluster' in the extra of the connection: {error}") from None
