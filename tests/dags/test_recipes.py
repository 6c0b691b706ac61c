"""The DAG `recipe`: parsed, and run with a real recipe on a real cluster."""

import json
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred

from alignment.recipes import process
from alignment.recipes.frozen import freeze, load
from alignment.recipes.states import look, stop
from petalign_airflow.recipes import (
    BatchesTrigger,
    PrepareRecipeOperator,
    RunBatchOperator,
    recipe_params,
)
from storage import ledger
from storage.ledger import StageState
from storage.store import join, replace_json
from tests.dags.test_align_volume import HEAVY
from tests.plugins.airflow_home import ROOT

pytestmark = pytest.mark.filterwarnings(  # Airflow's own use of pathspec
    "ignore:GitWildMatchPattern:DeprecationWarning"
)

RECIPE = """
files: [task.py]
experiments:
  last: {command: python task.py, depends_on: [first], fetch: [first]}
  first: {command: "python task.py --in=file://%s/raw", parameters: {n: [1, 2]}, retries: 0}
"""

INDEPENDENT = """
files: [task.py]
experiments:
  many: {command: python task.py, parameters: {n: [1, 2]}, retries: 0}
  one: {command: python task.py, retries: 0}
"""
"""`dag.test` runs one task after the other, in no set order: none may wait for another."""


@pytest.fixture
def freeze_text(tmp_path, connect, scheduler_address):
    connect(scheduler_address, allowed_uris=[f"file://{tmp_path}"])

    def freeze_text(text, program="print('done')"):
        (tmp_path / "task.py").write_text(program)
        (tmp_path / "recipe.yaml").write_text(text)
        return load(freeze(tmp_path / "recipe.yaml", f"{tmp_path}/recipes"))

    yield freeze_text
    process.end_idle()


@pytest.fixture
def frozen(tmp_path, freeze_text):
    return freeze_text(RECIPE % tmp_path)


@pytest.fixture(scope="module")
def dag(airflow_database):
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(ROOT / "dags")
    assert bag.import_errors == {}
    return bag.dags["recipe"]


def test_parsing_the_dag_imports_nothing_heavy():
    import subprocess
    import sys

    script = (
        "import runpy, sys\n"
        "import airflow.sdk\n"
        "before = set(sys.modules)\n"
        f"runpy.run_path({str(ROOT / 'dags' / 'recipes.py')!r})\n"
        f"print([name for name in {HEAVY} if name in set(sys.modules) - before])"
    )
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], check=True, capture_output=True, text=True
    )
    assert answer.stdout.splitlines()[-1] == "[]"


def test_a_recipe_runs_as_mapped_tasks_with_readable_names(dag, freeze_text):
    recipe = freeze_text(INDEPENDENT)
    run = dag.test(run_conf={"recipe": recipe.uri})
    assert run.state == "success"
    assert look(recipe).state == "done"
    names = {
        ti.rendered_map_index: ti.state for ti in run.get_task_instances() if ti.task_id == "run"
    }
    assert names == {"many 00000-00001": "success", "one 00000": "success"}


@pytest.mark.slow
def test_a_program_that_fails_fails_the_run_without_retries_by_airflow(dag, freeze_text):
    failing = freeze_text(INDEPENDENT, program="raise SystemExit(9)")
    run = dag.test(run_conf={"recipe": failing.uri})
    assert run.state == "failed"
    tries = {ti.rendered_map_index: ti.try_number for ti in run.get_task_instances()}
    assert tries["many 00000-00001"] == 1
    assert look(failing).experiments[0].starts == 2


def context(**params):
    ti = SimpleNamespace(id="0190", try_number=1)
    return {"ti": ti, "params": params}


def prepare(**params):
    return PrepareRecipeOperator(task_id="prepare").execute(context(**params))


def test_preparing_returns_uris_names_and_counts_alone(frozen):
    first, last = prepare(recipe=frozen.uri)
    assert first == {
        "recipe": frozen.uri, "batch": "first.000", "title": "first 00000-00001", "after": [],
    }  # fmt: skip
    assert last["after"] == ["first.000"]
    assert list(recipe_params()) == ["recipe"]


@pytest.mark.parametrize(
    "uri", ["http://169.254.169.254/x", "file:///etc", "s3://other/a", "file:///tmp/{{ run_id }}"]
)
def test_a_recipe_outside_the_allowed_places_is_not_touched(frozen, uri):
    with pytest.raises(AirflowFailException, match="is refused"):
        prepare(recipe=uri)


def test_a_recipe_that_names_other_places_is_refused(frozen, tmp_path, connect, scheduler_address):
    connect(scheduler_address, allowed_uris=[f"file://{tmp_path}/recipes"])
    with pytest.raises(AirflowFailException, match=f"'file://{tmp_path}/raw' is refused"):
        prepare(recipe=frozen.uri)


def test_unknown_parameters_are_refused(frozen):
    with pytest.raises(AirflowFailException, match="reciep: no such parameter"):
        prepare(recipe=frozen.uri, reciep="x")


