"""The client against answers as Airflow 3.3 gives them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import httpx
import pytest

from alignment.platform import airflow_client
from alignment.platform.airflow_client import AirflowClient, TaskState
from alignment.platform.errors import PlatformError, RequestRefused

Answer = Callable[[httpx.Request], httpx.Response]


class Server:
    """Answers by path; tokens are t1, t2, ... and only the last one is good."""

    def __init__(self) -> None:
        self.tokens = 0
        self.answers: dict[str, Answer] = {}
        self.seen: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        if request.url.path == "/auth/token":
            if json.loads(request.content) != {"username": "admin", "password": "secret"}:
                return httpx.Response(401, json={"detail": "Invalid credentials"})
            self.tokens += 1
            return httpx.Response(201, json={"access_token": f"t{self.tokens}"})
        if request.headers["Authorization"] != f"Bearer t{self.tokens}":
            return httpx.Response(401, json={"detail": "Token expired"})
        return self.answers[request.url.raw_path.decode().partition("?")[0]](request)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def airflow(server: Server) -> Iterator[AirflowClient]:
    with AirflowClient("http://airflow/", "admin", "secret") as client:
        client._http.close()
        client._http = httpx.Client(
            transport=httpx.MockTransport(server), base_url="http://airflow"
        )
        yield client


def test_a_run_is_started_now_with_its_parameters(airflow, server):
    path = "/api/v2/dags/a%2Fb/dagRuns"
    server.answers[path] = lambda _: httpx.Response(200, json={"dag_run_id": "manual__1"})
    assert airflow.trigger("a/b", {"n": 3}) == "manual__1"
    assert json.loads(server.seen[-1].content) == {"logical_date": None, "conf": {"n": 3}}


def test_an_expired_token_is_replaced(airflow, server):
    server.answers["/api/v2/dags/d/dagRuns/r"] = lambda _: httpx.Response(
        200, json={"state": "running"}
    )
    assert airflow.state("d", "r") == "running"
    server.tokens = 7
    assert airflow.state("d", "r") == "running"


def test_refused_parameters_are_told_in_airflows_words(airflow, server):
    detail = "Invalid input for param n: -1 is less than 0\n\nFailed validating 'minimum'\n..."
    server.answers["/api/v2/dags/d/dagRuns"] = lambda _: httpx.Response(
        400, json={"detail": detail}
    )
    with pytest.raises(RequestRefused) as error:
        airflow.trigger("d", {"n": -1})
    expected = "Airflow refused to start DAG 'd': Invalid input for param n: -1 is less than 0"
    assert str(error.value) == expected


def test_faults_of_fields_are_listed(airflow, server):
    faults = [{"loc": ["body", "conf"], "msg": "Input should be a valid dictionary"}]
    server.answers["/api/v2/dags/d/dagRuns"] = lambda _: httpx.Response(
        422, json={"detail": faults}
    )
    with pytest.raises(RequestRefused, match=r"body.conf: Input should be a valid dictionary"):
        airflow.trigger("d", {})


def test_a_wrong_password_is_not_tried_for_ever(server):
    with AirflowClient("http://airflow", "admin", "wrong") as client:
        client._http.close()
        client._http = httpx.Client(
            transport=httpx.MockTransport(server), base_url="http://airflow"
        )
        with pytest.raises(RequestRefused, match="log in as 'admin': Invalid credentials"):
            client.state("d", "r")
    assert len(server.seen) == 1


def test_an_internal_error_may_be_tried_again(airflow, server):
    server.answers["/api/v2/dags/d/dagRuns/r"] = lambda _: httpx.Response(500, text="oops")
    with pytest.raises(PlatformError, match=r"failed to answer GET .*: oops") as error:
        airflow.state("d", "r")
    assert not isinstance(error.value, RequestRefused)


def test_no_airflow_at_all(config):
    with (
        AirflowClient(config.airflow_url, "admin", "secret") as client,
        pytest.raises(PlatformError, match=r"does not answer .* see `petalign doctor`"),
    ):
        client.state("d", "r")


def test_all_tasks_of_a_large_run_are_read(airflow, server):
    everything = [
        {"task_id": "t", "map_index": n, "state": None if n else "success", "try_number": 1}
        for n in range(250)
    ]

    def page(request: httpx.Request) -> httpx.Response:
        offset, limit = (int(request.url.params[name]) for name in ("offset", "limit"))
        tasks = everything[::-1][offset : offset + limit]
        return httpx.Response(200, json={"task_instances": tasks, "total_entries": 250})

    server.answers["/api/v2/dags/d/dagRuns/r/taskInstances"] = page
    tasks = airflow.task_states("d", "r")
    assert tasks[0] == TaskState("t", 0, "success", 1)
    assert tasks[1:] == [TaskState("t", n, "none", 1) for n in range(1, 250)]


def test_waiting_for_a_dag_ends_when_it_is_parsed(airflow, server, monkeypatch):
    monkeypatch.setattr(airflow_client, "_POLL_S", 0.0)
    answers = iter(
        [
            httpx.Response(404, json={"detail": "not found"}),
            httpx.Response(200, json={"has_import_errors": True}),
            httpx.Response(200, json={"has_import_errors": False}),
        ]
    )
    server.answers["/api/v2/dags/d"] = lambda _: next(answers)
    airflow.wait_for_dag("d")
    assert list(answers) == []


def test_a_dag_that_never_comes_is_explained_by_the_files_errors(airflow, server):
    server.answers["/api/v2/dags/d"] = lambda _: httpx.Response(404, json={"detail": "no"})
    errors = [{"filename": "d.py", "stack_trace": "Traceback ...\nNameError: x\n"}]
    server.answers["/api/v2/importErrors"] = lambda _: httpx.Response(
        200, json={"import_errors": errors}
    )
    with pytest.raises(PlatformError, match=r"no working DAG 'd' .*\n.*d.py:\nTraceback") as error:
        airflow.wait_for_dag("d", timeout_s=0.0)
    assert str(error.value).endswith("NameError: x")


def test_the_page_of_a_run_is_a_valid_address(airflow):
    url = airflow.run_url("d", "manual__2026-01-01T00:00:00+00:00")
    assert url == "http://airflow/dags/d/runs/manual__2026-01-01T00%3A00%3A00%2B00%3A00"
