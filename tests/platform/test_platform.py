"""The real thing: every service up, used, killed and recovered. About two minutes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import boto3
import httpx
import psutil
import pytest
from distributed import Client

from alignment.platform.doctor import doctor
from alignment.platform.environment import lend_connection
from alignment.platform.lifecycle import PlatformInfo, down, info, up
from alignment.platform.processes import ProcessId, is_alive, session_of
from alignment.platform.state import Home, read_state

pytestmark = [pytest.mark.platform, pytest.mark.timeout(300)]

ORIGIN = {"Origin": "https://neuroglancer-demo.appspot.com"}


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 90.0) -> float:
    """Return the seconds until `condition` held."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < timeout_s, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - start


def kill(process: ProcessId) -> None:
    os.kill(process.pid, signal.SIGKILL)


def is_ready_again(platform: PlatformInfo, name: str, old: ProcessId) -> bool:
    state = read_state(Home(platform.home))
    service = state.service(name) if state else None
    return service is not None and service.status == "ready" and service.process != old


@pytest.fixture
def s3(platform, monkeypatch):
    """An S3 client that knows nothing but the environment variables."""
    for name, value in platform.environment().items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    yield client
    client.close()


def test_every_service_listens_on_this_machine_only(platform):
    listening = set()
    for process in platform.processes().values():
        for member in session_of(process):
            with suppress(psutil.NoSuchProcess):  # a short task that has ended listens on nothing
                listening |= {
                    connection.laddr.ip
                    for connection in member.net_connections("inet")
                    if connection.status == psutil.CONN_LISTEN
                }
    assert listening == {"127.0.0.1"}


def test_objects_are_written_with_a_signature_only(platform, s3):
    s3.put_object(Bucket=platform.bucket, Key="a/b", Body=b"0123456789")
    assert s3.get_object(Bucket=platform.bucket, Key="a/b")["Body"].read() == b"0123456789"
    url = f"{platform.s3_endpoint}/{platform.bucket}/a/b"
    with httpx.Client(trust_env=False) as anyone:
        assert anyone.put(url, content=b"x").status_code == 403
        assert anyone.delete(url).status_code == 403
        assert anyone.get(f"{platform.s3_endpoint}/{platform.bucket}/").status_code == 403


def test_web_pages_read_ranges_without_a_signature(platform, s3):
    s3.put_object(Bucket=platform.bucket, Key="shard", Body=b"0123456789")
    url = f"{platform.s3_endpoint}/{platform.bucket}/shard"
    with httpx.Client(trust_env=False, headers=ORIGIN) as page:
        part = page.get(url, headers={"Range": "bytes=2-4"})
        end = page.get(url, headers={"Range": "bytes=-3"})  # where a shard keeps its index
        asked = page.options(
            url,
            headers={
                "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": "range",
            },
        )
        missing = page.get(f"{url}-missing")
    assert (part.status_code, part.content) == (206, b"234")
    assert (end.status_code, end.content) == (206, b"789")
    assert part.headers["Access-Control-Allow-Origin"] in ("*", ORIGIN["Origin"])
    assert "Content-Range" in part.headers["Access-Control-Expose-Headers"]
    assert part.headers["Content-Range"] == "bytes 2-4/10"
    assert asked.is_success
    assert "range" in asked.headers["Access-Control-Allow-Headers"]
    assert missing.status_code == 404


def test_workers_have_the_connection_and_one_thread_each(platform):
    names = ("AWS_ENDPOINT_URL", "AWS_SECRET_ACCESS_KEY", "OPENBLAS_NUM_THREADS")

    def look(_: int) -> tuple[str, ...]:
        import os

        import alignment.config
        import storage.grid

        assert alignment.config
        assert storage.grid
        return tuple(os.environ[name] for name in names)

    with Client(platform.dask_address) as client:
        seen = set(client.gather(client.map(look, range(4), pure=False)))
        threads = client.nthreads()
    environment = platform.environment() | {"OPENBLAS_NUM_THREADS": "1"}
    assert seen == {tuple(environment[name] for name in names)}
    assert list(threads.values()) == [1, 1]


def test_a_dag_runs_and_bad_parameters_are_refused(platform):
    with platform.airflow() as airflow:
        airflow.wait_for_dag("steps")
        with pytest.raises(ValueError, match=r"seconds: -1 is less than the minimum of 0$"):
            airflow.trigger("steps", {"seconds": -1})
        run = airflow.trigger("steps", {})
        wait_until(lambda: airflow.state("steps", run) != "running", "run ends")
        wait_until(lambda: airflow.state("steps", run) == "success", "run succeeds")
        assert [(t.task_id, t.state) for t in airflow.task_states("steps", run)] == [
            ("wait", "success")
        ]


