"""The DAG `predict_volume`: a real network over a real volume, through Airflow's own tasks."""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from airflow.sdk.exceptions import AirflowFailException

from petalign_airflow.predicting import PreparePredictionOperator, predict_params
from storage import ledger, open_prediction
from storage.store import exists, join, replace_bytes
from tests.dags.test_align_volume import asset_events, xcom
from tests.networks import model_file
from tests.plugins.airflow_home import ROOT
from tests.published import publish_aligned, texture

pytestmark = pytest.mark.filterwarnings(  # Airflow's own use of pathspec
    "ignore:GitWildMatchPattern:DeprecationWarning"
)
needs_tensorflow = pytest.mark.skipif(
    find_spec("tensorflow") is None, reason="the extra `train` is not installed"
)
SETTINGS = {
    "patches.patch_px": [10, 38, 38],
    "patches.margin_px": [3, 3, 3],
    "volume.shard": [8, 64, 64],
    "volume.chunk": [8, 32, 32],
}


@pytest.fixture(scope="module")
def dag(airflow_database):
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(ROOT / "dags")
    assert bag.import_errors == {}
    return bag.dags["predict_volume"]


@pytest.fixture
def conf(tmp_path, connect, scheduler_address):
    places = {name: f"file://{tmp_path}/{name}" for name in ("volume", "model", "prediction")}
    connect(scheduler_address, allowed_uris=[f"file://{tmp_path}"])
    return places


@pytest.fixture
def published(conf):
    publish_aligned(conf["volume"], texture())
    replace_bytes(conf["model"], model_file())
    return conf


@needs_tensorflow
def test_a_prediction_is_computed_published_and_shared_by_a_second_run(dag, published):
    run = dag.test(run_conf=published | SETTINGS)
    assert run.state == "success"
    run_uri = xcom(run, "prepare", "return_value")
    assert xcom(run, "prepare", "figures")["units"] == 4
    assert xcom(run, "predict", "return_value") == 5
    assert ledger.read_state(run_uri, "predict").status == "done"
    assert asset_events(run) == [{"run_uri": run_uri}]
    found = open_prediction(published["prediction"])
    assert found.attrs["run"] == run_uri.rpartition("/")[2]
    assert found.shape == (2, 8, 100, 90)
    assert np.unique(found[0, 4].values).size > 10

    again = dag.test(run_conf=published | SETTINGS)
    assert again.state == "success"
    assert xcom(again, "prepare", "return_value") == run_uri
    assert ledger.read_state(run_uri, "predict").epoch == 2, "one claim and one driver in all"


@needs_tensorflow
def test_a_model_that_is_none_fails_without_a_retry(dag, published):
    replace_bytes(published["model"], b"\x80\x04\x95 a pickle")
    run = dag.test(run_conf=published | SETTINGS)
    states = {ti.task_id: (ti.state, ti.try_number) for ti in run.get_task_instances()}
    assert states == {"prepare": ("failed", 1), "predict": ("upstream_failed", 0)}
    assert not exists(join(published["prediction"], "zarr.json"))


def prepare(conf, **changes):
    params = {name: param.value for name, param in predict_params().items()}
    context = {
        "ti": SimpleNamespace(xcom_push=lambda *_: None),
        "params": params | conf | changes,
    }
    return PreparePredictionOperator(task_id="prepare").execute(context)


@pytest.mark.parametrize("place", ["volume", "model", "prediction"])
@pytest.mark.parametrize("uri", ["http://169.254.169.254/x", "file:///etc", "s3://other/a"])
def test_what_is_not_allowed_is_not_touched(conf, place, uri):
    with pytest.raises(AirflowFailException, match="is refused"):
        prepare(conf, **{place: uri})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patches.bach": 2}, r"did you mean 'patches\.batch'"),
        ({"safe_mode": False}, "safe_mode: no such parameter"),
        ({"patches.batch": 0}, r"patches\.batch: Input should be greater"),
    ],
)
def test_what_is_no_setting_is_refused(conf, changes, message):
    with pytest.raises(AirflowFailException, match=message):
        prepare(conf, **changes)


def test_a_volume_without_a_version_fails_at_once(conf):
    with pytest.raises(AirflowFailException, match="has no published version"):
        prepare(conf)
