"""The DAG `train_unet`: its form, its refusals, and a whole run whose program is a stand-in."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.sdk import ParamsDict
from airflow.sdk.exceptions import AirflowFailException, ParamValidationError

from alignment.errands import drive, learning
from alignment.errors import AlignmentError
from alignment.learning.remote import training_folder
from alignment.learning.segmentation.config import SegmentConfig, parse_segment_config
from alignment.learning.segmentation.order import CONTENTS, DATA
from alignment.learning.segmentation.outcome import read_trained
from inference.model_file import digest
from inference.training.config import RSUNetConfig
from inference.training.files import CHECKPOINT, MODEL
from petalign_airflow.hooks import DaskHook
from petalign_airflow.params import nested
from petalign_airflow.training import HARDWARE, TRAININGS, TrainOperator, train_params
from storage.store import exists, join, read_bytes
from tests.dags.test_align_volume import asset_events, xcom
from tests.plugins.airflow_home import ROOT

ERRAND = "train_unet"
KIND = TRAININGS[ERRAND]
BESIDES = (*KIND.places, *KIND.options, HARDWARE)

pytestmark = pytest.mark.filterwarnings(  # Airflow's own use of pathspec
    "ignore:GitWildMatchPattern:DeprecationWarning"
)


@pytest.fixture(scope="module")
def dag(airflow_database):
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(ROOT / "dags")
    assert bag.import_errors == {}
    return bag.dags[ERRAND]


@pytest.fixture
def conf(tmp_path, connect, scheduler_address):
    connect(scheduler_address, allowed_uris=[f"file://{tmp_path}"])
    return {name: f"file://{tmp_path}/{name}" for name in KIND.places}


def test_the_form_has_every_setting_and_the_choice_of_networks_as_one():
    params = train_params(ERRAND)
    values = {name: param.value for name, param in params.items() if name not in BESIDES}
    assert parse_segment_config(nested(values, besides=BESIDES, model=SegmentConfig)) == (
        SegmentConfig()
    )
    for name, param in params.items():
        assert param.description, name
        assert "$ref" not in str(param.schema), name
    network = params["training.network"]
    assert network.schema["type"] == "object"
    assert "`architecture` is unet (layers, features_root, " in network.description
    assert " or rsunet (widths, " in network.description
    places = {name: f"s3://petalign/{name}" for name in KIND.places}
    form = ParamsDict(params | places)
    assert form.validate()["training.augment.elastic_px"] == 10.0
    for name, absurd in [("mode", "both"), ("workers", 0), ("hardware", {"gpu": 0})]:
        with pytest.raises(ParamValidationError, match=name):
            form[name] = absurd


@pytest.fixture
def trained(monkeypatch):
    """Let a stand-in train; return what it was given, and its errors, one a try."""
    seen = SimpleNamespace(orders=[], errors=[])

    def train_unet(arguments, client, progress):
        assert client is None
        seen.orders.append(arguments)
        if seen.errors:
            raise seen.errors.pop()
        with training_folder(arguments["folder"], CONTENTS) as folder:
            (folder.path / DATA).write_bytes(b"data")
            (folder.path / CHECKPOINT).write_bytes(b"checkpoint")
            (folder.path / MODEL).write_bytes(b"network")
            told = {
                "epoch": 3, "step": 30, "samples": 90, "seconds": 1.5, "best_epoch": 2, "best": 0.8,
                "staleness": 0.0, "has_ended": True,
            }  # fmt: skip
            folder.keep(told)
        return read_trained(arguments["folder"])

    monkeypatch.setattr(learning, "train_unet", train_unet)
    monkeypatch.setattr(drive, "driver_client", lambda: pytest.fail("it left its slot"))
    return seen


def test_a_training_gives_the_network_to_what_follows(dag, conf, trained):
    network = {"architecture": "rsunet", "widths": [4, 8]}
    settings = {"training.network": network, "training.patch_px": [4, 32, 32]}
    run = dag.test(run_conf=conf | settings | {"mode": "sync", "workers": 3})
    assert run.state == "success"
    found = xcom(run, "train", "return_value")
    model = join(conf["folder"], MODEL)
    assert (found["model"], found["sha256"]) == (model, digest(read_bytes(model)))
    assert (found["dice"], found["samples"], found["has_ended"]) == (0.8, 90, True)
    assert asset_events(run) == [found]
    (order,) = trained.orders
    assert (order["data"], order["mode"], order["workers"]) == (conf["data"], "sync", 3)
    assert parse_segment_config(order["config"]).training.network == RSUNetConfig(widths=(4, 8))


def train(conf, **changes):
    params = {name: param.value for name, param in train_params(ERRAND).items()}
    context = {"params": params | conf | changes, "ti": SimpleNamespace(id="7", try_number=1)}
    return TrainOperator(task_id="train", errand=ERRAND, linger_s=60).execute(context)


def test_a_lost_worker_is_tried_again(conf, trained):
    trained.errors = [AlignmentError("worker 1 was lost: it ended by signal 9")]
    with pytest.raises(Exception, match="worker 1 was lost") as failed:
        train(conf)
    assert not isinstance(failed.value, AirflowFailException)
    assert train(conf)["dice"] == 0.8


def test_it_waits_for_a_worker_with_the_hardware(conf, trained, monkeypatch):
    asked = []
    monkeypatch.setattr(DaskHook, "start", lambda *_, **how: asked.append(how["resources"]))
    monkeypatch.setattr(TrainOperator, "_watch", lambda *_: pytest.skip("deferred"))
    with pytest.raises(pytest.skip.Exception):
        TrainOperator(task_id="train", errand=ERRAND, linger_s=0).execute(
            {
                "params": {n: p.value for n, p in train_params(ERRAND).items()}
                | conf
                | {"hardware": {"gpu": 1}},
                "ti": SimpleNamespace(id="7", try_number=1),
            }
        )
    assert asked == [{"gpu": 1.0}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.stebs": 2}, r"no such parameter"),
        ({"training.network.layers": 2}, r"did you mean 'training\.network'"),
        ({"training.network": {"architecture": "unet", "layer": 2}}, r"training\.network\.layer"),
        ({"training.network": {"architecture": "lambda"}}, r"'unet', 'rsunet'"),
        ({"training.patch_px": (1, 130, 130)}, r"not halved evenly"),
        ({"workers": 2}, r"mode=local has 1 worker, not 2"),
        ({"data.images": 3}, r"data\.images: "),
        ({"folder": "s3://other/x"}, "is refused"),
        ({"data": "http://169.254.169.254/x"}, "is refused"),
    ],
)
def test_what_is_wrong_fails_before_anything_is_reached(conf, changes, message, monkeypatch):
    monkeypatch.setattr(DaskHook, "get_conn", lambda _: pytest.fail("it reached out"))
    with pytest.raises(AirflowFailException, match=message):
        train(conf, **changes)
    assert not exists(join(conf["folder"], "errands/state/train_unet.json"))