def test_a_second_up_finds_everything_running(platform):
    before = platform.processes()
    start = time.monotonic()
    up(platform.config)
    assert time.monotonic() - start < 1
    assert platform.processes() == before


def test_the_command_line_borrows_the_connection(platform):
    environ: dict[str, str] = {}
    assert lend_connection(environ, platform.config)
    assert environ.items() >= platform.environment().items()
    own = {"AWS_PROFILE": "mine"}
    assert not lend_connection(own, platform.config)
    assert own == {"AWS_PROFILE": "mine"}


def test_the_doctor_finds_nothing_wrong(platform):
    findings = doctor(platform.config)
    assert [f for f in findings if f.status == "fail" and f.name != "DAG files"] == []
    assert {"S3 writes", "Dask answers", "Airflow answers", "DAG files"} <= {
        f.name for f in findings if f.status == "ok" or f.name == "DAG files"
    }


@pytest.mark.slow
def test_what_is_killed_comes_back(platform, s3):
    """A worker, then both schedulers and the S3 server at once, while a DAG run is under way."""
    s3.put_object(Bucket=platform.bucket, Key="precious", Body=b"acknowledged")
    took: dict[str, float] = {}
    with platform.airflow() as airflow, Client(platform.dask_address) as client:
        run = airflow.trigger("steps", {"seconds": 4})
        wait_until(
            lambda: [t.state for t in airflow.task_states("steps", run)] == ["running"],
            "the task runs",
        )
        address, victim = next(iter(client.run(os.getpid).items()))
        os.kill(victim, signal.SIGKILL)
        took["Dask worker"] = wait_until(
            lambda: len(now := client.nthreads()) == 2 and address not in now,
            "the nanny replaces the worker",
        )
    old = platform.processes()
    assert len(session_of(old["airflow-scheduler"])) > 1
    killed = ("airflow-scheduler", "dask-scheduler", "s3")
    for name in killed:
        kill(old[name])
    start = time.monotonic()

    def all_are_back() -> bool:
        for name in (*killed, "dask-workers"):
            if name not in took and is_ready_again(platform, name, old[name]):
                took[name] = time.monotonic() - start
        return took.keys() >= {*killed, "dask-workers"}

    wait_until(all_are_back, f"{killed} are ready again")
    assert session_of(old["airflow-scheduler"]) == []  # its tasks and their processes as well
    assert s3.get_object(Bucket=platform.bucket, Key="precious")["Body"].read() == b"acknowledged"
    with Client(platform.dask_address) as client:
        assert client.submit(sum, [1, 2]).result(timeout=30) == 3
    with platform.airflow() as airflow:
        took["the task of the killed scheduler"] = wait_until(
            lambda: airflow.state("steps", run) == "success", "the interrupted run succeeds"
        )
    print({name: f"{seconds:.1f} s" for name, seconds in took.items()})


def test_services_outlive_the_supervisor_and_the_next_up_takes_them_over(platform):
    old = platform.processes()
    kill(old["supervisor"])
    wait_until(lambda: not is_alive(old["supervisor"]), "the supervisor is dead")
    kill(old["airflow-dag-processor"])  # nobody is there to start it again
    assert info(platform.config) is None
    start = time.monotonic()
    up(platform.config)
    print(f"taken over in {time.monotonic() - start:.1f} s")
    new = platform.processes()
    changed = {name for name in old if old[name] != new[name]}
    assert changed == {"supervisor", "airflow-dag-processor"}


def test_other_settings_are_refused_while_it_runs(platform):
    other = platform.config.model_copy(update={"airflow_tasks": 7})
    with pytest.raises(RuntimeError, match=r"PETALIGN_AIRFLOW_TASKS: runs with 4, asked for 7"):
        up(other)


def test_down_leaves_nothing_behind(platform):
    """The last test of this file; the fixture's own `down` then finds nothing to stop."""
    members = {
        member for process in platform.processes().values() for member in session_of(process)
    }
    assert len(members) > 8
    start = time.monotonic()
    assert len(down(platform.config)) == 7
    print(f"down in {time.monotonic() - start:.1f} s")
    assert [m for m in members if m.is_running() and m.status() != psutil.STATUS_ZOMBIE] == []
    assert down(platform.config) == []
    assert platform.processes() == {}
