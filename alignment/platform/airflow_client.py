"""Airflow's REST API, as far as the platform and its users need it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import httpx

from alignment.platform.errors import PlatformError, RequestRefused

_POLL_S = 0.5


class TaskState(NamedTuple):
    """One task of a DAG run."""

    task_id: str
    map_index: int
    """-1 if the task is not mapped."""
    state: str
    """Airflow's word for it, such as "running", "deferred", "success", "up_for_retry"."""
    try_number: int


class AirflowClient:
    """A user of Airflow's REST API; use it in a ``with`` block.

    Raises
    ------
    PlatformError
        From every method, if Airflow does not answer or has an internal error.
    RequestRefused
        From every method, if Airflow refuses the request, with Airflow's own reason.
    """

    def __init__(self, url: str, user: str, password: str, *, timeout_s: float = 30.0) -> None:
        self._url = url.rstrip("/")
        self._login = {"username": user, "password": password}
        self._token = ""
        # trust_env=False: requests to this machine must not go through a proxy.
        self._http = httpx.Client(base_url=self._url, timeout=timeout_s, trust_env=False)

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> str:
        """Start a run of a DAG, now, and return its id."""
        body = {"logical_date": None, "conf": conf}  # Airflow insists on the date's key
        path = f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns"
        run = self._call("POST", path, what=f"start DAG {dag_id!r}", json=body)
        return str(run["dag_run_id"])

    def state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run: "queued", "running", "success" or "failed"."""
        return str(self._call("GET", _run_path(dag_id, run_id))["state"])

    def task_states(self, dag_id: str, run_id: str) -> list[TaskState]:
        """Return every task of a run, in the order of the ids; tasks not yet begun included."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances"
        found: list[dict[str, Any]] = []
        while True:
            page = self._call("GET", path, params={"limit": 100, "offset": len(found)})
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                break
        tasks = [
            TaskState(t["task_id"], t["map_index"], t["state"] or "none", t["try_number"])
            for t in found
        ]
        return sorted(tasks)

    def returned(self, dag_id: str, run_id: str, task_id: str, *, key: str = "return_value") -> Any:
        """Return the value that a finished task returned, or left under another key."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{quote(task_id, safe='')}/xcomEntries"
        return self._call("GET", f"{path}/{quote(key, safe='')}", params={"deserialize": True})[
            "value"
        ]

    def ensure_pool(self, name: str, *, slots: int, description: str) -> None:
        """Create a pool unless it exists, in which case it stays as its users set it.

        Deferred tasks count: they wait for work that goes on.
        """
        body = {"name": name, "slots": slots, "description": description, "include_deferred": True}
        response = self._send("POST", "/api/v2/pools", json=body)
        if response.status_code != HTTPStatus.CONFLICT:
            _check(response, f"create pool {name!r}")

    def ensure_connection(self, connection_id: str, values: Mapping[str, Any]) -> None:
        """Create a connection, or make it what `values` say."""
        body = {"connection_id": connection_id, **values}
        response = self._send("POST", "/api/v2/connections", json=body)
        if response.status_code == HTTPStatus.CONFLICT:
            path = f"/api/v2/connections/{quote(connection_id, safe='')}"
            response = self._send("PATCH", path, json=body)
        _check(response, f"set connection {connection_id!r}")

    def test_connection(self, connection_id: str, values: Mapping[str, Any]) -> tuple[bool, str]:
        """Return what *Test* shows in the form of a connection."""
        body = {"connection_id": connection_id, **values}
        answer = self._call("POST", "/api/v2/connections/test", json=body)
        return bool(answer["status"]), str(answer["message"])

    def task_progress(
        self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1
    ) -> dict[str, Any] | None:
        """Return the progress that a task has stored; None before it has stored any."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{quote(task_id, safe='')}"
        path = f"{path}/state-store/progress"
        response = self._send("GET", path, params={"map_index": map_index})
        if response.status_code == HTTPStatus.NOT_FOUND:
            return None
        _check(response, f"answer GET {path}")
        value = response.json()["value"]
        return dict(json.loads(value) if isinstance(value, str) else value)

    def run_url(self, dag_id: str, run_id: str) -> str:
        """Return the page of a run, for people."""
        return f"{self._url}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"

    def import_errors(self) -> dict[str, str]:
        """Return why DAG files could not be loaded, by file."""
        page = self._call("GET", "/api/v2/importErrors", params={"limit": 100})
        return {str(e["filename"]): str(e["stack_trace"]) for e in page["import_errors"]}

    def dag_ids(self) -> list[str]:
        """Return the DAGs that Airflow knows, sorted."""
        page = self._call("GET", "/api/v2/dags", params={"limit": 100})
        return sorted(str(dag["dag_id"]) for dag in page["dags"])

    def wait_for_dag(self, dag_id: str, *, timeout_s: float = 60.0) -> None:
        """Return when a DAG has been parsed and can be triggered.

        Raises
        ------
        PlatformError
            If it is not there in time, with the errors of the files that could not be loaded.
        """
        deadline = time.monotonic() + timeout_s
        path = f"/api/v2/dags/{quote(dag_id, safe='')}"
        while True:
            response = self._send("GET", path)
            if response.is_success and not response.json()["has_import_errors"]:
                return
            if response.status_code != 404:
                _check(response, f"answer GET {path}")
            if time.monotonic() > deadline:
                errors = self.import_errors()
                why = "\n".join(f"{file}:\n{trace.strip()}" for file, trace in errors.items())
                raise PlatformError(
                    f"Airflow has no working DAG {dag_id!r} after {timeout_s:.0f} s"
                    + (f"; files that could not be loaded:\n{why}" if why else "")
                )
            time.sleep(_POLL_S)

    def _call(self, method: str, path: str, *, what: str = "", **request: Any) -> Any:
        response = self._send(method, path, **request)
        _check(response, what or f"answer {method} {path}")
        return response.json()

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            if not self._token:
                self._log_in()
            response = self._http.request(method, path, headers=self._headers(), **request)
            if response.status_code == 401:  # the token has expired
                self._log_in()
                response = self._http.request(method, path, headers=self._headers(), **request)
            return response
        except httpx.HTTPError as error:
            raise PlatformError(
                f"Airflow does not answer at {self._url} ({error}); see `petalign doctor`"
            ) from error

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    def _log_in(self) -> None:
        response = self._http.post("/auth/token", json=self._login)
        _check(response, f"log in as {self._login['username']!r}")
        self._token = str(response.json()["access_token"])


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/api/v2/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"


def _check(response: httpx.Response, what: str) -> None:
    """Raise with Airflow's own words if a request did not succeed."""
    if response.is_success:
        return
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text[:500]
    if response.is_client_error:
        raise RequestRefused(f"Airflow refused to {what}: {_words(detail)}")
    raise PlatformError(f"Airflow failed to {what}: {_words(detail)}")


def _words(detail: Any) -> str:
    if isinstance(detail, list):  # faults of fields, as FastAPI lists them
        return "; ".join(
            f"{'.'.join(str(part) for part in fault.get('loc', ()))}: {fault.get('msg')}"
            for fault in detail
        )
    # What jsonschema adds to its first sentence repeats it in terms of the schema.
    return str(detail).partition("\n\nFailed validating")[0]
