import os
import socket

import pytest

from alignment.platform import doctor as doctor_module
from alignment.platform import seaweed
from alignment.platform.config import GIB, PlatformConfig
from alignment.platform.doctor import Finding, doctor
from alignment.platform.processes import identify
from alignment.platform.state import Home, PlatformState, ServiceState, write_private


def find(config: PlatformConfig, name: str) -> Finding:
    (finding,) = (finding for finding in doctor(config) if finding.name == name)
    return finding


@pytest.fixture
def known(config):
    """Return a function that pretends a supervisor wrote this state."""
    home = Home(config.home)
    home.create()

    def known(*services: ServiceState, supervisor=None) -> Home:
        state = PlatformState(config=config, supervisor=supervisor, services=services)
        write_private(home.state, state.model_dump_json())
        return home

    return known


def test_a_platform_that_is_down_is_no_failure(config):
    findings = doctor(config)
    assert find(config, "supervisor") == Finding(
        "supervisor", "warn", "the platform is not running", "start it: petalign up"
    )
    assert [finding.name for finding in findings if finding.status == "fail"] == []
    assert not config.home.exists()


def test_every_complaint_comes_with_advice(config, monkeypatch):
    monkeypatch.setattr(seaweed, "find_binary", lambda: None)
    monkeypatch.setattr(doctor_module, "_PACKAGES", {"no-such-package": "pip install it"})
    monkeypatch.setattr(doctor_module, "_MIN_PYTHON", (9, 0))
    monkeypatch.setattr(doctor_module, "_LOW_DISK_GIB", 10**9)
    bad = config.model_copy(
        update={"dags_folder": config.home / "dags", "worker_memory_gib": 4096.0}
    )
    complaints = [finding for finding in doctor(bad) if finding.status != "ok"]
    assert {finding.name for finding in complaints} == {
        "Python",
        "no-such-package",
        "S3 server's program",
        "disk",
        "machine",
        "dags folder",
        "supervisor",
    }
    assert all(finding.advice for finding in complaints)


def test_a_full_disk_is_a_failure(config, monkeypatch):
    monkeypatch.setattr(doctor_module, "_NO_DISK_GIB", 10**9)
    assert find(config, "disk").status == "fail"


def test_a_taken_port_is_found_before_the_platform_is_started(config):
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", config.airflow_port))
        listener.listen()
        finding = find(config, "ports")
    assert finding.status == "fail"
    assert f"port {config.airflow_port} is taken" in finding.found
    assert find(config, "ports").status == "ok"


def test_dead_processes_are_found(config, known):
    dead = identify(os.getpid()).model_copy(update={"birth": "another"})
    known(ServiceState(name="s3", title="S3 server", process=dead), supervisor=dead)
    assert find(config, "supervisor").status == "fail"
    finding = find(config, "S3 server")
    assert finding.status == "fail"
    assert f"pid {os.getpid()} has died" in finding.found


def test_a_service_that_was_given_up_is_quoted(config, known):
    home = known(
        ServiceState(name="x", title="X", status="failed", message="died 5 times in a row"),
        supervisor=identify(os.getpid()),
    )
    home.log("x").write_text("\n--- started now ---\nfirst\ncannot open database\n")
    finding = find(config, "X")
    assert finding.status == "fail"
    assert "died 5 times" in finding.found
    assert "cannot open database" in finding.found
    assert str(home.log("x")) in finding.advice


def test_a_living_service_that_does_not_answer_is_a_failure(config, known):
    alive = identify(os.getpid())
    known(
        ServiceState(name="dask-scheduler", title="Dask", status="ready", process=alive),
        supervisor=alive,
    )
    assert find(config, "Dask").status == "ok"
    assert find(config, "Dask answers").status == "fail"


def test_a_state_that_cannot_be_read_is_a_finding(config, known):
    known().state.write_text("{")
    assert find(config, "platform").status == "fail"


def test_what_the_workers_may_use_is_compared_with_the_machine(config, monkeypatch):
    monkeypatch.setattr(doctor_module, "usable_memory_bytes", lambda: 2 * GIB)
    assert find(config.model_copy(update={"worker_memory_gib": 0.5}), "machine").status == "warn"
    finding = find(config.model_copy(update={"worker_memory_gib": 2.0}), "machine")
    assert "PETALIGN_WORKER_MEMORY_GIB" in finding.advice
