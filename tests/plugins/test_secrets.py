"""Keys that the environment and the connection lend reach no XCom, link, log, or error."""

import asyncio
import json
import traceback
import uuid
from datetime import timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred

import alignment.stages
from petalign_airflow.hooks import DaskHook
from petalign_airflow.links import DashboardLink, ReportLink, ViewerLink
from petalign_airflow.operators import PrepareRunOperator, RunStageOperator
from petalign_airflow.params import run_params
from petalign_airflow.triggers import StageTrigger
from storage import s3, store
from storage.errors import UnavailableError
from storage.uri import local_path

CANARY = "canary0SECRET0a91c"


@pytest.fixture
def run_uri(tmp_path, monkeypatch, scheduler_address):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "petalign")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(s3, "RETRY", {"max_retries": 0, "retry_timeout": timedelta(seconds=1)})
    connection = {
        "conn_type": "dask", "host": scheduler_address, "login": "petalign", "password": CANARY,
        "extra": {"allowed_uris": [f"file://{tmp_path}", "s3://petalign"], "token": CANARY},
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_DASK_DEFAULT", json.dumps(connection))
    s3._client.cache_clear()
    yield f"file://{tmp_path}/out.zarr/runs/0123"
    s3._client.cache_clear()


def deferred_and_resumed(task):
    """Run a task as Airflow does; return what it would store, and the words of its failure."""
    ti = SimpleNamespace(id=uuid.uuid4().hex, try_number=1)  # its key must be new to Dask
    method, kwargs, stored = task.execute, {}, []
    for _ in range(20):
        try:
            stored.append(method({"ti": ti, "outlet_events": {}}, **kwargs))
            return stored
        except TaskDeferred as deferred:
            path, arguments = deferred.trigger.serialize()
            event = asyncio.run(_first(StageTrigger(**arguments)))
            stored += [path, arguments, event.payload]
            method, kwargs = getattr(task, deferred.method_name), {"event": event.payload}
        except (AirflowException, AirflowFailException) as error:
            return [*stored, *traceback.format_exception(error)]
    raise AssertionError("it deferred for ever")


async def _first(trigger):
    return await asyncio.wait_for(anext(trigger.run()), 60)


def test_a_stage_that_cannot_reach_its_store_fails_without_the_key(run_uri, monkeypatch, caplog):
    def run(stage: str, run_uri: str) -> None:
        store.read_bytes("s3://petalign/out.zarr/zarr.json")

    monkeypatch.setattr(alignment.stages, "run", run)
    caplog.set_level("DEBUG")
    task = RunStageOperator(
        task_id="match", stage="match", run_uri=run_uri, poll_s=0.05, silent_after_s=2, linger_s=0
    )
    stored = deferred_and_resumed(task)
    assert any("cannot read s3://petalign/out.zarr" in str(value) for value in stored)
    rendered = {name: getattr(task, name) for name in task.template_fields}
    shown = [*stored, rendered, caplog.text, repr(task), repr(DaskHook().__dict__)]
    ledger_files = [f.read_text() for f in local_path(run_uri).rglob("*.json")]
    assert ledger_files
    assert [text for text in map(str, [*shown, *ledger_files]) if CANARY in text] == []


def test_preparing_a_run_shows_no_key(run_uri, caplog):
    caplog.set_level("DEBUG")
    params = {name: param.value for name, param in run_params().items()}
    params |= {"source": "s3://petalign/raw.zarr", "volume": "s3://petalign/out.zarr"}
    task = PrepareRunOperator(task_id="prepare")
    with pytest.raises(UnavailableError) as found:  # Airflow tries again
        task.execute({"params": params})
    shown = [*traceback.format_exception(found.value), caplog.text, repr(task)]
    assert any("cannot look up s3://petalign" in text for text in shown)
    assert [text for text in shown if CANARY in text] == []


def test_links_hold_no_key(run_uri):
    key = SimpleNamespace(dag_id="d", task_id="match", run_id="r", map_index=-1, try_number=1)
    for link in (ReportLink(), ViewerLink(), DashboardLink()):
        task = SimpleNamespace(dask_conn_id="dask_default", run_uri="s3://petalign/out.zarr/runs/0")
        try:
            url = link.get_link(task, ti_key=key)
        except Exception as error:  # outside of Airflow some links have nothing to show
            url = str(error)
        assert CANARY not in url
