"""What a run's conf may try, on every DAG and every place it takes: nothing is reached or written.

Row 33 of the fault matrix. Airflow checks the form first; here its first tasks stand alone, as if
that check were not there.
"""

from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException

from petalign_airflow.hooks import DaskHook
from tests.plugins.airflow_home import ROOT

pytestmark = pytest.mark.filterwarnings(  # Airflow's own use of pathspec
    "ignore:GitWildMatchPattern:DeprecationWarning"
)

FIRST = {
    "align_volume": ("prepare", ("source", "volume")),
    "reprocess_nightly": ("look", ("source", "volume")),
    "ingest_sections": ("ingest", ("incoming", "source")),
    "verify_volume": ("verify", ("volume",)),
    "predict_volume": ("prepare", ("volume", "model", "prediction")),
    "train_nccnet": ("train", ("stack", "folder")),
    "train_unet": ("train", ("data", "folder")),
}
"""The task of each DAG that reads the conf, and the places that this may name."""

URIS = [
    "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
    "https://example.org/raw.zarr",
    "ftp://petalign/cohort/raw",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "file:///etc",
    "file:///etc/passwd",
    "file:///proc/self/environ",
    "file://localhost/etc",
    "/etc/passwd",
    "../../etc/passwd",
    "s3://other/raw",
    "s3://petalign",
    "s3://petalign/",
    "s3://petalign/cohort-12/raw",
    "s3://petalign/cohort/../cohort-12/raw",
    "s3://petalign/cohort/./raw",
    "s3://petalign/cohort//raw",
    "s3://petalign/cohort/%2e%2e/cohort-12",
    "s3://petalign/cohort/..%2fcohort-12",
    "s3://petalign@169.254.169.254/cohort/raw",
    "s3://petalign:80/cohort/raw",
    "s3://PETALIGN/cohort/raw",
    "s3://petalign/cohort/raw?versionId=1",
    "s3://petalign/cohort/raw#fragment",
    "s3://petalign/cohort/{{ var.value.get('secret') }}",
    "s3://petalign/cohort/{% for x in [1] %}a{% endfor %}",
    "{{ conn.aws_default.password }}",
    "s3://petalign/cohort/$(id)",
    "s3://petalign/cohort/`id`",
    "s3://petalign/cohort/raw; rm -rf /",
    "s3://petalign/cohort/raw | tee /tmp/x",
    "s3://petalign/cohort/raw\x00.tif",
    "s3://petalign/cohort/raw\r\nHost: evil",
    "s3://petalign/cohort/\u202egnp.exe",
    "s3://petalign/cohort/" + "a" * 300,
    "s3://petalign/cohort/" + "a/" * 600,
    "s3://petalign\\cohort\\raw",
    "zip://s3://petalign/cohort/raw.zip",
    "s3://petalign/cohort/raw|zip:",
    "simplecache::s3://petalign/cohort/raw",
    "data:text/plain,hello",
    " s3://petalign/cohort/raw",
    "",
]

KEYS = [
    {"run_uri": "file:///etc"},
    {"__class__": "os.system"},
    {"match.neighbours; id": 3},
    {"source ": "s3://petalign/cohort/raw"},
    {"dask_conn_id": "other"},
    {"env": {"AWS_ENDPOINT_URL": "http://evil"}},
    {"{{ 7 * 7 }}": 1},
]


@pytest.fixture(scope="module")
def dags(airflow_database):
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(ROOT / "dags")
    assert bag.import_errors == {}
    return bag.dags


@pytest.fixture
def reached(connect, monkeypatch):
    """Return the list of everything that was asked of the cluster, which is not there anyway."""
    connect("127.0.0.1:1", connect_timeout=0.1, allowed_uris=["s3://petalign/cohort"])
    monkeypatch.setenv("AIRFLOW_VAR_PETALIGN_NIGHTLY", "{}")
    calls = []
    for name in ("call", "start", "get_conn"):
        monkeypatch.setattr(DaskHook, name, lambda self, *args, **_: calls.append(args))
    for name in ("read_state", "claim", "write_state"):
        monkeypatch.setattr(f"storage.ledger.{name}", lambda *args, **_: calls.append(args))
    return calls


def execute(dags, dag_id, conf):
    task_id, places = FIRST[dag_id]
    dag = dags[dag_id]
    good = {place: f"s3://petalign/cohort/{place}" for place in places}
    params = {name: dag.params[name] for name in dag.params if name not in places}
    context = {
        "params": {**params, **good, **conf},
        "ti": SimpleNamespace(
            id="0190", try_number=1, map_index=-1, xcom_push=lambda *_, **__: None
        ),
        "dag_run": SimpleNamespace(run_type="manual"),
        "outlet_events": {},
    }
    return dag.get_task(task_id).execute(context)


def test_every_dag_that_takes_places_is_tried(dags):
    with_places = {
        dag_id
        for dag_id, dag in dags.items()
        if {"source", "volume", "incoming", "run", "folder"} & set(dag.params)
    }
    assert with_places == set(FIRST)


@pytest.mark.parametrize("uri", URIS)
def test_no_place_outside_the_allow_list_is_touched(dags, reached, uri):
    for dag_id, (_, places) in FIRST.items():
        for place in places:
            with pytest.raises(AirflowFailException):
                execute(dags, dag_id, {place: uri})
            assert reached == [], f"{dag_id} reached out for {place}"


@pytest.mark.parametrize("conf", KEYS, ids=str)
def test_no_key_that_a_dag_does_not_know_is_let_in(dags, reached, conf):
    for dag_id in FIRST:
        with pytest.raises(AirflowFailException, match="no such"):
            execute(dags, dag_id, conf)
        assert reached == []


@pytest.mark.parametrize("dag_id", FIRST)
def test_good_places_are_let_through(dags, reached, dag_id):
    """Else the tests above would pass for a DAG that refuses everything."""
    try:
        execute(dags, dag_id, {})
    except AirflowFailException:
        raise
    except Exception:  # what the stand-ins answer is nonsense to the task
        assert reached != []
    assert reached != []


def test_no_task_templates_what_comes_from_a_conf(dags):
    """A template would be filled in by Airflow before our own checks see the text."""
    templated = {
        (dag_id, task.task_id): task.template_fields
        for dag_id in FIRST
        for task in dags[dag_id].tasks
        if task.template_fields
    }
    for (dag_id, task_id), names in templated.items():
        task = dags[dag_id].get_task(task_id)
        for name in names:
            given = task.partial_kwargs if task.is_mapped else vars(task)
            value = given.get(name)
            assert not isinstance(value, str) or "{{" not in value, f"{dag_id}.{task_id}.{name}"
