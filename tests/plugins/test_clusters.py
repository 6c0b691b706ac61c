"""Clusters of a run: real processes here; Slurm by stand-ins for its two commands."""

import json
import os
import stat
import sys

import psutil
import pytest
from distributed import Client

from alignment.errors import ConfigError
from petalign_airflow import clusters
from petalign_airflow.clusters import config, kubernetes, local, slurm
from petalign_airflow.retries import ClusterLost

SMALL = {"workers": 1, "memory_gib": 0.5, "start_timeout_s": 60}


def sessions(folder) -> list[int]:
    return [process["pid"] for process in json.loads((folder / local.PROCESSES).read_text())]


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_local_cluster_works_and_ends_with_all_its_processes(tmp_path):
    extra = {"cluster": SMALL | {"folder": str(tmp_path)}}
    handle = json.loads(json.dumps(clusters.start("local", "petalign-1", extra)))
    leaders = sessions(tmp_path / "petalign-1")
    with Client(handle["address"], set_as_default=False) as client:
        pid, environment = client.submit(lambda: (os.getpid(), dict(os.environ))).result(timeout=30)
    assert pid != os.getpid()
    assert environment["OMP_NUM_THREADS"] == "1"
    clusters.stop(handle)
    assert not any(map(lives, [*leaders, pid]))
    clusters.stop(handle)  # a teardown that is tried again


@pytest.mark.slow
def test_a_start_that_is_tried_again_ends_what_the_attempt_before_left(tmp_path, monkeypatch):
    extra = {"cluster": SMALL | {"folder": str(tmp_path)}}

    def too_few(*args, **kwargs):
        raise ClusterLost("no workers")

    with monkeypatch.context() as patch:
        patch.setattr(local, "wait_for_workers", too_few)
        with pytest.raises(ClusterLost):
            clusters.start("local", "petalign-1", extra)
    left = sessions(tmp_path / "petalign-1")
    assert all(map(lives, left))
    handle = clusters.start("local", "petalign-1", extra)
    assert not any(map(lives, left))
    clusters.stop(handle)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"worker": 3}, "worker"), ({"workers": 0}, "workers"), ([1], "mapping")],
)
def test_settings_that_are_wrong_name_the_extra_of_the_connection(given, message):
    with pytest.raises(
        ConfigError, match=rf"(?s)'cluster' in the extra of the connection.*{message}"
    ):
        config.settings(config.LocalConfig, {"cluster": given})


def test_a_kind_that_does_not_exist_is_named_when_the_dag_is_parsed():
    assert clusters.kind_of({}) == "address"
    with pytest.raises(ValueError, match="PETALIGN_CLUSTER='k8s' is no kind of cluster"):
        clusters.kind_of({"PETALIGN_CLUSTER": "k8s"})


# Slurm

SBATCH = """#!/bin/sh
# Runs the job at once, in a session of its own, as a node would.
setsid sh "$2" > "$JOBS/log" 2>&1 &
echo "$!;cluster"
"""
SCANCEL = """#!/bin/sh
for job in "$@"; do kill -TERM -- -"$job" 2>/dev/null; echo "$job" >> "$JOBS/cancelled"; done
"""


@pytest.fixture
def queue(tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (programs / name).write_text(text)
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("JOBS", str(tmp_path))
    return tmp_path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_slurm_jobs_are_submitted_join_the_scheduler_and_are_cancelled(queue):
    wanted = SMALL | {"folder": str(queue), "host": "127.0.0.1", "queue": "em", "workers": 2}
    handle = clusters.start("slurm", "petalign-2", {"cluster": wanted})
    leaders = sessions(queue / "petalign-2")
    jobs = json.loads((queue / "petalign-2" / slurm.JOBS).read_text())
    assert len(jobs) == 2
    with Client(handle["address"], set_as_default=False) as client:
        assert len(client.nthreads()) == 2
    clusters.stop(handle)
    assert (queue / "cancelled").read_text().split() == jobs
    assert not any(map(lives, leaders))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_job_script_asks_for_what_the_connection_says(tmp_path):
    pytest.importorskip("dask_jobqueue")
    wanted = config.SlurmConfig(
        folder=str(tmp_path), host="login1", queue="em", account="lab", walltime="2-00:00:00",
        workers_per_job=4, memory_gib=8, directives=("--exclusive",), prologue=("module load x",),
        python="/sw/python",
    )  # fmt: skip
    extra = {"tls_ca": "/sw/ca.pem", "tls_cert": "/sw/c.pem", "tls_key": "/sw/k.pem"}
    script = slurm.job_script("petalign-3", "tls://login1:9", wanted, extra, tmp_path)
    for line in ("#SBATCH -p em", "#SBATCH -A lab", "#SBATCH -t 2-00:00:00", "#SBATCH --exclusive",
                 "#SBATCH --cpus-per-task=4", "#SBATCH --mem=32G", "module load x"):  # fmt: skip
        assert line in script.splitlines(), line
    command = script.splitlines()[-1]
    assert command.startswith("/sw/python -m distributed.cli.dask_worker tls://login1:9 ")
    for option in ("--nworkers 4", "--nthreads 1", "--tls-ca-file=/sw/ca.pem"):
        assert option in command, option


def test_a_queue_that_refuses_is_told_in_its_own_words(queue):
    (queue / "bin" / "sbatch").write_text("#!/bin/sh\necho 'invalid partition' >&2; exit 1\n")
    with pytest.raises(ClusterLost, match=r"sbatch refused .*invalid partition"):
        slurm._submit(queue / "worker.sh", queue)


# Kubernetes


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_pods_are_what_the_connection_says():
    pytest.importorskip("dask_kubernetes.operator")
    wanted = config.KubernetesConfig(
        image="registry/petalign:1", workers=8, memory_gib=6, env={"AWS_REGION": "eu"},
        service_account="em",
    )  # fmt: skip
    spec = kubernetes.cluster_spec("petalign-4", wanted)
    assert (spec["kind"], spec["metadata"]["name"]) == ("DaskCluster", "petalign-4")
    worker = spec["spec"]["worker"]
    assert worker["replicas"] == 8
    (container,) = worker["spec"]["containers"]
    assert container["image"] == "registry/petalign:1"
    assert container["args"][:6] == ["dask", "worker", "--nthreads", "1", "--memory-limit", "6GiB"]
    assert container["resources"]["limits"] == {"memory": "6Gi", "cpu": "1"}
    assert {"name": "OMP_NUM_THREADS", "value": "1"} in container["env"]
    assert worker["spec"]["serviceAccountName"] == "em"


def test_the_modules_of_clusters_are_light():
    """A DAG file imports them when it is parsed."""
    import subprocess

    code = (
        "import sys, airflow.sdk; before = set(sys.modules)\n"
        "import petalign_airflow.clusters.operators\n"
        "print(sorted({'dask', 'distributed', 'dask_jobqueue', 'dask_kubernetes', 'zarr'}"
        " & (set(sys.modules) - before)))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
