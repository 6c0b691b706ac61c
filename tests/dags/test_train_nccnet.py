"""The DAG `train_nccnet`: its form, its refusals, and a whole run whose program is a stand-in."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.sdk import ParamsDict
from airflow.sdk.exceptions import AirflowFailException

from alignment.errands import drive, learning
from alignment.errors import DataError
from alignment.learning.config import LearnConfig, parse_learn_config
from alignment.learning.remote import training_folder
from inference.model_file import digest
from inference.training_files import CHECKPOINT, MODEL
from petalign_airflow.errands import ErrandOperator
from petalign_airflow.hooks import DaskHook
from petalign_airflow.params import nested
from petalign_airflow.training import HARDWARE, TRAININGS, TrainOperator, train_params
from storage.store import exists, join, read_bytes
from tests.dags.test_align_volume import asset_events, xcom
from tests.plugins.airflow_home import ROOT

ERRAND = "train_nccnet"
PLACES = TRAININGS[ERRAND].places

pytestmark = pytest.mark.filterwarnings(  # Airflow's own use of pathspec
    "ignore:GitWildMatchPattern:DeprecationWarning"
)


@pytest.fixture(scope="module")
def dag(airflow_database):
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(ROOT / "dags")
    assert bag.import_errors == {}
    return bag.dags["train_nccnet"]


@pytest.fixture
def conf(tmp_path, connect, scheduler_address):
    connect(scheduler_address, allowed_uris=[f"file://{tmp_path}"])
    return {name: f"file://{tmp_path}/{name}" for name in PLACES}


def test_the_form_has_every_setting_with_its_default_and_help():
    params = train_params(ERRAND)
    others = (*PLACES, HARDWARE)
    values = {name: param.value for name, param in params.items() if name not in others}
    assert parse_learn_config(nested(values, model=LearnConfig)) == LearnConfig()
    flat = set(_leaves(LearnConfig().model_dump(mode="json")))
    assert set(values) == flat - {"training.network.architecture"}, "of which there is one only"
    for name, param in params.items():
        assert param.description, name
        assert "$ref" not in str(param.schema), name
    sections = {name: params[name].schema["section"] for name in values}
    assert sections["training.network.widths"].startswith("training.network: what is trained")
    assert sections["pairs.pairs"] == "pairs: which pairs of windows are learned from"
    assert sections["mip"].startswith("general: everything that decides")
    places = {name: f"s3://petalign/{name}" for name in PLACES}
    assert ParamsDict(params | places).validate()["training.network.widths"] == [8, 16, 32, 64]


def _leaves(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


@pytest.fixture
def trained(monkeypatch):
    """Let a stand-in train; return what it was given, and the lines of the task's log."""
    seen = SimpleNamespace(orders=[], lines=[], error=None)

    def train_nccnet(arguments, client, progress):
        assert client is None
        seen.orders.append(arguments)
        if seen.error is not None:
            raise seen.error
        progress.tell(0, 20, "looking for pairs")
        with training_folder(arguments["folder"]) as folder:
            (folder.path / "pairs.json").write_bytes(b"pairs")
            (folder.path / CHECKPOINT).write_bytes(b"checkpoint")
            (folder.path / MODEL).write_bytes(b"network")
            told = {"step": 20, "best": 0.5, "best_step": 10, "raw": 0.1, "has_ended": True}
            folder.keep(told)
        return learning.read_trained(arguments["folder"])

    log = SimpleNamespace(info=lambda text, *given: seen.lines.append(text % given))
    monkeypatch.setattr(learning, "train_nccnet", train_nccnet)
    monkeypatch.setattr(ErrandOperator, "log", log, raising=False)
    monkeypatch.setattr(drive, "driver_client", lambda: pytest.fail("it left its slot"))
    return seen


def test_a_training_gives_the_network_to_what_follows(dag, conf, trained):
    run = dag.test(run_conf=conf | {"mip": 0, "training.steps": 20, "pairs.distances": [1]})
    assert run.state == "success"
    found = xcom(run, "train", "return_value")
    model = join(conf["folder"], MODEL)
    assert found["model"] == model
    assert found["sha256"] == digest(read_bytes(model))
    assert found["r_delta"] == 0.5
    assert asset_events(run) == [found]
    (order,) = trained.orders
    assert order["stack"] == conf["stack"]
    config = parse_learn_config(order["config"])
    assert (config.mip, config.training.steps, config.pairs.distances) == (0, 20, (1,))
    assert any(f"{model}, sha256 {found['sha256']}" in line for line in trained.lines)


def test_too_few_pairs_fail_without_a_retry(dag, conf, trained):
    trained.error = DataError("only 3 of 4000 pairs are hard enough; raise max_r_delta")
    run = dag.test(run_conf=conf)
    (task,) = run.get_task_instances()
    assert (task.state, task.try_number) == ("failed", 1)


def train(conf, **changes):
    params = {name: param.value for name, param in train_params(ERRAND).items()}
    context = {"params": params | conf | changes}
    return TrainOperator(task_id="train", errand=ERRAND).execute(context)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.stebs": 2}, r"did you mean 'training\.steps'"),
        ({"zzz": 2}, r"written like 'training\.steps'"),
        ({"training": {}}, r"parameters of their own: training\.network\.widths"),
        ({"training.steps": 0}, r"training\.steps: Input should be greater"),
        ({"training.search_px": 250}, r"search_px=250 must be a multiple of 8"),
        ({"training.augment.noise": -1.0}, r"training\.augment\.noise: "),
        ({"training.network.architecture": "unet"}, "no such parameter"),
        ({"folder": "s3://other/x"}, "is refused"),
        ({"stack": "http://169.254.169.254/x"}, "is refused"),
    ],
)
def test_what_is_wrong_fails_before_anything_is_reached(conf, changes, message, monkeypatch):
    monkeypatch.setattr(DaskHook, "get_conn", lambda _: pytest.fail("it reached out"))
    with pytest.raises(AirflowFailException, match=message):
        train(conf, **changes)
    assert not exists(join(conf["folder"], "errands/state/train_nccnet.json"))