def forged(frozen, **changes):
    """Write a recipe by hand, as `petalign recipe up` never would."""
    experiment = {"command": ["python", "task.py", "{{n}}"], "parameters": {"n": [1]}} | changes
    raw = {"recipe": {"files": [], "experiments": {"a": experiment}}, "files": {}}
    uri = join(frozen.uri.rpartition("/")[0], "forged")
    replace_json(join(uri, "recipe.json"), raw)
    replace_json(join(uri, "points/a.json"), [{"n": changes.get("point", 1)}])
    return uri


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": "python /tmp/evil.py"}, "is not one of the recipe's `files`"),
        ({"command": "sh evil.sh"}, "program 'sh' is refused: allowed are petalign, python"),
        ({"command": "python -c 'import os'"}, "python -c is refused"),
    ],
)
def test_a_recipe_that_was_forged_in_the_store_is_checked_like_any_other(frozen, changes, message):
    load.cache_clear()
    with pytest.raises(AirflowFailException, match=message):
        prepare(recipe=forged(frozen, **changes))


def test_a_point_that_was_forged_in_the_store_is_refused(frozen):
    load.cache_clear()
    uri = forged(frozen, command="petalign status {{n}}")
    replace_json(join(uri, "points/a.json"), [{"n": "--evil"}])
    with pytest.raises(AirflowFailException, match="would become the option"):
        prepare(recipe=uri)


def test_programs_are_allowed_by_the_connection(frozen, tmp_path, connect, scheduler_address):
    load.cache_clear()
    uri = forged(frozen, command="blastn {{n}}")
    connect(
        scheduler_address,
        allowed_uris=[f"file://{tmp_path}"],
        recipe_programs={"blastn": "/usr/bin/blastn"},
    )
    assert len(prepare(recipe=uri)) == 1
    connect(scheduler_address, allowed_uris=[f"file://{tmp_path}"], recipe_programs=["blastn"])
    with pytest.raises(AirflowFailException, match="must map names to absolute paths"):
        prepare(recipe=uri)


def operator(frozen, **kwargs):
    settings = {"batch": "last.000", "title": "last", "after": ["first.000"]} | kwargs
    return RunBatchOperator(task_id="run", recipe=frozen.uri, poll_s=0.05, linger_s=0, **settings)


def fired(trigger):
    import asyncio

    async def wait():
        return (await asyncio.wait_for(anext(trigger.run()), 30)).payload

    _, arguments = trigger.serialize()
    return asyncio.run(wait()) if arguments else None


def test_a_batch_waits_for_those_before_it_without_a_slot(frozen):
    task = operator(frozen)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context())
    assert deferred.value.method_name == "begin"
    path, arguments = deferred.value.trigger.serialize()
    assert path == "petalign_airflow.recipes.BatchesTrigger"
    rebuilt = BatchesTrigger(**arguments)
    ledger.write_state(frozen.uri, StageState("first.000", "done"))
    assert fired(rebuilt) == {"failed": "", "error_kind": None}


@pytest.mark.parametrize(
    ("kind", "error"), [("data", AirflowFailException), ("storage", AirflowException)]
)
def test_a_batch_whose_forerunner_failed_is_not_begun(frozen, kind, error):
    state = StageState("first.000", "failed", error="x", error_kind=kind)
    ledger.write_state(frozen.uri, state)
    event = fired(BatchesTrigger(frozen.uri, ["first.000"], 0.01))
    with pytest.raises(AirflowException, match=r"first\.000 before it failed") as failure:
        operator(frozen).begin(context(), event)
    assert type(failure.value) is error
    assert ledger.read_state(frozen.uri, "last.000").status == "waiting"


def test_a_stopped_recipe_is_not_retried(frozen):
    stop(frozen)
    with pytest.raises(AirflowFailException, match="stopped by a user"):
        operator(frozen).execute(context())
    assert fired(BatchesTrigger(frozen.uri, ["first.000"], 0.01))["failed"] == ""
    failed = {"status": "failed", "blocks_done": 1, "blocks_total": 2, "error": "stopped by a user"}
    with pytest.raises(AirflowFailException, match="go on with"):
        operator(frozen).resume(context(), failed | {"error_kind": "other"})


def test_a_driver_that_falls_silent_is_replaced_by_a_retry(frozen):
    assert ledger.claim(frozen.uri, "last.000", silent_after_s=60)
    event = {"status": "silent", "blocks_done": 0, "blocks_total": 1, "error_kind": None}
    with pytest.raises(AirflowException, match="its driver does not report"):
        operator(frozen).resume(context(), event | {"error": None})
    assert ledger.claim(frozen.uri, "last.000", silent_after_s=60), "the retry may begin at once"


def test_json_is_all_that_passes_through_airflow(frozen):
    assert json.loads(json.dumps(prepare(recipe=frozen.uri))) == prepare(recipe=frozen.uri)
