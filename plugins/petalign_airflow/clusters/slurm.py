"""A Dask scheduler on this machine, with workers as Slurm jobs.

dask-jobqueue writes the job script. Its own cluster class would end with the task that makes it, so
the scheduler is a process of its own, and jobs are submitted and cancelled here.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from petalign_airflow.clusters import local
from petalign_airflow.clusters.config import SlurmConfig, settings
from petalign_airflow.retries import ClusterLost
from petalign_airflow.trust import security_of

JOBS = "jobs.json"


def start(name: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Start a scheduler and submit the jobs of its workers; they are waited for."""
    config = settings(SlurmConfig, extra)
    folder = Path(config.folder) / name
    folder.mkdir(parents=True, exist_ok=True)
    stop({"folder": str(folder)})
    protocol = ("--protocol=tls",) if extra.get("tls_ca") else ()
    address = local.start_scheduler(folder, config.host, (*protocol, *tls_options(extra)))
    for job in range(-(-config.workers // config.workers_per_job)):
        script = folder / f"worker-{job}.sh"
        # A scheduler turns a second worker of the same name away.
        script.write_text(job_script(f"{name}-{job}", address, config, extra, folder))
        _submit(script, folder)
    local.wait_for_workers(
        address,
        config.workers,
        config.start_timeout_s,
        folder=folder,
        security=security_of(extra),
    )
    return {"address": address, "folder": str(folder)}


def stop(handle: Mapping[str, Any]) -> None:
    """Cancel the jobs, then end the scheduler."""
    note = Path(handle["folder"]) / JOBS
    if note.exists():
        # Slurm says nothing of jobs that have ended.
        subprocess.run(["scancel", *json.loads(note.read_text())], check=True, capture_output=True)
        note.unlink()
    local.stop(handle)


def job_script(
    name: str, address: str, config: SlurmConfig, extra: Mapping[str, Any], folder: Path
) -> str:
    """Return the script of a job, as dask-jobqueue writes it."""
    from dask_jobqueue.slurm import SLURMJob

    memory_gib = config.memory_gib * config.workers_per_job
    script: str = SLURMJob(
        scheduler=address,
        name=name,
        job_name=name,
        queue=config.queue,
        account=config.account,
        walltime=config.walltime,
        cores=config.workers_per_job,
        processes=config.workers_per_job,
        memory=f"{memory_gib:g} GiB",
        python=config.python,
        local_directory=config.local_directory,
        log_directory=str(folder),
        worker_extra_args=[*tls_options(extra)],
        job_extra_directives=[*config.directives],
        job_script_prologue=[*config.prologue],
    ).job_script()
    return script


def tls_options(extra: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what scheduler and workers are told of TLS; the nodes must see the files."""
    names = {"tls_ca": "--tls-ca-file", "tls_cert": "--tls-cert", "tls_key": "--tls-key"}
    return tuple(f"{flag}={extra[name]}" for name, flag in names.items() if extra.get(name))


def _submit(script: Path, folder: Path) -> None:
    try:
        answer = subprocess.run(
            ["sbatch", "--parsable", str(script)], check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        words = getattr(error, "stderr", "") or error
        raise ClusterLost(f"sbatch refused {script}: {words}") from error
    note = folder / JOBS
    known = json.loads(note.read_text()) if note.exists() else []
    # A cluster's name may follow the number: "4711;cluster".
    note.write_text(json.dumps([*known, answer.stdout.strip().partition(";")[0]]))
